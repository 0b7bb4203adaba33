package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"slipway/datapath"
	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/topology"
)

// The targets of the project for traces.
const (
	traceMillis     = 300.0   // one trace in a lab of three nodes
	bigTraceMillis  = 2_000.0 // and in one of many nodes and services
	attachedAtLeast = 0.75    // of the throughput without a tracer
	streamRound     = time.Second
)

// traces measures how long a trace takes and what a tracer costs that is
// attached and wants none of the packets.
func (s *scale) traces(ctx context.Context) (Group, error) {
	g := Group{Part: PartTraces, Title: "Traces", Notes: []string{
		"Whole commands, the start of their process included: `slipway trace POD SERVICE -o json`, and the same with --predict.",
		"Attached: one TCP stream between two pods of two nodes while a tracer is attached in every namespace of the lab, as a trace attaches it, and follows a flow that does not exist; rounds with and without it alternate, and the ratio is of neighbouring rounds. The control is the ratio of two rounds without. A tracer that is not attached does not exist: idle costs nothing.",
	}}
	small, err := s.smallTraces(ctx)
	if err != nil {
		return g, err
	}
	g.Cases = append(g.Cases, small)
	big, err := s.bigTraces(ctx)
	if err != nil {
		return g, err
	}
	g.Cases = append(g.Cases, big)
	return g, nil
}

// smallTraces runs in the demo's lab.
func (s *scale) smallTraces(ctx context.Context) (c Case, err error) {
	for name, data := range s.Files {
		if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
			return c, fmt.Errorf("write example: %w", err)
		}
	}
	name := s.labName("trace")
	return s.tracedLab(ctx, filepath.Join(s.dir, "demo.yaml"), name, func(snap *topology.Snapshot) (Case, error) {
		c := Case{Name: fmt.Sprintf("%d nodes, %d services", len(snap.Nodes), len(snap.Services))}
		if c.Figures, err = s.traceTimes(ctx, name, "default/client", "nginx-svc", traceMillis); err != nil {
			return c, err
		}
		attached, err := s.attachedCost(ctx, name, snap)
		c.Figures = append(c.Figures, attached...)
		return c, err
	})
}

// bigTraces runs in a lab of many nodes and services.
func (s *scale) bigTraces(ctx context.Context) (c Case, err error) {
	name := s.labName("trace-big")
	file, err := s.writeCluster(name, s.Nodes, workloadText(endpoints)+servicesText(s.TraceServices))
	if err != nil {
		return c, err
	}
	return s.tracedLab(ctx, file, name, func(snap *topology.Snapshot) (Case, error) {
		c := Case{Name: fmt.Sprintf("%d nodes, %d services", len(snap.Nodes), len(snap.Services))}
		from := ""
		for _, p := range snap.Pods {
			if p.Owner == workload {
				from = p.Key()
			}
		}
		var err error
		last := fmt.Sprintf("svc-%05d", s.TraceServices-1) // its rule is found last
		c.Figures, err = s.traceTimes(ctx, name, from, last, bigTraceMillis)
		return c, err
	})
}

// tracedLab brings a lab up for a measurement, and down.
func (s *scale) tracedLab(ctx context.Context, file, name string, measure func(*topology.Snapshot) (Case, error)) (c Case, err error) {
	ctx, cancel := context.WithTimeout(ctx, servicesPatience)
	defer cancel()
	if err := refuseTaken(name); err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, takeDown(ctx, name)) }()
	s.Progress.Phase("lab "+name, 0)
	if _, err := s.program.up(ctx, file, name, topology.FlannelVXLAN); err != nil {
		return c, err
	}
	st, err := lab.ReadState(name)
	if err != nil {
		return c, err
	}
	return measure(st.Snapshot)
}

// traced is what is needed of a trace's answer.
type traced struct {
	Verdict string `json:"verdict"`
	Agree   *bool  `json:"agree"`
}

// traceTimes runs the command, observed and only predicted in turn.
func (s *scale) traceTimes(ctx context.Context, name, from, to string, target float64) ([]Figure, error) {
	var observed, predicted []float64
	agreed := 0
	for round := range s.Rounds {
		s.Progress.Phase(fmt.Sprintf("traces in %s, round %d of %d", name, round+1, s.Rounds), 0)
		for _, extra := range [][]string{nil, {"--predict"}} {
			var t traced
			r, err := s.program.run(ctx, &t, append([]string{"trace", "-L", name, from, to, "-o", "json"}, extra...)...)
			if err != nil {
				return nil, err
			}
			if extra != nil {
				predicted = append(predicted, millis(r.wall))
				continue
			}
			observed = append(observed, millis(r.wall))
			if t.Agree != nil && *t.Agree {
				agreed++
			}
		}
	}
	return []Figure{
		figure("one trace", "ms", observed...).atMost(target),
		figure("· only predicted", "ms", predicted...),
		figure("traces as predicted", "", float64(agreed)).atLeast(float64(s.Rounds)),
	}, nil
}

// attachedCost streams between two pods with and without a tracer.
func (s *scale) attachedCost(ctx context.Context, name string, snap *topology.Snapshot) ([]Figure, error) {
	client, server, closePair, err := farPods(name, snap)
	if err != nil {
		return nil, err
	}
	defer closePair()
	spaces, closeAll, err := allSpaces(name)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	var without, with, ratio, control []float64
	stream := func() (float64, error) {
		f, err := load.Native{}.Run(ctx, load.Job{Workload: load.TCPStream, Client: client, Server: server, Duration: streamRound})
		return f[load.Throughput], err
	}
	for round := range s.Rounds {
		s.Progress.Phase(fmt.Sprintf("streams beside a tracer, round %d of %d", round+1, s.Rounds), 0)
		a, err := stream()
		if err != nil {
			return nil, err
		}
		t, err := skbtrace.Open(skbtrace.Options{Namespaces: spaces, Flows: []datapath.Flow{nobody}, Ports: datapath.Ports{UDP: uint16(snap.Network.UDP.Port), VXLAN: uint16(snap.Network.VXLAN.Port)}})
		if err != nil {
			return nil, err
		}
		b, err := stream()
		if err = errors.Join(err, t.Close()); err != nil {
			return nil, err
		}
		again, err := stream()
		if err != nil {
			return nil, err
		}
		without, with = append(without, a/1e9), append(with, b/1e9)
		ratio, control = append(ratio, b/((a+again)/2)), append(control, again/a)
	}
	return []Figure{
		figure("stream, no tracer", "Gbit/s", without...),
		figure("stream, tracer attached", "Gbit/s", with...),
		figure("attached ÷ not", "", ratio...).atLeast(attachedAtLeast),
		figure("· control, not ÷ not", "", control...),
	}, nil
}

// nobody is a flow between documentation addresses (RFC 5737), which no lab has
// by itself.
var nobody = datapath.Flow{Proto: "tcp", Src: netip.MustParseAddrPort("192.0.2.1:1"), Dst: netip.MustParseAddrPort("198.51.100.1:1")}

// farPods opens two pods on different nodes.
func farPods(name string, snap *topology.Snapshot) (client, server load.Place, closeBoth func(), err error) {
	first := snap.Pods[0]
	for _, p := range snap.Pods {
		if p.Node == first.Node {
			continue
		}
		a, err := netns.Open(lab.NSOfPod(name, first.Key()))
		if err != nil {
			return client, server, nil, err
		}
		b, err := netns.Open(lab.NSOfPod(name, p.Key()))
		if err != nil {
			return client, server, nil, errors.Join(err, a.Close())
		}
		both := func() { _, _ = a.Close(), b.Close() }
		return load.Place{NS: a, Addr: first.Address, Label: first.Key()}, load.Place{NS: b, Addr: p.Address, Label: p.Key()}, both, nil
	}
	return client, server, nil, fmt.Errorf("all pods of lab %s are on one node", name)
}

// allSpaces opens every namespace of a lab.
func allSpaces(name string) ([]*netns.NS, func(), error) {
	var out []*netns.NS
	closeAll := func() {
		for _, ns := range out {
			_ = ns.Close() // a read-only descriptor
		}
	}
	st, err := lab.ReadState(name)
	if err != nil {
		return nil, nil, err
	}
	targets, err := lab.Targets(st)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range targets {
		ns, err := netns.Open(t.NetNS)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		out = append(out, ns)
	}
	return out, closeAll, nil
}
