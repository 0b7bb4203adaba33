package linux_test

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/topology"
)

func sortBy[T any](list []T, key func(T) string) {
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
}

func keep[T any](list []T, ok func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), func(x T) bool { return !ok(x) })
}

func itoa(n int) string { return strconv.Itoa(n) }

var lockFile = filepath.Join(os.TempDir(), "slipwaytest-xtables-"+strconv.Itoa(os.Getpid())+".lock")

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.Remove(lockFile)
	os.Exit(code)
}

// shOut runs a command, without quoting, inside a namespace.
func shOut(ns *netns.NS, line string) (string, error) {
	words := strings.Fields(line)
	out, err := run.Cmd{NS: ns, Name: words[0], Args: words[1:], Env: append(os.Environ(), "XTABLES_LOCKFILE="+lockFile)}.Output(context.Background())
	return string(out), err
}

func sh(t *testing.T, ns *netns.NS, line string) {
	t.Helper()
	if out, err := shOut(ns, line); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func ip(t *testing.T, ns *netns.NS, args ...string) {
	t.Helper()
	sh(t, ns, "ip "+strings.Join(args, " "))
}

func ipOut(t *testing.T, ns *netns.NS, args ...string) string {
	t.Helper()
	out, err := shOut(ns, "ip "+strings.Join(args, " "))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func restore(t *testing.T, ns *netns.NS, rules string) {
	t.Helper()
	_, err := run.Cmd{NS: ns, Name: "iptables-legacy-restore", Args: []string{"--noflush"}, Stdin: strings.NewReader(rules), Env: append(os.Environ(), "XTABLES_LOCKFILE="+lockFile)}.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

// plug joins a pod to a node's cni0 by hand.
func plug(t *testing.T, node, pod *netns.NS, address, gateway string, mtu topology.MTU) {
	t.Helper()
	testnet.Wire(t, node, "vethaaaaaaaa", "", pod, "eth0", address)
	sh(t, node, "ip link set vethaaaaaaaa mtu "+itoa(int(mtu))+" master cni0")
	sh(t, pod, "ip link set eth0 mtu "+itoa(int(mtu)))
	sh(t, pod, "ip route add default via "+gateway)
}
