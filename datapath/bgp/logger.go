package bgp

import (
	"fmt"
	"io"
	"os"

	"github.com/osrg/gobgp/v3/pkg/log"
)

// logger passes on what gobgp calls errors, to the process's standard error,
// which the daemon logs. Its warnings are the ordinary life of sessions, which
// Events tell better.
type logger struct{ w io.Writer }

func (l logger) print(level, msg string, f log.Fields) {
	_, _ = fmt.Fprintf(l.w, "%s: %s %v\n", level, msg, f)
}

func (l logger) Panic(msg string, f log.Fields) { l.print("panic", msg, f); panic(msg) }
func (l logger) Fatal(msg string, f log.Fields) { l.print("fatal", msg, f); os.Exit(1) }
func (l logger) Error(msg string, f log.Fields) { l.print("error", msg, f) }
func (logger) Warn(string, log.Fields)          {}
func (logger) Info(string, log.Fields)          {}
func (logger) Debug(string, log.Fields)         {}
func (logger) SetLevel(log.LogLevel)            {}
func (logger) GetLevel() log.LogLevel           { return log.ErrorLevel }
