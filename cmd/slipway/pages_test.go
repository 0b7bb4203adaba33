package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// said is a command of this program that a page tells people to type.
type said struct {
	page string
	line int
	args []string
}

func (s said) String() string {
	return fmt.Sprintf("%s:%d: slipway %s", s.page, s.line, strings.Join(s.args, " "))
}

// Every command that README and docs show exists, with the flags and the number of
// arguments that they show. What the lab's pages show is run as well (e2e/pages).
func TestPagesShowCommandsThatExist(t *testing.T) {
	commands := saidIn(t, "../../README.md")
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 15 {
		t.Fatal(err, pages)
	}
	for _, p := range pages {
		if p != referenceFile { // made of the commands, and examples of cobra's style
			commands = append(commands, saidIn(t, p)...)
		}
	}
	if len(commands) < 80 {
		t.Fatalf("only %d commands were found", len(commands))
	}
	for _, s := range commands {
		if err := understood(s.args); err != nil {
			t.Errorf("%v: %v", s, err)
		}
	}
}

// understood parses a command as the program does, and runs nothing.
func understood(args []string) error {
	root := (&app{}).root()
	c, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if c == root && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return noCommand(root, rest)
	}
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	return arguments(c)
}

// arguments checks their number, if they are named and not left to the reader.
func arguments(c *cobra.Command) error {
	args := c.Flags().Args()
	if c.Args == nil || slices.ContainsFunc(args, func(s string) bool { return strings.Contains(s, "…") || strings.HasPrefix(s, "[") }) {
		return nil
	}
	if help, _ := c.Flags().GetBool("help"); help {
		return nil
	}
	return c.Args(c, args)
}

var (
	fence   = regexp.MustCompile("^\\s*```(\\w*)")
	typed   = regexp.MustCompile(`^\s*(?:[$#] )?(?:[A-Z_]+=\S+ )*(?:sudo )?(?:bin/)?slipway( .*|$)`)
	trailer = regexp.MustCompile(`\s+(#|\||>|2>|&&|;|\\$|<).*$`)
	word    = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)
)

// saidIn are the commands in a page's blocks that are not of another language.
func saidIn(t *testing.T, page string) []said {
	t.Helper()
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var (
		out      []said
		language string
		inside   bool
	)
	for i, line := range strings.Split(strings.ReplaceAll(string(raw), "\\\n", " "), "\n") {
		if m := fence.FindStringSubmatch(line); m != nil {
			inside, language = !inside, m[1]
			continue
		}
		m := typed.FindStringSubmatch(line)
		if !inside || m == nil || !slices.Contains([]string{"", "sh", "console", "bash"}, language) && inside {
			continue
		}
		s := said{page: strings.TrimPrefix(page, "../../"), line: i + 1}
		for _, w := range word.FindAllString(trailer.ReplaceAllString(m[1], ""), -1) {
			s.args = append(s.args, strings.Trim(w, `'"`))
		}
		out = append(out, s)
	}
	return out
}
