package scenario

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"rsc.io/script"
)

// lint checks a script without running anything: each line's quoting, command and
// flags.
//
//nolint:contextcheck // nothing is run that could be ended
func (r *reader) lint(s Script) {
	e := &script.Engine{Cmds: map[string]script.Cmd{}, Conds: map[string]script.Cond{}}
	var x *run // the commands' methods are only asked for their flags
	for name, c := range x.commands() {
		e.Cmds[name] = script.Command(c.usage, func(_ *script.State, args ...string) (script.WaitFunc, error) {
			return func(*script.State) (string, string, error) { return "", "", c.check(args) }, nil
		})
	}
	st, err := script.NewState(context.Background(), os.TempDir(), []string{})
	if err != nil {
		r.complain(s.Line, 1, "script", "%v", err)
		return
	}
	at := s.Line
	for l := range strings.Lines(s.Text) {
		// Whether a command that must fail would fail is not known here.
		bare := strings.TrimLeft(strings.TrimSpace(l), "!? ")
		err := e.Execute(st, r.file, bufio.NewReader(strings.NewReader(bare)), io.Discard)
		if err != nil {
			var c *script.CommandError
			why := strings.TrimPrefix(err.Error(), r.file+":1: ")
			if errors.As(err, &c) {
				why = c.Op + ": " + c.Err.Error()
			}
			col := 1 + utf8.RuneCountInString(l) - utf8.RuneCountInString(strings.TrimLeft(l, " \t!?"))
			r.complain(at, col, "script", "%s", why)
		}
		at++
	}
}
