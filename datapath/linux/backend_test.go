package linux_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/datapath/linux"
)

// Rules are in the backend that the machine's own iptables has, as kube-proxy's
// are, and in no other; they hold there, and go again.
func TestRulesInTheHostsBackend(t *testing.T) {
	ns, _ := machine(t)
	memo := filepath.Join(t.TempDir(), "memo")
	h, err := linux.Open(ns, linux.Options{LockFile: lockFile, HostTables: true, MemoFile: memo})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	own, other := "iptables-nft-save", "iptables-legacy-save"
	restore, err := exec.LookPath("iptables-restore")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := filepath.EvalSymlinks(restore); err != nil {
		t.Fatal(err)
	} else if strings.Contains(p, "legacy") {
		own, other = other, own
	}
	all := variants(t)
	for _, mode := range []string{"flannel-vxlan", "flannel-udp", "calico-ipip"} {
		apply(t, h, all[mode])
		if d := apply(t, h, all[mode]); len(d) != 0 {
			t.Errorf("%s: the second apply changed:\n%s", mode, commands(d))
		}
	}
	apply(t, h, all["flannel-vxlan"])
	if save, err := shOut(ns, own); err != nil || !strings.Contains(save, "FLANNEL-POSTRTG") {
		t.Errorf("%s: %v\n%s", own, err, save)
	}
	if save, err := shOut(ns, other); err != nil || strings.Contains(save, "FLANNEL") {
		t.Errorf("%s: %v\n%s", other, err, save)
	}
	// What is remembered of them says nothing any more when somebody changes them.
	apply(t, h, all["flannel-vxlan"])
	if _, err := os.Stat(memo); err != nil {
		t.Error(err)
	}
	sh(t, ns, "iptables -t nat -F FLANNEL-POSTRTG")
	if d := commands(apply(t, h, all["flannel-vxlan"])); !strings.Contains(d, "FLANNEL-POSTRTG") {
		t.Errorf("rules that somebody removed: %s", d)
	}
	apply(t, h, all["nothing"])
	if save, err := shOut(ns, own); err != nil || strings.Contains(save, "-A ") {
		t.Errorf("left: %v\n%s", err, save)
	}
}
