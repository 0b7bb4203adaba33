package bpf

import (
	"errors"
	"testing"

	"slipway/internal/testnet"
	"slipway/topology"
)

func TestChooseIPIP(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN, testnet.BPF)
	kernel := ProbeKernelIPIP()
	got, reason, err := ChooseIPIP(topology.IPIPAuto)
	if err != nil {
		t.Fatal(err)
	}
	want := topology.IPIPeBPF
	if kernel == nil {
		want = topology.IPIPKernel
	}
	if got != want || reason == "" {
		t.Errorf("auto: chose %q because %q, want %q with a reason", got, reason, want)
	}
	for _, explicit := range []topology.IPIPImplementation{topology.IPIPeBPF, topology.IPIPUserspace} {
		got, _, err := ChooseIPIP(explicit)
		var taken *UnsupportedError
		if kernel == nil && errors.As(err, &taken) {
			continue // its tunl0 is in the way
		}
		if err != nil || got != explicit {
			t.Errorf("asked for %q: got %q, %v", explicit, got, err)
		}
	}
	_, _, err = ChooseIPIP(topology.IPIPKernel)
	var unsupported *UnsupportedError
	if kernel != nil && !errors.As(err, &unsupported) {
		t.Errorf("kernel where there is none: %v, want an UnsupportedError", err)
	}
	if _, _, err := ChooseIPIP("hardware"); err == nil {
		t.Error("an unknown implementation was accepted")
	}
}
