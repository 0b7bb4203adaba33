package machines

import (
	"strconv"
	"testing"

	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/procs"
)

func itoa(n int) string { return strconv.Itoa(n) }

// cut kills everything of a lab.
func cut(t *testing.T, st *lab.State) {
	t.Helper()
	found, err := procs.With(lab.Mark(st))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, p := range found {
		pids = append(pids, p.PID)
	}
	kill(t, pids...)
}

func eventually(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	testnet.Eventually(t, patience, what, ok)
}
