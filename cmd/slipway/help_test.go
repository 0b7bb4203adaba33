package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every command that people use has a one-line description, help with examples
// that name the command, and described flags.
func TestEveryCommandHasHelp(t *testing.T) {
	root := (&app{}).root()
	root.InitDefaultHelpFlag()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.Hidden || c.HasSubCommands() && c != root {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Short) > 80 {
			t.Errorf("%s: short description %q", c.CommandPath(), c.Short)
		}
		if !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: no example that shows it: %q", c.CommandPath(), c.Example)
		}
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			if len([]rune(line)) > 112 {
				t.Errorf("%s: a line of help is too long for a terminal: %s", c.CommandPath(), line)
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s: not described", c.CommandPath(), f.Name)
			}
		})
	}
	walk(root)
}

// --help of each command goes to stdout, with its examples, and ends with 0.
func TestHelpIsAResult(t *testing.T) {
	for _, c := range (&app{}).root().Commands() {
		if c.Hidden || c.HasSubCommands() {
			continue
		}
		var out, errs bytes.Buffer
		code := run(context.Background(), []string{c.Name(), "--help"}, streams{in: strings.NewReader(""), out: &out, err: &errs})
		if code != exitOK || errs.Len() > 0 || !strings.Contains(out.String(), "Examples:") {
			t.Errorf("slipway %s --help: exit code %d, stderr %q, stdout:\n%s", c.Name(), code, errs.String(), out.String())
		}
	}
}
