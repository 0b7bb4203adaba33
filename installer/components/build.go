package components

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/digest"
)

// BuildError says which command failed while a component was built, and what
// it said last.
type BuildError struct {
	Component string
	Argv      []string
	Said      []string // its last lines
	Err       error
}

// Error names the component and the command, and ends with its last lines.
func (e *BuildError) Error() string {
	s := fmt.Sprintf("build %s: %s: %v", e.Component, strings.Join(e.Argv, " "), e.Err)
	if len(e.Said) > 0 {
		s += "\n  " + strings.Join(e.Said, "\n  ")
	}
	return s
}

// Unwrap returns the cause.
func (e *BuildError) Unwrap() error { return e.Err }

// saidLines is how many of a failed command's last lines an error has.
const saidLines = 12

// BuildAll builds several components for this machine, two at once where there
// is the memory for it. progress is called from one goroutine at a time, and may
// be nil.
func BuildAll(ctx context.Context, names []string, progress func(Event)) ([]*Built, error) {
	return BuildFor(ctx, "", names, progress)
}

// BuildFor is BuildAll for another architecture (GOARCH).
func BuildFor(ctx context.Context, arch string, names []string, progress func(Event)) ([]*Built, error) {
	for _, n := range names { // before the first is begun
		if c, err := Find(n); err != nil {
			return nil, err
		} else if err := c.buildable(); err != nil {
			return nil, err
		}
	}
	out := make([]*Built, len(names))
	told := serial(progress)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce())
	for i, n := range names {
		g.Go(func() (err error) {
			out[i], err = build(ctx, n, arch, told)
			return err
		})
	}
	return out, g.Wait()
}

// Building at once: one component links, which is the work of one processor,
// while another compiles on all.
const (
	parallel = 2
	// linkMemory is what has to be available for two at once, in KiB.
	linkMemory = 5 << 20
)

// atOnce is how many components are built at once: fewer on a machine that has
// little memory left.
func atOnce() int {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 1
	}
	_, rest, _ := strings.Cut(string(raw), "MemAvailable:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil || kib < linkMemory {
		return 1
	}
	return parallel
}

// Build returns a component from the cache, and builds it first if it is not
// there or not what was built. What is in the cache is whole: a build that is cut
// off leaves at most files named .part, and the next one goes on with what the Go
// build cache has. Another process that builds the same is waited for.
func Build(ctx context.Context, name string, progress func(Event)) (*Built, error) {
	return build(ctx, name, "", progress)
}

func build(ctx context.Context, name, arch string, progress func(Event)) (*Built, error) {
	c, err := Find(name)
	if err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	return c.build(ctx, cache, arch, progress)
}

// buildable says why a component is not built from source.
func (c *Component) buildable() error {
	if len(c.Debian) == 0 {
		return nil
	}
	return fmt.Errorf("build %s: it is not built from source: apt-get install %s", c.Name, strings.Join(c.Debian, " "))
}

func (c *Component) build(ctx context.Context, cache, arch string, progress func(Event)) (*Built, error) {
	if err := c.buildable(); err != nil {
		return nil, err
	}
	tell := newTracker(c.Name, progress)
	t, err := findToolchain(ctx, *c, arch)
	if err != nil {
		if b, lerr := c.loaded(cache, arch); lerr == nil && b.verify() == nil {
			tell.stage(Cached)
			return b, nil
		}
		return nil, err
	}
	if b, err := c.lookup(cache, t); err == nil && b.verify() == nil {
		tell.stage(Cached)
		return b, nil
	}
	if b, err := c.loaded(cache, t.arch); err == nil && b.verify() == nil {
		tell.stage(Cached)
		return b, nil
	}
	home := filepath.Join(cache, "components", c.Name)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, fmt.Errorf("build %s: %w", c.Name, err)
	}
	release, err := lockDir(ctx, home, func() { tell.stage(Waiting) })
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", c.Name, err)
	}
	defer release()
	if b, err := c.lookup(cache, t); err == nil && b.verify() == nil {
		tell.stage(Cached)
		return b, nil
	}
	j := &job{Component: *c, toolchain: t, source: filepath.Join(home, ".source"), dir: c.dir(cache, t), tell: tell}
	return j.run(ctx)
}

// job is one build on its way.
type job struct {
	Component
	toolchain
	source, dir string
	todo        []string // packages to compile
	tell        *tracker
}

func (j *job) run(ctx context.Context) (*Built, error) {
	start := time.Now()
	// Neither what an older build needed must be in the module, nor what was found
	// wanting in the cache.
	for _, dir := range []string{j.source, j.dir} {
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("build %s: %w", j.Name, err)
		}
	}
	if err := errors.Join(j.unpack(j.source), os.MkdirAll(j.dir, 0o755)); err != nil {
		return nil, fmt.Errorf("build %s: %w", j.Name, err)
	}
	if err := j.plan(ctx); err != nil {
		return nil, err
	}
	b := &Built{
		Component: j.Name, Version: j.Version, Key: j.key(j.toolchain), Recipe: j.Recipe(), Dir: j.dir,
		Go: j.goVersion, Arch: j.arch, BuiltAt: start.UTC(), Sums: map[string]string{},
	}
	for _, bin := range j.Binaries {
		if err := j.binary(ctx, b, bin); err != nil {
			return nil, err
		}
	}
	b.Took = time.Since(start).Nanoseconds()
	raw, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", j.Name, err)
	}
	if err := writeWhole(filepath.Join(j.dir, manifestName), raw); err != nil {
		return nil, fmt.Errorf("build %s: %w", j.Name, err)
	}
	j.tell.stage(Done)
	return b, nil
}

// binary builds one program under a name that nobody looks for, and renames it.
func (j *job) binary(ctx context.Context, b *Built, bin Binary) error {
	path := b.Path(bin.Name)
	if bin.File != "" {
		return j.file(ctx, b, bin)
	}
	verb := []string{"build", "-v"}
	if bin.Test && len(j.todo) > 0 {
		// `go test -v` says nothing of what it compiles: that is done before.
		if err := j.goCmd(ctx, io.Discard, slices.Concat(verb, j.flags(), j.todo)...); err != nil {
			return err
		}
	}
	if bin.Test {
		verb = []string{"test", "-c", "-vet=off"}
	}
	args := append(append(verb, j.flags()...), "-o", path+".part", bin.Package)
	if err := j.goCmd(ctx, io.Discard, args...); err != nil {
		return err
	}
	err := settle(path+".part", path)
	for _, l := range bin.Links {
		if err == nil {
			err = relink(bin.Name, b.Path(l))
		}
	}
	if err == nil {
		b.Sums[bin.Name], _, err = digest.File(path)
	}
	if err != nil {
		return fmt.Errorf("build %s: keep %s: %w", j.Name, bin.Name, err)
	}
	return nil
}

// file takes a file out of the component's module. It is executable as all in
// the cache is, though nothing runs it.
func (j *job) file(ctx context.Context, b *Built, bin Binary) error {
	var dir bytes.Buffer
	if err := j.goCmd(ctx, &dir, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", j.Module); err != nil {
		return err
	}
	path := b.Path(bin.Name)
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(dir.String()), bin.File))
	if err == nil {
		err = os.WriteFile(path+".part", data, 0o755)
	}
	if err == nil {
		err = settle(path+".part", path)
	}
	if err == nil {
		b.Sums[bin.Name], _, err = digest.File(path)
	}
	if err != nil {
		return fmt.Errorf("build %s: keep %s: %w", j.Name, bin.Name, err)
	}
	return nil
}

func relink(target, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}

// flags are those of `go build` and `go list` alike, which the key depends on.
func (c *Component) flags() []string {
	ld := strings.Join(append([]string{"-s", "-w"}, c.LDFlags...), " ")
	out := []string{"-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=" + strings.ReplaceAll(ld, "${version}", c.Version)}
	if len(c.Tags) > 0 {
		out = append(out, "-tags="+strings.Join(c.Tags, ","))
	}
	return out
}

// plan fetches what is not there yet, and finds out what has to be compiled.
func (j *job) plan(ctx context.Context) error {
	j.tell.stage(Fetching)
	args := append([]string{"list"}, j.flags()...)
	args = append(args, "-deps", "-json=ImportPath,Dir,Stale,StaleReason,GoFiles,CgoFiles")
	for _, b := range j.Binaries {
		if b.Test && !slices.Contains(args, "-test") {
			args = append(args, "-test")
		}
	}
	for _, b := range j.Binaries {
		if b.File == "" {
			args = append(args, b.Package)
		}
	}
	var out bytes.Buffer
	if err := j.goCmd(ctx, &out, args...); err != nil {
		return err
	}
	todo := map[string]int64{}
	for dec := json.NewDecoder(&out); ; {
		var p struct {
			ImportPath, Dir, StaleReason string
			Stale                        bool
			GoFiles, CgoFiles            []string
		}
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("build %s: read the list of packages: %w", j.Name, err)
		}
		// A package's tests, and packages compiled for them alone, are no packages to
		// ask for: "x.test", "x [x.test]".
		if strings.HasSuffix(p.ImportPath, ".test") || strings.Contains(p.ImportPath, " ") {
			continue
		}
		if p.Stale && !strings.Contains(p.StaleReason, "available in build cache") {
			todo[p.ImportPath] = bytesOf(p.Dir, append(p.GoFiles, p.CgoFiles...))
			j.todo = append(j.todo, p.ImportPath)
		}
	}
	j.tell.compile(todo)
	return nil
}

func bytesOf(dir string, files []string) (n int64) {
	for _, f := range files {
		if info, err := os.Stat(filepath.Join(dir, f)); err == nil {
			n += info.Size()
		}
	}
	return n
}

// goCmd runs the go command in the module; what it says goes to the tracker.
func (j *job) goCmd(ctx context.Context, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, j.goCommand, args...)
	cmd.Dir, cmd.Stdout = j.source, out
	cgo := "0"
	if j.needsC(j.arch) {
		cgo = "1"
	}
	cmd.Env = append(j.environ(), "CGO_ENABLED="+cgo, "GOWORK=off", "GO111MODULE=on", "GOFLAGS=", "PWD="+j.source)
	// A group of its own, so that its compilers end with it; and it ends with this
	// process, also when that is killed: the next build may write to the same file.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return &BuildError{Component: j.Name, Argv: cmd.Args, Err: err}
	}
	last := j.listen(said)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return &BuildError{Component: j.Name, Argv: cmd.Args, Said: last, Err: err}
	}
	return nil
}

// listen reads what the go command says of its progress, and keeps the last
// lines of the rest.
func (j *job) listen(r io.Reader) (last []string) {
	for in := bufio.NewScanner(r); in.Scan(); {
		if j.tell.line(in.Text()) {
			continue
		}
		if last = append(last, in.Text()); len(last) > saidLines {
			last = last[1:]
		}
	}
	return last
}
