package curve

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/internal/run"
	"slipway/topology"
)

// backend is a way of getting kube-proxy's rules into a kernel.
type backend struct {
	program string
	args    []string // for a kernel that holds nothing
	more    []string // for a change
	plan    func(*cluster) (change, error)
}

// change are the texts that a backend's program reads: the rules of all
// services, and what makes one endpoint more of them.
type change struct {
	all, more string
	rules     int
}

var backends = map[string]backend{
	// Both read the same text. kube-proxy gives --noflush, which leaves alone what
	// the text does not name, always; here it is only for changes, since on an empty
	// kernel nothing is to be left alone, and iptables-nft 1.8.9 with it takes 17
	// times as long for 4,000 services, and more than minutes for 10,000.
	// iptables-nft-save, which takes minutes as well, is never run.
	"iptables-legacy": {"iptables-legacy-restore", nil, []string{"--noflush"}, planIPTables},
	"iptables-nft":    {"iptables-nft-restore", nil, []string{"--noflush"}, planIPTables},
	"nftables":        {"nft", []string{"-f", "-"}, []string{"-f", "-"}, planNFTables},
}

// backendNames are the backends, in the order of their age.
func backendNames() []string {
	return []string{"iptables-legacy", "iptables-nft", "nftables"}
}

// missing says what the machine lacks for the backend.
func (b backend) missing() string {
	if _, err := exec.LookPath(b.program); err != nil {
		return err.Error()
	}
	return ""
}

// load feeds a text to the backend's program, in the bed's node.
func (b backend) load(ctx context.Context, bed *proxyBed, args []string, text string) error {
	_, err := run.Cmd{
		NS: bed.node, Name: b.program, Args: args, Stdin: strings.NewReader(text),
		Env: append(os.Environ(), "XTABLES_LOCKFILE="+bed.lock),
	}.Output(ctx)
	return err
}

// rulesOf plans the rules before and after, in a mode of kube-proxy.
func (c *cluster) rulesOf(mode topology.ProxyMode) (before, after datapath.RuleSet, err error) {
	o := kubeproxy.DefaultOptions(c.before)
	o.Mode = mode
	if before, err = kubeproxy.Plan(c.before, c.node, o); err != nil {
		return before, after, fmt.Errorf("plan rules: %w", err)
	}
	if after, err = kubeproxy.Plan(c.after, c.node, o); err != nil {
		return before, after, fmt.Errorf("plan rules with one endpoint more: %w", err)
	}
	return before, after, nil
}

// planIPTables renders the rules before and after as iptables-restore reads them.
func planIPTables(c *cluster) (change, error) {
	before, after, err := c.rulesOf(topology.ProxyIPTables)
	if err != nil {
		return change{}, err
	}
	n := 0
	for _, t := range before.Tables {
		n += len(t.Rules) + len(t.Jumps)
	}
	return change{all: restoreText(before, nil), more: restoreText(after, chainsOf(before)), rules: n}, nil
}

// chainsOf are a rule set's rules by table and chain.
func chainsOf(s datapath.RuleSet) map[string][]string {
	out := map[string][]string{}
	for _, t := range s.Tables {
		for _, c := range t.Chains {
			out[t.Name+" "+c] = []string{}
		}
		for _, r := range t.Rules {
			chain := t.Name + " " + strings.Fields(r)[1] // -A CHAIN …
			out[chain] = append(out[chain], r)
		}
	}
	return out
}

// restoreText is what makes the owned chains of a rule set that are not there
// yet, or differ from those that are (nil: none are, the jumps are missing, too).
func restoreText(s datapath.RuleSet, there map[string][]string) string {
	var b strings.Builder
	chains := chainsOf(s)
	for _, t := range s.Tables {
		var declare, fill []string
		for _, c := range t.Chains {
			want := chains[t.Name+" "+c]
			if have, ok := there[t.Name+" "+c]; ok && slices.Equal(have, want) {
				continue
			}
			declare, fill = append(declare, ":"+c+" - [0:0]"), append(fill, want...)
		}
		if there == nil {
			for _, j := range t.Jumps {
				rule := j.Rule
				if j.Prepend {
					rule = "-I" + strings.TrimPrefix(rule, "-A")
				}
				fill = append(fill, rule)
			}
		}
		if len(declare)+len(fill) > 0 {
			fmt.Fprintf(&b, "*%s\n%s\nCOMMIT\n", t.Name, strings.Join(append(declare, fill...), "\n"))
		}
	}
	return b.String()
}
