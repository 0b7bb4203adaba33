package tracing

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"slipway/datapath/trace"
	"slipway/internal/testnet"
	"slipway/topology"
)

// fullEnv, if set, makes TestAgreement trace between all pairs of places, not
// only between one of each kind.
const fullEnv = "SLIPWAY_TRACE_FULL"

// TestAgreement traces in healthy labs of all modes: prediction and observation
// agree in every step of every packet.
func TestAgreement(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.BPF)
	for _, mode := range topology.ModeNames() {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			l := up(t, mode)
			pairs := fewPairs()
			if os.Getenv(fullEnv) != "" {
				pairs = l.allPairs()
			}
			good := 0
			for _, p := range pairs {
				if l.agrees(t, p) {
					good++
				}
			}
			t.Logf("%s: %d of %d traces agree", mode, good, len(pairs))
		})
	}
}

// TestAgreementNFTables is TestAgreement where kube-proxy's rules are nftables',
// with a bridge between the pods and without; and of packets that its rules
// refuse: to a service without endpoints, to another port than a service's, and
// to an address that no service has.
func TestAgreementNFTables(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.NFT, testnet.BPF)
	for _, mode := range []topology.ModeName{topology.FlannelVXLAN, topology.CalicoBGP} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			l := upWith(t, mode, topology.ProxyNFTables)
			pairs := fewPairs()
			if os.Getenv(fullEnv) != "" {
				pairs = l.allPairs()
			}
			for _, from := range []string{"client", "node01"} {
				for _, to := range []string{"none:8080", l.clusterIP("one") + ":8081", "10.96.200.200:80"} {
					pairs = append(pairs, pair{from: from, to: to, proto: "tcp", lost: true})
				}
				pairs = append(pairs, pair{from: from, to: "one", proto: "icmp", lost: true})
			}
			for _, p := range pairs {
				l.agrees(t, p)
			}
		})
	}
}

// TestAgreementTracepoints is TestAgreement as on kernels without netfilter
// programs, where nothing shows what a hook did. (What the UDP tunnel's process
// sends several at a time is not seen there.)
func TestAgreementTracepoints(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.BPF)
	for _, mode := range []topology.ModeName{topology.FlannelVXLAN, topology.FlannelHostGW, topology.CalicoIPIP} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			l := up(t, mode)
			l.observer = "tracepoints"
			for _, p := range fewPairs() {
				l.agrees(t, p)
			}
		})
	}
}

// TestWithheldErrors traces packets that are refused while the kernel's limit of
// ICMP errors is used up: rejected all the same, with a note, and no disagreement.
func TestWithheldErrors(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.BPF)
	t.Parallel()
	l := up(t, topology.FlannelVXLAN)
	// Errors to an address not heard of before have a minute's worth of this in
	// hand (net/ipv4/inetpeer.c, inet_peer_xrlim_allow): less than one of them.
	l.runAll(t, []string{
		"node01: sysctl -qw net.ipv4.icmp_ratelimit=1000000000",
		"node01: ip route add unreachable {web}/32",
	})
	for _, p := range []struct {
		to, proto, table string
		observers        []string
	}{
		{"none:8080", "tcp", "filter", []string{"", "tracepoints"}},
		{"none:7", "udp", "filter", []string{""}},
		{"web:80", "tcp", "main", []string{"", "tracepoints"}},
	} {
		for _, l.observer = range p.observers {
			args := []string{"client", p.to, "--proto", p.proto}
			if l.observer != "" {
				args = append(args, "--observer", l.observer)
			}
			tr, said := l.trace(t, args...)
			told := slices.ContainsFunc(tr.Notes, func(n string) bool { return strings.HasPrefix(n, "the sender was not told") })
			if tr.Agree == nil || !*tr.Agree || tr.Verdict != trace.Rejected || *tr.ObservedVerdict != trace.Rejected || said.Code != 1 || !told || tr.PredictedCause.Table != p.table || len(tr.Reply.Observed) > 0 {
				t.Errorf("%s: exit code %d, verdict %v, causes %+v, %+v, notes %q, disagreements %+v", said.Argv, said.Code, tr.Verdict, tr.PredictedCause, tr.ObservedCause, tr.Notes, tr.Disagreements)
			}
		}
	}
}

// clusterIP is a service's.
func (l *testLab) clusterIP(service string) string {
	for _, s := range l.snap.Services {
		if s.Name == service {
			return s.ClusterIP.String()
		}
	}
	return ""
}

// pair is one packet to trace.
type pair struct {
	from, to, proto string
	// lost: it does not arrive even in a healthy lab.
	lost bool
	// size of the payload: more than fits a packet goes in fragments.
	size int
}

// fewPairs are a pod, a node and the client outside to one destination of each
// kind, on the same and on another node.
func fewPairs() []pair {
	var out []pair
	for _, from := range []string{"client", "node01", "external"} {
		for _, node := range []string{"node01", "node02"} {
			out = append(out, pair{from: from, to: fmt.Sprintf("%s:%d", node, tcpNodePort), proto: "tcp"})
		}
		out = append(out, pair{from: from, to: fmt.Sprintf("node02:%d", udpNodePort), proto: "udp"}, pair{from: from, to: "node02", proto: "icmp"})
		if from == "external" {
			continue // it has no route to pods and services
		}
		for _, pod := range []string{"near", "web"} {
			out = append(out, toPod(from, pod)...)
		}
		out = append(out, pair{from: from, to: "one:8080", proto: "tcp"}, pair{from: from, to: "one:7", proto: "udp"}, pair{from: from, to: "many:8080", proto: "tcp"})
	}
	return append(out, pair{from: "web", to: "one:8080", proto: "tcp"},
		pair{from: "client", to: "web", proto: "icmp", size: 3000}, pair{from: "client", to: "node02", proto: "icmp", size: 3000},
		pair{from: "client", to: "one:7", proto: "udp", size: 2000})
}

func toPod(from, pod string) []pair {
	return []pair{
		{from: from, to: pod + ":" + strconv.Itoa(tcpPort), proto: "tcp"},
		{from: from, to: pod + ":" + strconv.Itoa(udpPort), proto: "udp"},
		{from: from, to: pod, proto: "icmp"},
	}
}

// allPairs are all places to all others, and to all services by all their
// addresses.
func (l *testLab) allPairs() []pair {
	pods, nodes := []string{"client", "near", "web", "spare"}, []string{"node01", "node02", "node03"}
	var out []pair
	for _, from := range slices.Concat(pods, nodes, []string{"external"}) {
		outside := from == "external"
		for _, pod := range pods[1:] {
			for _, p := range toPod(from, pod) {
				p.lost = outside
				out = append(out, p)
			}
		}
		out = append(out, pair{from: from, to: "client", proto: "icmp", lost: outside})
		for _, s := range []string{"one", "many"} {
			out = append(out, pair{from: from, to: s + ":8080", proto: "tcp", lost: outside}, pair{from: from, to: s + ":7", proto: "udp", lost: outside},
				pair{from: from, to: s, proto: "icmp", lost: true})
		}
		for _, n := range nodes {
			out = append(out, pair{from: from, to: n, proto: "icmp"})
			for _, port := range []int{tcpNodePort, manyTCPNodePort} {
				out = append(out, pair{from: from, to: n + ":" + strconv.Itoa(port), proto: "tcp"})
			}
			for _, port := range []int{udpNodePort, manyUDPNodePort} {
				out = append(out, pair{from: from, to: n + ":" + strconv.Itoa(port), proto: "udp"})
			}
		}
	}
	return out
}

// agrees traces a pair.
func (l *testLab) agrees(t *testing.T, p pair) bool {
	t.Helper()
	args := []string{p.from, p.to, "--proto", p.proto, "--size", strconv.Itoa(p.size)}
	if l.observer != "" {
		args = append(args, "--observer", l.observer)
	}
	tr, said := l.trace(t, args...)
	// What is lost to a missing neighbour is rejected after three seconds, which
	// the comparison takes for the same as dropped.
	if tr.Agree != nil && *tr.Agree && (tr.Verdict != trace.Delivered) == p.lost && len(tr.Disagreements) == 0 {
		return true
	}
	if tr.Observer == "tracepoints" && l.mode == topology.FlannelUDP && p.size > 0 {
		t.Logf("%s: fragments that the tunnel's process sends together are not seen by tracepoints alone", said.Argv)
		return true
	}
	why, _ := json.MarshalIndent(tr.Disagreements, "", " ")
	t.Errorf("%s (%s): exit code %d, agree %v, predicted %v, observed %v\npredicted %s\nobserved  %s\ncauses %+v %+v\n%s",
		said.Argv, said.Took, said.Code, tr.Agree != nil && *tr.Agree, tr.PredictedVerdict, tr.ObservedVerdict, path(tr.Predicted), path(tr.Observed), tr.PredictedCause, tr.ObservedCause, why)
	return false
}

// path is hops in short, for failures.
func path(hops []trace.Hop) string {
	var out []string
	for _, h := range hops {
		if !h.Hidden {
			out = append(out, h.Place+" "+string(h.Stage)+" "+h.Device)
		}
	}
	return strings.Join(out, " · ")
}
