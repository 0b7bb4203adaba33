package tracing

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"slipway/topology"
)

// scoreFileEnv names a file that the score of the fault corpus is written to,
// as Markdown.
const scoreFileEnv = "SLIPWAY_TRACE_SCORE"

// board keeps the score of the fault corpus.
type board struct {
	mu    sync.Mutex
	names []string // of faults, in order, each once
	cells map[string]map[topology.ModeName]cell
}

// cell says who named a fault in a mode.
type cell struct {
	predicted, observed string // what is wrong with it; empty: named
	// silent: the observation has the place, but the kernel tells less than why.
	silent bool
	// owned: the prediction says that it cannot evaluate a rule, and which.
	owned bool
	agree bool // prediction and observation
}

// good reports whether the fault counts as named.
func (c cell) good() bool { return (c.predicted == "" || c.owned) && c.observed == "" && c.agree }

// String is one mark for the prediction and one for the observation.
func (c cell) String() string {
	mark := func(wrong string, half bool) string {
		switch {
		case half:
			return "◐"
		case wrong == "":
			return "✓"
		}
		return "✗"
	}
	s := mark(c.predicted, c.owned) + " " + mark(c.observed, c.silent)
	if !c.agree {
		s += " ≠"
	}
	return s
}

func newBoard() *board {
	b := &board{cells: map[string]map[topology.ModeName]cell{}}
	for _, f := range faults() {
		if b.cells[f.name] == nil {
			b.names = append(b.names, f.name)
			b.cells[f.name] = map[topology.ModeName]cell{}
		}
	}
	return b
}

func (b *board) score(name string, mode topology.ModeName, c cell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cells[name][mode] = c
}

// String is the score as a Markdown table: in each cell whether the prediction
// and whether the observation named the fault.
func (b *board) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s strings.Builder
	var tried, predicted, observed, silent, agree int
	s.WriteString("| fault |")
	for _, m := range topology.ModeNames() {
		fmt.Fprintf(&s, " %s |", m)
	}
	s.WriteString("\n|---|" + strings.Repeat("---|", len(topology.ModeNames())) + "\n")
	for _, name := range b.names {
		fmt.Fprintf(&s, "| %s |", name)
		for _, m := range topology.ModeNames() {
			c, ok := b.cells[name][m]
			if !ok {
				s.WriteString(" · |")
				continue
			}
			tried++
			predicted += count(c.predicted == "")
			observed += count(c.observed == "" && !c.silent)
			silent += count(c.silent)
			agree += count(c.agree)
			fmt.Fprintf(&s, " %v |", c)
		}
		s.WriteByte('\n')
	}
	fmt.Fprintf(&s, "\n%d faults, %d injections: %d named by the prediction, %d by the observation, %d placed by it where the kernel does not say why; the two agree in %d.\n",
		len(b.names), tried, predicted, observed, silent, agree)
	return s.String()
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// write keeps the table where scoreFileEnv says.
func (b *board) write(t *testing.T) {
	path := os.Getenv(scoreFileEnv)
	if path == "" {
		return
	}
	if err := os.WriteFile(path, []byte(scoreHead+b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

const scoreHead = `# Faults that a trace names

Each fault is injected into a running lab of every mode that it applies to, and
` + "`slipway trace`" + ` sends one real packet. The first mark is the prediction's, which has to
give the place, the table, the device and the reason; the second the observation's, which
has to give the place and the reason.

| mark | |
|---|---|
| ✓ | named |
| ◐ | second mark: the right place, but the kernel gives no event that tells the reason (a process drops it, or one drop reason stands for several); first mark: the rule that cannot be evaluated |
| ✗ | not named |
| ≠ | prediction and observation do not agree |
| · | the fault cannot be made in this mode |

Afterwards the fault is healed, and the trace has to be green again.
` + "`SLIPWAY_TRACE_SCORE=docs/trace-faults.md go test -run TestFaults ./e2e/tracing`" + ` writes this page.

`
