package program

import (
	"testing"

	"slipway/internal/testnet"
	"slipway/lab/kube"
	"slipway/topology"
)

// Room waits until the machine has room for the programs of a cluster file's lab,
// and keeps it until the test ends. A test calls it before what takes the lab down.
func Room(t testing.TB, file []byte) {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", file)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	testnet.Room(t, kube.InotifyNeed(c))
}
