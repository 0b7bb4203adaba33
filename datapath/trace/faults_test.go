package trace_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"slipway/datapath"
	"slipway/datapath/trace"
	"slipway/topology"
)

// faultCase breaks a healthy network in one way and says what the prediction must
// name. What is empty in want is not compared.
type faultCase struct {
	name  string
	modes []topology.ModeName // none: all of them
	harm  func(n *planned)
	// from and packet; the client's ping to web-0, on the other node, if empty.
	from   string
	packet func(n *planned) datapath.Packet
	want   trace.Cause
	// verdict is Dropped unless it is set.
	verdict trace.Verdict
	rule    string // that the cause's rule must contain
	hint    string // that its hint must contain
}

var (
	flannels = modes[:3]
	calicos  = modes[3:]
)

func only(m ...topology.ModeName) []topology.ModeName { return m }

func toPod(name string) func(*planned) datapath.Packet {
	return func(n *planned) datapath.Packet { return tcp(n.podAddress(name), 80) }
}

func toService(*planned) datapath.Packet { return tcp(serviceIP, servicePort) }

var faultCases = []faultCase{
	{
		name: "ip_forward off",
		harm: func(n *planned) { n.forwarding("node02", 0) },
		want: trace.Cause{Place: "node02", Table: "sysctl", Reason: trace.ReasonForwardingOff}, rule: "net.ipv4.ip_forward = 0",
	}, {
		name: "route missing",
		harm: func(n *planned) { n.dropRoutes("node01", "node02") }, verdict: trace.Rejected,
		want: trace.Cause{Place: "node01", Table: "main", Reason: trace.ReasonNoRoute},
		// In udp mode one route leads to all nodes.
		modes: only(topology.FlannelVXLAN, topology.FlannelHostGW, topology.CalicoBGP, topology.CalicoIPIP),
	}, {
		name:  "route back missing",
		harm:  func(n *planned) { n.dropRoutes("node02", "node01") },
		want:  trace.Cause{Place: "node02", Table: "main", Reason: trace.ReasonNoRoute, Reply: true},
		modes: only(topology.FlannelVXLAN, topology.FlannelHostGW, topology.CalicoBGP, topology.CalicoIPIP),
	}, {
		name: "blackhole of the block", modes: calicos,
		packet: func(n *planned) datapath.Packet { return ping(n.podAddress("web-0").Next().Next().Next()) },
		harm:   func(*planned) {},
		want:   trace.Cause{Place: "node02", Table: "main", Reason: trace.ReasonBlackhole}, rule: "blackhole 10.244.102.0/26",
	}, {
		name: "unreachable route", verdict: trace.Rejected,
		harm: func(n *planned) {
			n.route(n.states["node01"], datapath.FIBRoute{Dst: netip.PrefixFrom(n.podAddress("web-0"), 32), Type: "unreachable"})
		},
		want: trace.Cause{Place: "node01", Table: "main", Reason: trace.ReasonUnreachable},
	}, {
		name: "rp_filter strict, asymmetric", modes: only(topology.FlannelHostGW, topology.CalicoBGP),
		harm: func(n *planned) {
			st := n.states["node02"]
			st.All.RPFilter = 1
			n.device(st, datapath.Device{Name: "other0", Kind: "dummy", MTU: 1500, MAC: "02:aa:00:00:00:01"})
			n.route(st, datapath.FIBRoute{Dst: netip.PrefixFrom(n.podAddress("client"), 32), Dev: "other0"})
		},
		want: trace.Cause{Place: "node02", Device: "eth0", Table: "sysctl", Reason: trace.ReasonRPFilter}, rule: "rp_filter = 1",
	}, {
		name: "TTL too small", verdict: trace.Rejected,
		packet: func(n *planned) datapath.Packet { p := ping(n.podAddress("web-0")); p.TTL = 1; return p },
		harm:   func(*planned) {},
		want:   trace.Cause{Place: "node01", Reason: trace.ReasonTTL},
	}, {
		name: "MTU of the other pod's link and DF", verdict: trace.Rejected,
		packet: func(n *planned) datapath.Packet {
			p := ping(n.podAddress("web-0"))
			p.Length, p.DF = 1300, true
			return p
		},
		harm: func(n *planned) {
			for _, dev := range []string{"cni0", n.hostIf("web-0")} {
				if d := n.states["node02"].Device(dev); d != nil {
					d.MTU = 1200
				}
			}
		},
		want: trace.Cause{Place: "node02", Table: "link", Reason: trace.ReasonMTU}, rule: "mtu 1200",
	}, {
		name: "MTU black hole: the switch's port is too small, and tells nobody",
		packet: func(n *planned) datapath.Packet {
			p := ping(n.podAddress("web-0"))
			p.Length, p.DF = 1300, true
			return p
		},
		harm: func(n *planned) { n.states["fabric"].Device("node02-eth0").MTU = 1200 },
		want: trace.Cause{Place: "fabric", Device: "node02-eth0", Reason: trace.ReasonMTU}, rule: "mtu 1200",
	}, {
		name: "ICMP errors are filtered, so that an MTU is a black hole", modes: only(topology.FlannelHostGW),
		packet: func(n *planned) datapath.Packet {
			p := ping(n.podAddress("web-0"))
			p.Length, p.DF = 1300, true
			return p
		},
		harm: func(n *planned) {
			n.states["node02"].Device("cni0").MTU = 1200
			n.insert("node02", "filter", "-A OUTPUT -p icmp -m icmp --icmp-type 3 -j DROP")
		},
		want: trace.Cause{Place: "node02", Reason: trace.ReasonMTU},
	}, {
		name: "FDB entry missing", modes: only(topology.FlannelVXLAN),
		harm: func(n *planned) { n.states["node01"].FDB = nil },
		want: trace.Cause{Place: "node01", Device: "flannel.1", Table: "fdb", Reason: trace.ReasonNoFDB},
	}, {
		name: "FDB entry names the wrong node", modes: only(topology.FlannelVXLAN),
		harm: func(n *planned) {
			for i := range n.states["node01"].FDB {
				n.states["node01"].FDB[i].Dst = n.snap.Nodes[0].Address
			}
		},
		want: trace.Cause{Place: "master01", Device: "flannel.1", Table: "neighbor", Reason: trace.ReasonOtherHost},
	}, {
		name: "FDB entry names the node itself: round and round", modes: only(topology.FlannelVXLAN), verdict: trace.Rejected,
		harm: func(n *planned) {
			for i := range n.states["node01"].FDB {
				n.states["node01"].FDB[i].Dst = n.snap.Nodes[1].Address
			}
		},
		want: trace.Cause{Place: "node01", Device: "flannel.1", Reason: trace.ReasonTTL},
	}, {
		name: "wrong VTEP MAC", modes: only(topology.FlannelVXLAN),
		harm: func(n *planned) { n.vtepMAC("node01", "node02", "0e:00:00:00:00:99") },
		want: trace.Cause{Place: "node02", Device: "flannel.1", Table: "neighbor", Reason: trace.ReasonOtherHost}, rule: "0e:00:00:00:00:99",
	}, {
		name: "VTEP's neighbour entry missing", modes: only(topology.FlannelVXLAN),
		harm: func(n *planned) { n.states["node01"].Neighbors = nil },
		want: trace.Cause{Place: "node01", Device: "flannel.1", Table: "neighbor", Reason: trace.ReasonNoNeighbor},
	}, {
		name: "VXLAN port mismatch", modes: only(topology.FlannelVXLAN),
		harm: func(n *planned) { n.vxlan("node02").Port = 4789 },
		want: trace.Cause{Place: "node02", Table: "tunnel", Reason: trace.ReasonNoVTEP}, rule: "dstport 4789",
	}, {
		name: "VNI mismatch", modes: only(topology.FlannelVXLAN),
		harm: func(n *planned) { n.vxlan("node02").VNI = 2 },
		want: trace.Cause{Place: "node02", Table: "tunnel", Reason: trace.ReasonNoVTEP},
	}, {
		name: "port of the fabric down",
		harm: func(n *planned) {
			n.states["fabric"].Device("node02-eth0").Port.State = "disabled"
			n.knows("node01", "eth0", n.snap.Nodes[2].Address, n.snap.Nodes[2].Interface.MAC)
		},
		want: trace.Cause{Place: "fabric", Device: "node02-eth0", Table: "link", Reason: trace.ReasonPortDown}, rule: "node02-eth0 master br state disabled",
	}, {
		name: "port of the fabric down, and nothing cached", hint: "node02 would answer, but node02-eth0 of fabric is disabled",
		harm: func(n *planned) { n.states["fabric"].Device("node02-eth0").Port.State = "disabled" },
		want: trace.Cause{Place: "node01", Device: "eth0", Table: "neighbor", Reason: trace.ReasonNoNeighbor},
	}, {
		name: "pod's bridge port down", modes: flannels,
		harm: func(n *planned) {
			n.states["node02"].Device(n.hostIf("web-0")).Port.State = "disabled"
			n.knows("node02", "cni0", n.podAddress("web-0"), n.snap.Pods[1].MAC)
		},
		want: trace.Cause{Place: "node02", Table: "link", Reason: trace.ReasonPortDown},
	}, {
		name: "hairpin off", modes: flannels, from: "default/web-l", packet: toService,
		harm: func(n *planned) { n.states["node01"].Device(n.hostIf("web-l")).Port.Hairpin = false },
		want: trace.Cause{Place: "node01", Table: "link", Reason: trace.ReasonHairpinOff},
	}, {
		name: "no lease", modes: only(topology.FlannelUDP), packet: toPod("web-0"), verdict: trace.Rejected,
		harm: func(n *planned) { n.states["node01"].UDPTunnel.Leases = nil },
		want: trace.Cause{Place: "node01", Device: "flannel0", Table: "tunnel", Reason: trace.ReasonNoLease},
	}, {
		name: "no lease, about which ICMP is told nothing", modes: only(topology.FlannelUDP),
		harm: func(n *planned) { n.states["node01"].UDPTunnel.Leases = nil },
		want: trace.Cause{Place: "node01", Device: "flannel0", Table: "tunnel", Reason: trace.ReasonNoLease},
	}, {
		name: "tunnel stopped here", modes: only(topology.FlannelUDP),
		harm: func(n *planned) { n.states["node01"].UDPTunnel.Running = false },
		want: trace.Cause{Place: "node01", Device: "flannel0", Table: "tunnel", Reason: trace.ReasonTunnelDown},
	}, {
		name: "tunnel stopped there", modes: only(topology.FlannelUDP),
		harm: func(n *planned) { n.states["node02"].UDPTunnel.Running = false },
		want: trace.Cause{Place: "node02", Table: "tunnel", Reason: trace.ReasonTunnelDown},
	}, {
		name: "tunl0 down", modes: only(topology.CalicoIPIP),
		harm: func(n *planned) { n.states["node01"].Device("tunl0").Up = false },
		want: trace.Cause{Place: "node01", Device: "tunl0", Table: "link", Reason: trace.ReasonDeviceDown},
	}, {
		name: "IPIP programs gone", modes: only(topology.CalicoIPIP),
		harm: func(n *planned) { n.states["node02"].IPIP.Attached = false },
		want: trace.Cause{Place: "node02", Table: "tunnel", Reason: trace.ReasonTunnelDown},
	}, {
		name: "proxy_arp off", modes: calicos,
		harm: func(n *planned) { n.states["node01"].Device(n.hostIf("client")).Conf.ProxyARP = 0 },
		want: trace.Cause{Place: "default/client", Device: "eth0", Table: "neighbor", Reason: trace.ReasonNoNeighbor},
	}, {
		name: "DROP in FORWARD",
		harm: func(n *planned) { n.insert("node01", "filter", "-A FORWARD -p icmp -j DROP") },
		want: trace.Cause{Place: "node01", Table: "filter", Reason: trace.ReasonRuleDrop}, rule: "-A FORWARD -p icmp -j DROP",
	}, {
		name:   "policy DROP in INPUT",
		packet: func(n *planned) datapath.Packet { return ping(n.snap.Nodes[2].Address) },
		harm: func(n *planned) {
			st := n.states["node02"]
			st.RuleSave["filter"] = strings.Replace(st.RuleSave["filter"], ":INPUT ACCEPT", ":INPUT DROP", 1)
		},
		want: trace.Cause{Place: "node02", Device: "eth0", Stage: trace.Input, Table: "filter", Reason: trace.ReasonRuleDrop}, rule: "policy DROP",
	}, {
		name: "service without endpoints", verdict: trace.Rejected,
		packet: func(*planned) datapath.Packet { return tcp(emptyIP, servicePort) },
		harm:   func(*planned) {},
		want:   trace.Cause{Place: "node01", Table: "filter", Reason: trace.ReasonRuleReject}, rule: "has no endpoints",
	}, {
		name: "conntrack full",
		harm: func(n *planned) {
			n.states["node01"].Conntrack = &datapath.ConntrackState{Count: 65536, Max: 65536}
		},
		want: trace.Cause{Place: "node01", Table: "conntrack", Reason: trace.ReasonConntrackFull},
	}, {
		name:   "no masquerade to the outside",
		packet: func(*planned) datapath.Packet { return ping(netip.MustParseAddr("192.168.233.200")) },
		harm:   func(n *planned) { n.dropMasquerade("node01") },
		want:   trace.Cause{Place: "external", Table: "main", Reason: trace.ReasonNoRoute, Reply: true},
	}, {
		name: "pod gone behind its endpoint", modes: flannels,
		harm: func(n *planned) { delete(n.wires, "node02 "+n.hostIf("web-0")); n.unplug("web-0") },
		want: trace.Cause{Place: "node02", Device: "cni0", Table: "neighbor", Reason: trace.ReasonNoNeighbor},
	}, {
		name: "nothing listens", verdict: trace.Rejected,
		packet: func(n *planned) datapath.Packet { return tcp(n.podAddress("web-0"), 81) },
		harm:   func(*planned) {},
		want:   trace.Cause{Place: "default/web-0", Table: "socket", Reason: trace.ReasonNoListener},
	}, {
		name: "duplicate address", modes: flannels, verdict: trace.Unknown,
		harm: func(n *planned) {
			n.address(n.states["default/web-1"], "eth0", netip.PrefixFrom(n.podAddress("web-0"), 24))
		},
		want: trace.Cause{Place: "node02", Device: "cni0", Table: "neighbor", Reason: trace.ReasonDuplicate},
	}, {
		name: "a rule that is not understood", verdict: trace.Unknown,
		harm: func(n *planned) { n.insert("node02", "filter", "-A FORWARD -m quantum --entangled -j DROP") },
		want: trace.Cause{Place: "node02", Table: "filter", Reason: trace.ReasonNotEvaluated}, rule: "quantum",
	},
}

func TestFaults(t *testing.T) {
	for _, c := range faultCases {
		in := c.modes
		if in == nil {
			in = modes
		}
		for _, mode := range in {
			t.Run(fmt.Sprintf("%s/%s", c.name, mode), func(t *testing.T) { c.run(t, mode) })
		}
	}
}

func (c *faultCase) run(t *testing.T, mode topology.ModeName) {
	n := plan(t, mode)
	from, p := "default/client", ping(n.podAddress("web-0"))
	if c.from != "" {
		from = c.from
	}
	if c.packet != nil {
		p = c.packet(n)
	}
	c.harm(n)
	want := c.verdict
	if c.verdict == 0 && c.want.Reason != trace.ReasonDuplicate && c.want.Reason != trace.ReasonNotEvaluated {
		want = trace.Dropped
	}
	for _, b := range n.predict(from, p).Branches {
		if b.Verdict == trace.Delivered {
			continue // of a service, only one way may be broken
		}
		if why := c.differs(b, want); why != "" {
			t.Errorf("%s:\n verdict %s, %s\n rule %s\n%s%s", why, b.Verdict, cause(b.Cause), b.Cause.Rule, way(b.Hops), way(b.Reply))
		}
		return
	}
	t.Error("everything is delivered")
}

func (c *faultCase) differs(b trace.Branch, want trace.Verdict) string {
	g, w := b.Cause, &c.want
	switch {
	case b.Verdict != want:
		return "another verdict than " + want.String()
	case g == nil:
		return "no cause"
	case g.Reason != w.Reason || g.Place != w.Place || g.Reply != w.Reply:
		return fmt.Sprintf("want %s at %s, of the reply %v", w.Reason, w.Place, w.Reply)
	case w.Device != "" && g.Device != w.Device, w.Table != "" && g.Table != w.Table, w.Stage != "" && g.Stage != w.Stage:
		return fmt.Sprintf("want device %q table %q stage %q", w.Device, w.Table, w.Stage)
	case !strings.Contains(g.Rule, c.rule):
		return "want rule " + c.rule
	case !strings.Contains(g.Hint, c.hint):
		return "want hint " + c.hint + ", not " + g.Hint
	case !strings.Contains(g.Text, g.Place) && !strings.Contains(g.Text, " "):
		return "the text says nothing"
	case len(b.Hops) == 0:
		return "no hops"
	}
	return ""
}
