package scenario

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/lab"
	"slipway/topology"
)

// tunnels are the devices that lead to other nodes' pods.
var tunnels = map[topology.ModeName]string{
	topology.FlannelUDP: "flannel0", topology.FlannelVXLAN: "flannel.1", topology.FlannelHostGW: "eth0",
	topology.CalicoBGP: "eth0", topology.CalicoIPIP: "tunl0",
}

// variables are what scripts call the lab's addresses and devices, as NAME=VALUE:
//
//	$lab $mode $tunnel $iptables
//	$ip_POD $veth_POD                         of pods in namespace default
//	$ip_NODE $pods_NODE $first_NODE $vtep_NODE $port_NODE
//	$svc_SERVICE                              of services in namespace default
//
// with _ for every character that no variable's name has.
func variables(st *lab.State) []string {
	s := st.Snapshot
	out := []string{"lab=" + st.Lab, "mode=" + string(s.Network.Mode), "tunnel=" + tunnels[s.Network.Mode], "iptables=" + iptables()}
	add := func(kind, name string, value any) {
		out = append(out, kind+"_"+notInNames.ReplaceAllString(name, "_")+"="+fmt.Sprint(value))
	}
	host := flannel.HostIf
	if s.Network.Mode.IsCalico() {
		host = calico.HostIf
	}
	for _, p := range s.Pods {
		if p.Namespace == "default" {
			add("ip", p.Name, p.Address)
			add("veth", p.Name, host(p.Key()))
		}
	}
	for _, n := range s.Nodes {
		pods := n.PodCIDR
		if len(n.Blocks) > 0 {
			pods = n.Blocks[0]
		}
		add("ip", n.Name, n.Address)
		add("port", n.Name, n.Name+"-eth0")
		if pods.IsValid() {
			add("pods", n.Name, pods)
			add("first", n.Name, pods.Addr())
		}
		if n.VTEPMAC != "" {
			add("vtep", n.Name, n.VTEPMAC)
		}
	}
	for _, v := range s.Services {
		if v.Namespace == "default" && v.ClusterIP.IsValid() {
			add("svc", v.Name, v.ClusterIP)
		}
	}
	return out
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_]`)

// iptables is the variant in which the lab's own rules are.
func iptables() string {
	for _, name := range []string{"iptables-legacy", "iptables"} {
		if _, err := exec.LookPath(name); err == nil {
			return name
		}
	}
	return "iptables"
}

// show writes a line of a script as a student types it in a shell: variables are
// filled in, and commands of the engine are this program's.
func show(line string, vars []string, labName string) string {
	if vars != nil {
		line = os.Expand(line, func(k string) string {
			i := slices.IndexFunc(vars, func(v string) bool { return strings.HasPrefix(v, k+"=") })
			if i < 0 {
				return "$" + k // the shell's own
			}
			return vars[i][len(k)+1:]
		})
	}
	verb, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	on := ""
	if labName != "" {
		on = " -L " + labName
	}
	switch verb {
	case "node", "pod":
		name, cmd, _ := strings.Cut(rest, " ")
		return "slipway exec" + on + " " + name + " -- " + strings.TrimSpace(cmd)
	case "slipway":
		sub, cmd, _ := strings.Cut(rest, " ")
		return strings.TrimSpace("slipway " + sub + on + " " + strings.TrimSpace(cmd))
	case "trace":
		return "slipway trace" + on + " " + wants.ReplaceAllString(rest, "")
	case "probe":
		return "slipway trace" + on + " " + counts.ReplaceAllString(rest, "")
	case "signal":
		return "kill -" + rest
	}
	return line
}

// wants are the flags of `trace` that only a script has; counts those of `probe`.
var (
	wants  = regexp.MustCompile(` --(verdict|place|table|reason)[ =]\S+`)
	counts = regexp.MustCompile(` --count[ =]\S+`)
)
