package cluster

import (
	"fmt"
	"strings"

	"slipway/installer"
)

// What programs of a cluster leave on a machine when they are stopped goes with
// the items of this file. They change nothing when they are applied: each notes
// at most how the machine was, and has a way back.

// settings of the kernel that kube-proxy, kubelet, plugins and agents write.
var writtenSettings = []string{
	"net/ipv4/ip_forward", "net/ipv4/conf/all/*", "net/ipv4/conf/default/*", "net/ipv4/conf/[be]*/rp_filter", "net/ipv4/conf/[be]*/forwarding",
	"net/ipv6/conf/all/forwarding", "net/ipv6/conf/default/forwarding", "net/ipv6/conf/all/accept_ra", "net/ipv6/conf/default/accept_ra",
	"net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_tcp_be_liberal", "net/netfilter/nf_conntrack_*_timeout*", "net/bridge/bridge-nf-call-*",
	"net/netfilter/nf_log/2", // of traces
	"net/ipv4/vs/*", "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	"../../sys/module/nf_conntrack/parameters/hashsize",
}

// settingsCanGo notes the kernel's settings before any of ours writes one.
func settingsCanGo() installer.Action {
	const saved = `"$RECORDS/saved/settings"`
	return installer.Action{
		Name:  "settings of the kernel are noted",
		Check: "test -e " + saved,
		Do: fmt.Sprintf(`mkdir -p "$RECORDS/saved"
cd /proc/sys
for f in %s; do
	if [ -f "$f" ] && v=$(cat "$f" 2>/dev/null); then printf '%%s %%s\n' "$f" "$v"; fi
done >%[2]s.part
mv %[2]s.part %[2]s`, strings.Join(writtenSettings, " "), saved),
		// Some write others: those come first in a second round.
		Back: fmt.Sprintf(`if [ -e %[1]s ]; then
	cd /proc/sys
	for round in 1 2; do while read -r f v; do
		if [ -e "$f" ] && [ "$(cat "$f")" != "$v" ]; then printf '%%s\n' "$v" 2>/dev/null >"$f" || true; fi
	done <%[1]s; done
	rm -f %[1]s
fi`, saved),
	}
}

// chainPrefixes are those of chains that kube-proxy, kubelet, flannel, calico and
// plugins make.
const chainPrefixes = "KUBE-|FLANNEL-|CNI-|cali-|cali:"

// rulesCanGo takes rules of iptables and tables of nftables that the cluster's
// programs have left. Those of others stay as they are.
func rulesCanGo() installer.Action {
	return installer.Action{
		Name:  "the cluster's rules can go",
		Check: `test -e "$RECORDS/saved/rules"`,
		Do:    `mkdir -p "$RECORDS/saved"; : >"$RECORDS/saved/rules"`,
		Back: fmt.Sprintf(`rm -f "$RECORDS/saved/rules"
for ip in iptables ip6tables iptables-legacy ip6tables-legacy iptables-nft ip6tables-nft; do # whoever wrote them, in whichever backend
	command -v $ip-save >/dev/null 2>&1 || continue
	for t in raw mangle nat filter; do
		$ip-save 2>/dev/null | awk -v table="*$t" '
			/^\*/ { in_table = ($0 == table) }
			!in_table { next }
			/^:/ { name = substr($1, 2); if (name ~ /^(%[1]s)/) { ours[name] = 1; chains[++c] = name } }
			/^-A / {
				to = ""
				for (i = 3; i < NF; i++) if ($i == "-j" || $i == "-g") to = $(i + 1)
				if (!($2 in ours) && (to in ours || $0 ~ /--comment "?(%[1]s)/)) { sub(/^-A/, "-D"); rules[++r] = $0 }
			}
			END {
				if (c + r == 0) exit
				print table
				for (i = 1; i <= r; i++) print rules[i]
				for (i = 1; i <= c; i++) print "-F " chains[i]
				for (i = 1; i <= c; i++) print "-X " chains[i]
				print "COMMIT"
			}' | { script=$(cat); [ -z "$script" ] || printf '%%s\n' "$script" | $ip-restore --noflush --wait 10 2>/dev/null || true; }
	done
done
if command -v nft >/dev/null 2>&1; then
	nft list tables 2>/dev/null | grep -E ' (kube-proxy|flannel-ipv4|flannel-ipv6)$' | while read -r _ family name; do nft delete table "$family" "$name" || true; done
fi`, chainPrefixes),
	}
}

// runtimeCanGo takes what the container runtime and kubelet leave when they are
// stopped: shims, which outlive it on purpose and are known by their arguments,
// what runs in pods' control groups, mounts, and the groups below root.
func runtimeCanGo(root string) installer.Action {
	return installer.Action{
		Name:  "what outlives the runtime can go",
		Check: "test -x " + binDir + "/containerd",
		Do:    ":",
		Back: fmt.Sprintf(`groups() { find /sys/fs/cgroup -maxdepth 12 -type d \( -path "/sys/fs/cgroup%[1]s/kubepods*" -o -path "/sys/fs/cgroup/*%[1]s/kubepods*" \) -depth 2>/dev/null || true; }
for p in $(pgrep -f ' -namespace k8s.io .*-address /run/containerd/' || true); do kill -9 "$p" 2>/dev/null || true; done
for i in 1 2 3 4 5 6 7 8 9 10; do
	procs=$(groups | while read -r g; do cat "$g/cgroup.procs" 2>/dev/null || true; done | sort -u)
	[ -n "$procs" ] || break
	for p in $procs; do kill -9 "$p" 2>/dev/null || true; done
	sleep 0.2
done
sed -n -e 's#^[^ ]* \(/run/containerd/[^ ]*\) .*#\1#p' -e 's#^[^ ]* \(/run/netns/cni-[^ ]*\) .*#\1#p' /proc/mounts | sort -r | while read -r m; do umount "$m" || umount -l "$m" || true; done
rm -f /run/netns/cni-*
systemctl stop kubepods.slice 2>/dev/null || true
groups | while read -r g; do rmdir "$g" 2>/dev/null || true; done`, root),
	}
}

// emptied is a directory that programs fill and that may be there before, as a
// file system of its own: what comes into one that was empty goes again.
func emptied(dir string) installer.Action {
	note := `"$RECORDS/saved/empty-` + strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-") + `"`
	return installer.Action{
		Name:  "what comes into " + dir + " can go",
		Check: fmt.Sprintf("test -e %s", note),
		Do:    fmt.Sprintf(`mkdir -p "$RECORDS/saved"; if [ -d %[1]s ] && [ -z "$(ls -A %[1]s)" ]; then echo empty; else echo used; fi >%[2]s`, dir, note),
		Back:  fmt.Sprintf(`if [ "$(cat %[2]s 2>/dev/null)" = empty ]; then find %[1]s -xdev -mindepth 1 -delete; fi; rm -f %[2]s`, dir, note),
	}
}

// volatile are files and directories that programs make for as long as the machine
// is on. Those that were there before stay.
const volatile = "/run/containerd /run/nri /run/flannel /run/slipway-agent /run/calico /run/netns /run/xtables.lock"

// runCanGo takes those of them that were not there.
func runCanGo() installer.Action {
	const note = `"$RECORDS/saved/run"`
	return installer.Action{
		Name:  "what comes into /run can go",
		Check: "test -e " + note,
		Do:    fmt.Sprintf(`mkdir -p "$RECORDS/saved"; for f in %s; do [ -e "$f" ] || echo "$f"; done >%s`, volatile, note),
		// A network namespace that somebody else has made since is somebody else's.
		Back: fmt.Sprintf(`if [ -e %[1]s ]; then while read -r f; do case $f in /run/netns) rmdir "$f" 2>/dev/null || true ;; *) rm -rf "$f" ;; esac; done <%[1]s; rm -f %[1]s; fi`, note),
	}
}
