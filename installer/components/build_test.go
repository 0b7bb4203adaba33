package components

import (
	"context"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// small is a component of the standard library alone, with a program that says
// what it is called.
const small = `
-- small/component.yaml --
about: says what it is called
version: example.com/pinned
ldflags: ["-X main.version=${version}"]
binaries:
  - {name: say, package: ., links: [tell]}
-- small/go.mod --
module example.com/small

go 1.26.0

require example.com/pinned v1.2.3
-- small/main.go --
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

var version string

func main() { fmt.Println(filepath.Base(os.Args[0]), version) }
`

// changed is small with something in it replaced.
func changed(t *testing.T, pairs ...string) Component {
	t.Helper()
	all, err := parse([]byte(strings.NewReplacer(pairs...).Replace(small)))
	if err != nil || len(all) != 1 {
		t.Fatalf("parse: %v, %d components", err, len(all))
	}
	return all[0]
}

func output(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command(path).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", path, err, out)
	}
	return strings.TrimSpace(string(out))
}

// stages runs a build and returns the stages that it went through.
func stages(t *testing.T, c Component, cache string) (*Built, []Stage) {
	t.Helper()
	var seen []Stage
	b, err := c.build(t.Context(), cache, "", func(e Event) {
		if len(seen) == 0 || seen[len(seen)-1] != e.Stage {
			seen = append(seen, e.Stage)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b, seen
}

func TestBuildOnce(t *testing.T) {
	c, cache := changed(t), t.TempDir()
	b, seen := stages(t, c, cache)
	if got := output(t, b.Path("say")) + ", " + output(t, b.Path("tell")); got != "say v1.2.3, tell v1.2.3" {
		t.Errorf("the programs say %q", got)
	}
	if seen[0] != Fetching || seen[len(seen)-1] != Done {
		t.Errorf("the first build went through %v, want fetching to done", seen)
	}
	again, seen := stages(t, c, cache)
	if diff := cmp.Diff(b, again); diff != "" || !cmp.Equal(seen, []Stage{Cached}) {
		t.Errorf("built again: %v\n%s", seen, diff)
	}
	parts, err := filepath.Glob(filepath.Join(b.Dir, "*.part"))
	if err != nil || len(parts) > 0 {
		t.Errorf("left over: %v %v", parts, err)
	}
}

// What programs read comes out of the module of the version as it is, and is
// held to its sum as they are.
func TestFileOfTheModule(t *testing.T) {
	c, cache := changed(t,
		"binaries:\n", "binaries:\n  - {name: table.txt, file: etc/table}\n",
		"require example.com/pinned v1.2.3\n", "require example.com/pinned v1.2.3\n\nreplace example.com/pinned => ./pinned\n-- small/pinned/go.mod --\nmodule example.com/pinned\n-- small/pinned/etc/table --\none two\n"), t.TempDir()
	b, _ := stages(t, c, cache)
	for _, what := range []string{"built", "built again"} {
		if got, err := os.ReadFile(b.Path("table.txt")); err != nil || string(got) != "one two\n" {
			t.Errorf("%s: %q, %v", what, got, err)
		}
		if output(t, b.Path("say")) != "say v1.2.3" {
			t.Errorf("%s: the program is another", what)
		}
		if err := flip(b.Path("table.txt")); err != nil {
			t.Fatal(err)
		}
		if again, _ := stages(t, c, cache); again.Sums["table.txt"] != b.Sums["table.txt"] {
			t.Errorf("%s: another sum", what)
		}
	}
}

// Whatever a program is built from has a part in where it is kept.
func TestOtherSourceOtherPlace(t *testing.T) {
	tools := toolchain{goVersion: "go1.26.1", arch: "amd64"}
	places := map[string]string{}
	for what, c := range map[string]Component{
		"itself": changed(t), "other source": changed(t, "fmt.Println(", "fmt.Println(1, "), "other flag": changed(t, "main.version", "main.v"),
		"other version": changed(t, "v1.2.3", "v1.2.4"), "tags": changed(t, "binaries:", "tags: [x]\nbinaries:"),
	} {
		dir := c.dir("", tools)
		if other, taken := places[dir]; taken {
			t.Errorf("%s is kept where %s is", what, other)
		}
		places[dir] = what
	}
	c := changed(t)
	for what, other := range map[string]toolchain{
		"other Go":   {goVersion: "go1.26.2", arch: "amd64"},
		"other arch": {goVersion: "go1.26.1", arch: "arm64"},
		"other C":    {goVersion: "go1.26.1", arch: "amd64", cVersion: "gcc 15"},
	} {
		if c.dir("", other) == c.dir("", tools) {
			t.Errorf("%s: the same place", what)
		}
	}
}

// A program that was damaged in the cache is found out, and built again.
func TestDamageIsRepaired(t *testing.T) {
	c, cache := changed(t), t.TempDir()
	b, _ := stages(t, c, cache)
	for _, damage := range []struct {
		what string
		do   func() error
	}{
		{"one byte", func() error { return flip(b.Path("say")) }},
		{"no program", func() error { return os.Remove(b.Path("say")) }},
		{"no link", func() error { return os.Remove(b.Path("tell")) }},
		{"half a manifest", func() error { return os.Truncate(b.Path(manifestName), 10) }},
	} {
		if err := damage.do(); err != nil {
			t.Fatal(err)
		}
		tools, err := findToolchain(t.Context(), c, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.lookup(cache, tools); !errors.Is(err, ErrNotBuilt) {
			t.Errorf("%s: lookup: %v, want %v", damage.what, err, ErrNotBuilt)
		}
		var sum *SumError
		if err := b.verify(); damage.what == "one byte" && (!errors.As(err, &sum) || sum.Path != b.Path("say")) {
			t.Errorf("verify: %v, want that %s is not what was built", err, b.Path("say"))
		}
		b, seen := stages(t, c, cache)
		if seen[len(seen)-1] != Done || b.verify() != nil || output(t, b.Path("tell")) != "tell v1.2.3" {
			t.Errorf("%s: went through %v, verify: %v", damage.what, seen, b.verify())
		}
	}
}

// flip changes one byte of a file.
func flip(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	raw[len(raw)/2]++
	return os.WriteFile(path, raw, 0o755)
}

// A command that fails is named with what it said last, and leaves nothing that
// looks built.
func TestFailureSaysWhy(t *testing.T) {
	c, cache := changed(t, "var version string", "var version int = nothing"), t.TempDir()
	_, err := c.build(t.Context(), cache, "", nil)
	var failed *BuildError
	if !errors.As(err, &failed) || failed.Component != "small" || !strings.Contains(err.Error(), "undefined: nothing") || !strings.Contains(err.Error(), " build ") {
		t.Errorf("error %v, want the component, the command and what it said", err)
	}
	tools, err := findToolchain(t.Context(), c, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.lookup(cache, tools); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("lookup after the failure: %v, want %v", err, ErrNotBuilt)
	}
}

// A build that was cut off goes on when it is asked for again.
func TestCutOff(t *testing.T) {
	c, cache := changed(t), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.build(ctx, cache, "", func(e Event) {
		if e.Stage == Compiling || e.Stage == Linking {
			cancel()
		}
	})
	cancel()
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cut off: %v", err)
	}
	if b, seen := stages(t, c, cache); output(t, b.Path("say")) != "say v1.2.3" {
		t.Errorf("after %v the program is not there", seen)
	}
}

// Of several that build the same at once, one does, and the others wait for it.
func TestAtOnce(t *testing.T) {
	c, cache := changed(t), t.TempDir()
	const builders = 4
	var mu sync.Mutex
	ends := map[Stage]int{}
	var wg sync.WaitGroup
	for range builders {
		wg.Go(func() {
			var last Stage
			_, err := c.build(t.Context(), cache, "", func(e Event) { last = e.Stage })
			mu.Lock()
			defer mu.Unlock()
			ends[last]++
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if ends[Done] != 1 || ends[Cached] != builders-1 {
		t.Errorf("ended as %v, want one done and the others cached", ends)
	}
}

// Without a C compiler for it, another architecture is built where there is no C
// in a program, and otherwise said to lack one.
func TestOtherArchitecture(t *testing.T) {
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	c, cache := changed(t), t.TempDir()
	b, err := c.build(t.Context(), cache, other, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(b.Path("say"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	want := map[string]elf.Machine{"arm64": elf.EM_AARCH64, "amd64": elf.EM_X86_64}[other]
	if f.Machine != want || b.Arch != other {
		t.Errorf("built for %s, of %s, want %s", f.Machine, b.Arch, want)
	}
	if native, _ := stages(t, c, cache); native.Dir == b.Dir {
		t.Error("both architectures are kept in one place")
	}

	t.Setenv("PATH", filepath.Dir(goPath(t)))
	c = changed(t, "binaries:", "cgo: ["+other+"]\nbinaries:")
	_, err = c.build(t.Context(), cache, other, nil)
	var missing *MissingError
	if !errors.As(err, &missing) || !strings.Contains(missing.What, "C compiler for "+other) || !strings.Contains(missing.Hint, "gcc-") {
		t.Errorf("C without a compiler for it: %v, want what is missing and the package", err)
	}
}

// goPath is the go command, which is found without PATH afterwards.
func goPath(t *testing.T) string {
	t.Helper()
	g, err := findGo()
	if err == nil {
		g, err = filepath.EvalSymlinks(g)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(GoEnv, g)
	return g
}

// A library that is linked in and is not there is named with its package.
func TestNoLibrary(t *testing.T) {
	c := changed(t, "binaries:", "cgo: ["+runtime.GOARCH+"]\npkgconfig: no-such-library\npackages: [libnosuch-dev]\nbinaries:")
	_, err := c.build(t.Context(), t.TempDir(), "", nil)
	var missing *MissingError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "no-such-library") || !strings.Contains(err.Error(), "libnosuch-dev") {
		t.Errorf("%v, want the library and the package", err)
	}
}

// What Debian has is not built, and is said before anything else is.
func TestDebianIsNotBuilt(t *testing.T) {
	t.Setenv(CacheDirEnv, t.TempDir())
	_, err := BuildAll(t.Context(), []string{"pause", "haproxy"}, func(e Event) { t.Errorf("%s was begun", e.Component) })
	if err == nil || !strings.Contains(err.Error(), "apt-get install haproxy") {
		t.Errorf("build haproxy: %v, want how to install it", err)
	}
}

// Of what dpkg says, a changed configuration file and missing documentation are
// nothing to complain of; lines as in dpkg(1), --verify-format rpm.
func TestAltered(t *testing.T) {
	said := "??5?????? c /etc/haproxy/haproxy.cfg\n??5??????   /usr/sbin/haproxy\nmissing     /usr/share/doc/haproxy/changelog.gz\nmissing     /usr/lib/haproxy/x.so\n"
	if diff := cmp.Diff([]string{"/usr/sbin/haproxy", "/usr/lib/haproxy/x.so"}, altered(said)); diff != "" {
		t.Error(diff)
	}
}

func TestNoToolchain(t *testing.T) {
	t.Setenv(GoEnv, filepath.Join(t.TempDir(), "go"))
	c := changed(t)
	_, err := c.build(t.Context(), t.TempDir(), "", nil)
	var missing *MissingError
	if !errors.As(err, &missing) || !strings.Contains(missing.What, "Go toolchain") {
		t.Errorf("without Go: %v, want that a toolchain is missing", err)
	}
}

func TestBrokenDescriptions(t *testing.T) {
	for what, c := range map[string]struct{ old, new, want string }{
		"unknown key":      {"about:", "abuot:", "abuot"},
		"no binaries":      {"  - {name: say, package: ., links: [tell]}\n", "", "no binaries"},
		"no package":       {"package: ., ", "", "a name, and a package or a file"},
		"a file outside":   {"package: ., ", "file: ../x, ", "a name, and a package or a file"},
		"file of nothing":  {"version: example.com/pinned\nldflags: [\"-X main.version=${version}\"]\nbinaries:\n", "version: v1\nbinaries:\n  - {name: x, file: x}\n", "v1 is of none"},
		"version required": {"version: example.com/pinned", "version: example.com/other", `does not require "example.com/other"`},
		"unknown set":      {"about:", "set: cor\nabout:", `set "cor"`},
		"two sources":      {"about:", "debian: [x]\nprograms: [x]\nabout:", "what Debian has"},
	} {
		_, err := parse([]byte(strings.Replace(small, c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "components/small") {
			t.Errorf("%s: %v, want it to say %s", what, err, c.want)
		}
	}
	if _, err := parse(txtar.Format(&txtar.Archive{Files: []txtar.File{{Name: "../x/go.mod"}}})); err == nil {
		t.Error("a file outside of the components' directories was taken")
	}
}

// Every component of the catalogue says what it is, and no two programs
// of one are called the same.
func TestCatalogue(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.About == "" || (c.Version == "") != (len(c.Debian) > 0) || (c.Module == "") != (c.file("go.sum") == nil) {
			t.Errorf("%s: about %q, version %q of module %q, go.sum of %d bytes", c.Name, c.About, c.Version, c.Module, len(c.file("go.sum")))
		}
		seen := map[string]bool{}
		for _, n := range c.Names() {
			if seen[n] || n == manifestName || strings.Contains(n, "/") {
				t.Errorf("%s: two programs %s, or a name that none can have", c.Name, n)
			}
			seen[n] = true
		}
	}
	if _, err := Find("flanel"); err == nil || !strings.Contains(err.Error(), "flannel") {
		t.Errorf("an unknown name: %v, want those that there are", err)
	}
}
