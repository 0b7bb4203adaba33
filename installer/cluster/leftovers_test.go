package cluster

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/testnet"
)

// inNamespace runs a script with a network of its own, as items' ways back run.
func inNamespace(t *testing.T, script string) string {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables)
	dir := t.TempDir()
	cmd := exec.Command("unshare", "--net", "--mount", "sh", "-s")
	cmd.Env = append(cmd.Environ(), "XTABLES_LOCKFILE="+filepath.Join(dir, "lock"), "RECORDS="+dir, "LC_ALL=C")
	cmd.Stdin = strings.NewReader("set -eu\nmount -t proc proc /proc\n" + script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// The rules of the cluster's programs go, and whatever else is there stays.
func TestRulesGo(t *testing.T) {
	const theirs = `for ip in iptables ip6tables; do
	$ip -N THEIRS
	$ip -A INPUT -m comment --comment "not KUBE-like" -j THEIRS
	$ip -A THEIRS -p tcp --dport 22 -j ACCEPT
	$ip -t nat -A POSTROUTING -p tcp --dport 80 -j MASQUERADE
done
iptables -t mangle -N MINE
`
	const ours = `for ip in iptables ip6tables; do
	for c in KUBE-SERVICES KUBE-FORWARD FLANNEL-FWD cali-FORWARD; do $ip -N $c; done
	$ip -I FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
	$ip -I FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
	$ip -A FORWARD -j FLANNEL-FWD
	$ip -A KUBE-FORWARD -j KUBE-SERVICES
	$ip -I THEIRS -j KUBE-SERVICES
	$ip -t nat -N KUBE-POSTROUTING
	$ip -t nat -N CNI-HOSTPORT-DNAT
	$ip -t nat -I POSTROUTING -j KUBE-POSTROUTING
	$ip -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
	$ip -t mangle -N KUBE-KUBELET-CANARY
done
`
	const show = `for ip in iptables ip6tables; do for t in filter nat mangle; do $ip-save -t $t | sed -e '/^#/d' -e 's/ \[.*//'; done; done
`
	want := inNamespace(t, theirs+show)
	got := inNamespace(t, theirs+ours+rulesCanGo().Back+"\n"+show)
	if got != want {
		t.Errorf("left:\n%s\nwant:\n%s", got, want)
	}
	if again := inNamespace(t, theirs+rulesCanGo().Back+"\n"+rulesCanGo().Back+"\n"+show); again != want {
		t.Errorf("where nothing is ours, it makes\n%s\nof\n%s", again, want)
	}
}

// Settings that programs write get back what they were, others stay as they are.
func TestSettingsGoBack(t *testing.T) {
	const show = "cat /proc/sys/net/ipv4/conf/all/route_localnet /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/rp_filter /proc/sys/net/ipv4/ip_default_ttl\n"
	got := inNamespace(t, `cd /proc/sys/net/ipv4
echo 2 >conf/all/rp_filter
( `+settingsCanGo().Do+`
)
( `+settingsCanGo().Check+` )
echo 1 >conf/all/route_localnet; echo 1 >ip_forward; echo 0 >conf/all/rp_filter; echo 63 >ip_default_ttl
`+settingsCanGo().Back+"\n"+show)
	if got != "0\n0\n2\n63\n" {
		t.Errorf("%q", got)
	}
}

// What was in /run before stays.
func TestRunIsEmptiedOfOurs(t *testing.T) {
	got := inNamespace(t, `mount -t tmpfs tmpfs /run
mkdir -p /run/flannel /run/netns; touch /run/flannel/theirs /run/other
( `+runCanGo().Do+`
)
mkdir -p /run/containerd/x /run/nri; touch /run/xtables.lock /run/containerd/x/y
`+runCanGo().Back+`
cd /run; find . -mindepth 1 | sort
`)
	if got != "./flannel\n./flannel/theirs\n./netns\n./other\n" {
		t.Errorf("%q", got)
	}
}
