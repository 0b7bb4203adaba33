package pages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"slipway/e2e/program"
	"slipway/internal/testnet"
	"slipway/lab"
)

const statePrefix = "/run/slipway-pg-"

var binary string

func TestMain(m *testing.M) { os.Exit(program.Main(m, statePrefix, &binary)) }

// block is a fenced block with commands of ours. The comment before it says what
// becomes of it: `<!-- run -->`, perhaps `on FILE`, the lab that must be up, and
// `; fails: BEGINNING` if the commands that begin so must fail; or
// `<!-- run by DIR -->`, the tests that run these commands, as they need more than
// this machine alone.
type block struct {
	page  string
	line  int
	how   string
	lines []string
}

var (
	fence       = regexp.MustCompile("^```(\\w*)$")
	marker      = regexp.MustCompile(`^<!-- (run.*) -->$`)
	ours        = regexp.MustCompile(`^\s*(?:[$#] )?(?:sudo )?(?:bin/)?slipway `)
	prompt      = regexp.MustCompile(`^\$ `)
	programName = regexp.MustCompile(`\b(?:sudo )?bin/slipway `)
)

// blocksOf are a page's blocks that have commands of ours, in order.
func blocksOf(page, text string) []block {
	var (
		out  []block
		b    *block
		how  string
		mine bool
	)
	for i, line := range strings.Split(text, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case m != nil && b == nil:
			b, mine = &block{page: page, line: i + 1, how: how}, slices.Contains([]string{"", "sh", "console"}, m[1])
			how = ""
		case m != nil:
			if mine && slices.ContainsFunc(b.lines, ours.MatchString) {
				out = append(out, *b)
			}
			b = nil
		case b != nil:
			b.lines = append(b.lines, line)
		case marker.MatchString(line):
			how = marker.FindStringSubmatch(line)[1]
		case strings.TrimSpace(line) != "":
			how = ""
		}
	}
	return out
}

// fails reports whether a command is one that must fail.
func (b *block) fails(command string) bool {
	return slices.ContainsFunc(strings.Split(b.how, "; "), func(s string) bool {
		beginning, is := strings.CutPrefix(s, "fails: ")
		return is && strings.HasPrefix(command, beginning)
	})
}

// commands are a block's lines as a shell takes them; what is shown of their
// output, in a block with prompts, is left out.
func (b *block) commands() []string {
	prompts := slices.ContainsFunc(b.lines, prompt.MatchString)
	var out []string
	for _, l := range b.lines {
		if prompts && !prompt.MatchString(l) || strings.TrimSpace(l) == "" {
			continue
		}
		out = append(out, programName.ReplaceAllString(prompt.ReplaceAllString(l, ""), "slipway "))
	}
	return out
}

func pages(t *testing.T) map[string][]block {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < 15 {
		t.Fatal(err, files)
	}
	out := map[string][]block{}
	for _, f := range append(files, "../../README.md") {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(f, "../../")
		if name != "docs/reference.md" { // made of the commands' own examples
			out[name] = blocksOf(name, string(raw))
		}
	}
	return out
}

// Each block says who runs it, and those tests exist.
func TestEveryBlockIsRun(t *testing.T) {
	for _, blocks := range pages(t) {
		for _, b := range blocks {
			by, elsewhere := strings.CutPrefix(b.how, "run by ")
			switch {
			case b.how == "":
				t.Errorf("%s:%d: nobody runs what this block shows: put <!-- run --> or <!-- run by DIR --> before it", b.page, b.line)
			case elsewhere:
				if tests, _ := filepath.Glob(filepath.Join("../..", by, "*_test.go")); len(tests) == 0 {
					t.Errorf("%s:%d: there are no tests in %s", b.page, b.line, by)
				}
			}
		}
	}
}

// What a page shows works, from its first command to its last, in one shell that
// stops at the first that fails.
func TestPages(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.BPF)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for page, blocks := range pages(t) {
		blocks = slices.DeleteFunc(blocks, func(b block) bool { return b.how == "" || strings.HasPrefix(b.how, "run by ") })
		if len(blocks) == 0 {
			continue
		}
		n++
		t.Run(strings.ReplaceAll(page, "/", "_"), func(t *testing.T) { play(t, root, fmt.Sprintf("%s%d-%d", statePrefix, os.Getpid(), n), blocks) })
	}
	if n < 5 {
		t.Errorf("only %d pages were run", n)
	}
}

// play runs blocks in a directory of their own that looks like the repository.
func play(t *testing.T, root, state string, blocks []block) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(root, "examples"), filepath.Join(dir, "examples")); err != nil {
		t.Fatal(err)
	}
	run := func(script string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), lab.StateDirEnv+"="+state)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() {
		cmd := exec.Command(binary, "down", "--all")
		cmd.Env = append(os.Environ(), lab.StateDirEnv+"="+state)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		_ = os.RemoveAll(state)
	})
	up := ""
	for _, b := range blocks {
		file, on := strings.CutPrefix(b.how, "run on ")
		if file, _, _ = strings.Cut(file, ";"); on && file != up {
			if out, err := run("slipway down --all; slipway up -q -f " + file); err != nil {
				t.Fatalf("%s: %v\n%s", file, err, out)
			}
			up = file
		}
		for _, c := range b.commands() {
			out, err := run(c)
			if must := b.fails(c); (err != nil) != must {
				t.Fatalf("%s:%d: %s: %v, must fail: %v\n%s", b.page, b.line, c, err, must, out)
			}
		}
	}
}
