package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/rogpeppe/go-internal/testscript"

	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// TestScripts runs the scenarios of testdata/script: the contract of the
// command line, as a user types it.
func TestScripts(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.Curl)
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			state, name := unique()
			e.Vars = append(e.Vars, "PATH="+binDir+":"+os.Getenv("PATH"), "BIN="+binDir, "EXAMPLES="+examples, "SLIPWAY_STATE_DIR="+state, "LAB="+name)
			e.Defer(func() {
				if err := takeDown(state); err != nil {
					t.Errorf("%s: %v", e.WorkDir, err)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": scriptCode, "valid": scriptValid, "gone": scriptGone, "nobody": scriptNobody,
		},
	})
}

// scriptCode is "code N COMMAND...": the command must end with that exit code.
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// scriptNobody is "nobody N COMMAND...": code as a user without privileges.
func scriptNobody(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: nobody N COMMAND...")
	}
	scriptCode(ts, neg, append([]string{args[0], "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, args[1:]...))
}

// scriptValid is "valid json|yaml|xml FILE": the whole file must be one document.
func scriptValid(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: valid json|yaml|xml FILE")
	}
	text := ts.ReadFile(args[1])
	var v any
	switch args[0] {
	case "json":
		ts.Check(json.Unmarshal([]byte(text), &v))
	case "yaml":
		ts.Check(yaml.Unmarshal([]byte(text), &v))
	case "xml":
		for d := xml.NewDecoder(strings.NewReader(text)); ; {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			ts.Check(err)
		}
	default:
		ts.Fatalf("no format %q", args[0])
	}
	if strings.TrimSpace(text) == "" {
		ts.Fatalf("%s is empty", args[1])
	}
}

// scriptGone is "gone LAB": nothing of the lab is on the machine.
func scriptGone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone LAB")
	}
	names, err := netns.Names("slipway-" + args[0] + "-")
	ts.Check(err)
	if len(names) > 0 {
		ts.Fatalf("left: %v", names)
	}
	if _, err := os.Stat(ts.Getenv("SLIPWAY_STATE_DIR")); err == nil {
		ts.Fatalf("the state directory is left")
	}
}
