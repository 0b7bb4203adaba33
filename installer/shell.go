package installer

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// prelude are the shell functions that items use.
//
//go:embed prelude.sh
var prelude string

// quote makes one word of a shell's (POSIX.1-2017, XCU 2.2.2).
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Quote makes one word of a shell's, whatever is in it.
func Quote(s string) string { return quote(s) }

// words quotes several.
func words(argv []string) string {
	var out []string
	for _, a := range argv {
		out = append(out, quote(a))
	}
	return strings.Join(out, " ")
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// literal is data as a here-document for base64 -d.
func literal(data []byte) string {
	return "base64 -d <<'SLIPWAY_END'\n" + base64.StdEncoding.EncodeToString(data) + "\nSLIPWAY_END\n"
}

// tag is a short name for an item's records.
func tag(id string) string { return sum([]byte(id))[:16] }

// probeScript prints a line for each item: its index and its state.
func probeScript(items []Item) string {
	var b strings.Builder
	b.WriteString(prelude)
	for i, it := range items {
		// A probe that fails is a state like any other: not what is wanted.
		fmt.Fprintf(&b, "out=$( ( set -eu\n%s\n) 2>/dev/null) || out=unknown\nprintf '%%s\\t%%s\\n' %d \"${out##*\n}\"\n", it.Probe(), i)
	}
	return b.String()
}

// changeScript changes items in order and prints each one's index when it is
// done. What leads back is written down before anything is changed.
func changeScript(items []Item, before []string) string {
	var b strings.Builder
	b.WriteString(prelude)
	b.WriteString("set -eu\nopen_records\n")
	for i, it := range items {
		fmt.Fprintf(&b, "begin %d %s\n", i, tag(it.ID()))
		fmt.Fprintf(&b, "if new_record; then write_record <<'SLIPWAY_END'\n%sSLIPWAY_END\nfi\n", undoScript(it, before[i]))
		fmt.Fprintf(&b, "( set -eu\n%s\n)\ndone_with %d\n", it.Change(), i)
	}
	return b.String()
}

func undoScript(it Item, before string) string {
	return "# " + strings.ReplaceAll(it.ID(), "\n", " ") + "\n" + it.Undo(before) + "\n"
}
