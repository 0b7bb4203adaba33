package bpf_test

import (
	"strings"
	"testing"

	"slipway/datapath/bpf"
	"slipway/internal/testnet"
)

func TestLossAllAndNothing(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.BPF, testnet.Ping)
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "172.30.9.1/24", b, "eth0", "172.30.9.2/24")
	n := &node{pod: a}
	to := mustAddr(t, "172.30.9.2")

	// The neighbour first: ARP would be lost as well.
	if out, err := n.ping(t, to, 1, 56, "do"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	check(t, bpf.AttachLoss(b, "eth0", 100))
	if out, err := n.ping(t, to, 1, 56, "do"); err == nil {
		t.Errorf("a packet came through where all are lost:\n%s", out)
	}
	if ok, err := bpf.LossAttached(b, "eth0", 100); err != nil || !ok {
		t.Errorf("attached at 100%%: %v, %v", ok, err)
	}
	check(t, bpf.AttachLoss(b, "eth0", 0))
	if out, err := n.ping(t, to, 20, 56, "do"); err != nil || !strings.Contains(out, " 0% packet loss") {
		t.Errorf("packets are lost without the program: %v\n%s", err, out)
	}
	if got := qdiscs(t, b, "eth0"); strings.Contains(got, "clsact") {
		t.Errorf("eth0 still has %s", got)
	}
	for _, nonsense := range []float64{-1, 101} {
		if err := bpf.AttachLoss(b, "eth0", nonsense); err == nil {
			t.Errorf("a loss of %v%% was accepted", nonsense)
		}
	}
}
