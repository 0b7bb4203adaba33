package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

func tableChecks() []check {
	out := []check{
		{
			name: "iptables", group: Kernel, required: true, needsNS: true,
			means: "no node gets its rules, and so no lab comes up",
			hint:  "apt-get install iptables",
			probe: probeIPTables,
		},
		{
			name: "connection tracking", group: Kernel, required: true, needsNS: true,
			means: "no service address is translated",
			hint:  modprobe("nf_conntrack"),
			probe: probeConntrack,
		},
	}
	for _, r := range rules {
		out = append(out, r.check())
	}
	return append(out, check{
		name: "nftables", group: Kernel, needsNS: true,
		means: "nothing for labs, which use iptables-legacy where it is installed; `iptables` of Debian's and Ubuntu's default variant needs it",
		hint:  "apt-get install nftables",
		probe: func(ctx context.Context, s *scratch) (string, error) {
			if _, err := s.command(ctx, "", "nft", "add", "table", "ip", "probe"); err != nil {
				return "", err
			}
			return s.command(ctx, "", "nft", "--version")
		},
	})
}

// probeIPTables tries the programs that labs use, and says which variant they are.
func probeIPTables(ctx context.Context, s *scratch) (string, error) {
	version, err := s.command(ctx, "", s.save, "--version")
	if err != nil {
		return "", err
	}
	for _, table := range []string{"nat", "filter"} {
		if err := s.restore(ctx, "*"+table, ":PROBE - [0:0]"); err != nil {
			return version, fmt.Errorf("table %s: %w", table, err)
		}
	}
	if !strings.Contains(version, "legacy") {
		return version, less("the nf_tables variant reads rules back slowly (minutes at ten thousand services); iptables-legacy is not installed")
	}
	return version, nil
}

// probeConntrack reads the size of the table, which only a kernel with
// connection tracking has.
func probeConntrack(context.Context, *scratch) (string, error) {
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if errors.Is(err, os.ErrNotExist) {
		return "", errors.New("the kernel has no net.netfilter.nf_conntrack_max: connection tracking is not there or not loaded")
	}
	if err != nil {
		return "", err
	}
	return "up to " + strings.TrimSpace(string(b)) + " connections per namespace", nil
}

// tableRule is a match or target of the rules that nodes get, in the shape that
// they have there (packages datapath/kubeproxy, flannel and calico).
type tableRule struct {
	name, table, rule string
	required          bool
	means             string
}

const withoutServices = "kube-proxy's rules do not load, and so no lab comes up"

var rules = []tableRule{
	{"match comment", "nat", "-m comment --comment probe", true, withoutServices},
	{"match addrtype", "nat", "-m addrtype --dst-type LOCAL", true, withoutServices},
	{"match conntrack", "filter", "-m conntrack --ctstate RELATED,ESTABLISHED", true, withoutServices},
	{"match mark", "nat", "-m mark --mark 0x4000/0x4000", true, withoutServices},
	{"match statistic", "nat", "-m statistic --mode random --probability 0.5", false, "services with more than one endpoint do not load"},
	{"match recent", "nat", "-m recent --name PROBE --rcheck --seconds 10800 --reap", false, "services with sessionAffinity ClientIP do not load"},
	{"match sctp", "nat", "-p sctp -m sctp --dport 1", false, "services with SCTP ports do not load"},
	{"target MARK", "nat", "-j MARK --or-mark 0x4000", true, withoutServices},
	{"target DNAT", "nat", "-p tcp -m tcp -j DNAT --to-destination 192.0.2.1:1", true, withoutServices},
	{"target MASQUERADE", "nat", "-j MASQUERADE --random-fully", true, withoutServices},
	{"target REJECT", "filter", "-j REJECT", false, "services without endpoints do not load"},
}

func (r tableRule) check() check {
	return check{
		name: r.name, group: Kernel, required: r.required, needsNS: true, means: r.means,
		hint:  modprobe("xt_" + strings.Fields(r.name)[1]),
		probe: func(ctx context.Context, s *scratch) (string, error) { return "", r.load(ctx, s) },
	}
}

// load puts the rule into a chain of its own, to which the hook leads that it is
// for: the kernel takes NAT targets only where such a hook does. The load is
// committed, so that the kernel's answer is what counts.
func (r tableRule) load(ctx context.Context, s *scratch) error {
	hook := "PREROUTING"
	switch {
	case strings.HasSuffix(r.name, "MASQUERADE"):
		hook = "POSTROUTING"
	case r.table == "filter":
		hook = "FORWARD"
	}
	chain := "PROBE-" + hook
	return s.restore(ctx, "*"+r.table, ":"+chain+" - [0:0]", "-F "+hook, "-A "+hook+" -j "+chain, "-A "+chain+" "+r.rule)
}
