package main

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write docs/reference.md")

const referenceFile = "../../docs/reference.md"

// docs/reference.md is what the commands themselves say.
func TestReference(t *testing.T) {
	var page bytes.Buffer
	page.WriteString("# Reference of commands\n\nMade of what `slipway COMMAND --help` says; `go test ./cmd/slipway -run TestReference -update` writes it\nagain. [cli.md](cli.md) has the overview, exit codes and environment variables.\n")
	root := (&app{}).root()
	root.DisableAutoGenTag = true
	root.InitDefaultHelpFlag()
	if err := describe(&page, root); err != nil {
		t.Fatal(err)
	}
	got := devel.ReplaceAllString(page.String(), "")
	if *update {
		if err := os.WriteFile(referenceFile, []byte(got), 0o644); err != nil { //nolint:gosec // a page for everybody
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("docs/reference.md is not what the commands say (-page +commands); -update writes it:\n%s", d)
	}
}

var (
	devel   = regexp.MustCompile(`(?m)^.*\bversion for slipway\n`)
	seeAlso = regexp.MustCompile(`(?s)### SEE ALSO\n.*`)
	inherit = regexp.MustCompile("(?s)### Options inherited from parent commands\n\n```\n.*?```\n")
)

// describe writes a command and those below it, but not what is for the program
// itself.
func describe(page *bytes.Buffer, c *cobra.Command) error {
	if c.Hidden || c.Name() == "help" {
		return nil
	}
	var one bytes.Buffer
	if err := doc.GenMarkdown(c, &one); err != nil {
		return err
	}
	text := seeAlso.ReplaceAllString(inherit.ReplaceAllString(one.String(), ""), "")
	page.WriteString("\n" + strings.TrimRight(text, "\n") + "\n")
	for _, sub := range c.Commands() {
		if err := describe(page, sub); err != nil {
			return err
		}
	}
	return nil
}
