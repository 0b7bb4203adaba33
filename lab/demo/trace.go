package demo

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"slipway/datapath/observe"
	"slipway/internal/netns"
	"slipway/lab"
	"slipway/topology"
)

// quiet is how long nothing more of a packet must come before its way is taken
// to be complete.
const quiet = 60 * time.Millisecond

// traces follows one SYN from the client to a pod on another node, and one to a
// service whose endpoints are elsewhere.
func traces(ctx context.Context, o Options, m *ModeResult) error {
	st, err := lab.ReadState(m.Lab)
	if err != nil {
		return err
	}
	client, pod, service, err := actors(st.Snapshot)
	if err != nil {
		return err
	}
	for _, t := range []struct {
		label string
		to    netip.AddrPort
	}{
		{"pod " + pod.Key(), netip.AddrPortFrom(pod.Address, uint16(pod.Ports[0].Port))},
		{"service " + service.Key(), netip.AddrPortFrom(service.ClusterIP, uint16(service.Ports[0].Port))},
	} {
		trace, err := follow(ctx, st, client, t.to)
		if err != nil {
			return fmt.Errorf("trace to %s: %w", t.label, err)
		}
		trace.From, trace.To = "pod "+client.Key(), t.label
		m.Traces = append(m.Traces, trace)
		o.Show.Trace(m, trace)
	}
	return nil
}

// actors picks who talks to whom: a pod that serves nothing, a pod that serves
// TCP on another node, and a service with a TCP port first.
func actors(s *topology.Snapshot) (client, pod topology.Pod, service topology.Service, err error) {
	for _, p := range s.Pods {
		if p.Kind == topology.PodEcho && len(p.Ports) == 0 {
			client = p
			break
		}
	}
	for _, p := range s.Pods {
		if p.Kind == topology.PodEcho && len(p.Ports) > 0 && p.Ports[0].Protocol == topology.TCPProtocol && p.Node != client.Node {
			pod = p
			break
		}
	}
	for _, v := range s.Services {
		if v.Namespace != "kube-system" && v.ClusterIP.IsValid() && v.Ports[0].Protocol == topology.TCPProtocol && remote(v, client.Node) {
			service = v
			break
		}
	}
	if client.Name == "" || pod.Name == "" || service.Name == "" {
		return client, pod, service, fmt.Errorf("the demo cluster needs a pod without ports, one with a TCP port on another node, and a service")
	}
	return client, pod, service, nil
}

func remote(v topology.Service, node string) bool {
	for _, e := range v.Ports[0].Endpoints {
		if e.Node != node {
			return true
		}
	}
	return false
}

// follow sends one SYN and collects every sighting of it and of its answer.
func follow(ctx context.Context, st *lab.State, client topology.Pod, to netip.AddrPort) (t *Trace, err error) {
	places, closeAll, err := openPlaces(st)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	c, err := observe.Open(places, observe.Options{Ports: observe.Ports{UDP: uint16(st.Snapshot.Network.UDP.Port), VXLAN: uint16(st.Snapshot.Network.VXLAN.Port)}})
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // sockets that were only read
	ns, err := netns.Open(lab.NSOfPod(st.Lab, client.Key()))
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // read-only descriptor
	p, err := observe.Send(ns, observe.ProbeTCP, to)
	if err != nil {
		return nil, err
	}
	defer p.Close() //nolint:errcheck // the probe is over
	wait, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	took, err := p.Wait(wait)
	if err != nil {
		return nil, fmt.Errorf("no answer from %s: %w", to, err)
	}
	events, err := c.Collect(ctx, p.Match, quiet)
	if err != nil {
		return nil, err
	}
	t = &Trace{Steps: observe.Path(events), Answer: took}
	t.Hops, t.Reply = observe.Hops(t.Steps)
	return t, nil
}

// openPlaces opens every namespace of the lab to listen in.
func openPlaces(st *lab.State) ([]observe.Place, func(), error) {
	targets, err := lab.Targets(st)
	if err != nil {
		return nil, nil, err
	}
	var places []observe.Place
	closeAll := func() {
		for _, p := range places {
			_ = p.NS.Close()
		}
	}
	for _, t := range targets {
		ns, err := netns.Open(t.NetNS)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		places = append(places, observe.Place{Label: t.Label, Node: t.Node, Wire: t.Fabric(), NS: ns})
	}
	return places, closeAll, nil
}
