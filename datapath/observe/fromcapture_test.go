package observe

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/datapath/trace"
	"slipway/internal/testnet"
)

// named writes hops as place, device, stage.
func named(hops []trace.Hop) string {
	out := make([]string, len(hops))
	for i, h := range hops {
		out[i] = h.At()
	}
	return strings.Join(out, ", ")
}

// What packet sockets see of a packet through VXLAN and what is derived of it.
func TestFromCapture(t *testing.T) {
	a, _, places := vxlanPair(t)
	events := observe(t, places, a, ProbeICMP, "10.244.2.1:0")
	w := World{Sender: trace.Place{Label: "node01", Namespace: a.Name()}, Answer: Answer{Got: true}}
	o := FromCapture(events, w)
	if o.Verdict != trace.Delivered || o.Cause != nil || o.Observer != "af_packet" || o.Rules {
		t.Errorf("%s by %s, %+v", o.Verdict, o.Observer, o.Cause)
	}
	if got, want := named(o.Request), "node01/flannel.1 egress, node01/flannel.1 encap, node01/eth0 egress, node02/eth0 ingress, node02/flannel.1 decap, node02/flannel.1 ingress"; got != want {
		t.Errorf("request: %s\nwant     %s", got, want)
	}
	for i, h := range slices.Concat(o.Request, o.Reply) {
		if len(h.Evidence) == 0 || h.Seq != i+1 {
			t.Errorf("hop %d has number %d and evidence %q", i+1, h.Seq, h.Evidence)
		}
		if carried := h.Packet.Outer != nil; carried != (h.Stage == trace.Encap || h.Device == "eth0") {
			t.Errorf("at %s the packet has the carrier %v", h.At(), h.Packet.Outer)
		}
	}
	// Whatever is missing, only what was seen is there, and not called delivered.
	for n := range events {
		part := FromCapture(events[:n], w)
		devices := 0
		for _, h := range slices.Concat(part.Request, part.Reply) {
			if slices.Contains(part.Observes, h.Stage) {
				devices++
			}
		}
		if devices != n || part.Verdict != trace.Unknown {
			t.Errorf("of %d events: %d hops at devices, %s", n, devices, part.Verdict)
		}
	}
}

// A host without a listener says so, and is named.
func TestFromCaptureRefused(t *testing.T) {
	client, _, server, places := routed(t)
	c, err := Open(places, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // test
	p, err := Send(client, ProbeUDP, netip.MustParseAddrPort("10.2.0.2:9"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close() //nolint:errcheck // test
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, refused := p.Wait(ctx)
	events, err := c.Collect(ctx, p.Match, quiet)
	if err != nil {
		t.Fatal(err)
	}
	w := World{Sender: trace.Place{Label: "client", Namespace: client.Name()}, Answer: Answer{Err: refused}}
	o := FromCapture(events, w)
	if o.Verdict != trace.Rejected || o.Cause.Reason != trace.ReasonNoListener || o.Cause.Namespace != server.Name() {
		t.Errorf("%s: %+v (%v)", o.Verdict, o.Cause, refused)
	}
	// An error without anything seen was the sender's own kernel's.
	w.Answer.Err = syscall.ENETUNREACH
	if o := FromCapture(nil, w); o.Verdict != trace.Rejected || o.Cause.Reason != trace.ReasonNoRoute || o.Cause.Place != "client" {
		t.Errorf("without a route: %s: %+v", o.Verdict, o.Cause)
	}
	// Nothing at all is unknown, also after a time.
	w.Answer.Err = fmt.Errorf("wait for answer: %w", ErrNoAnswer)
	if o := FromCapture(nil, w); o.Verdict != trace.Unknown || o.Cause.Reason != trace.ReasonNotSeen {
		t.Errorf("nothing: %s: %+v", o.Verdict, o.Cause)
	}
}

// Copies that a switch flooded are shown apart, with the ports that they took.
func TestFromCaptureCopies(t *testing.T) {
	o := FromCapture(toService(), World{})
	if len(o.Copies) != 1 || o.Copies[0].Place != "node03" {
		t.Errorf("copies: %s", named(o.Copies))
	}
	events := toService()
	for i := range events {
		if events[i].Place.Wire {
			events[i].Device = strings.TrimPrefix(events[i].Device, "p-") + "-eth0" // as labs call them
		}
	}
	o = FromCapture(events, World{})
	if got := named(o.Copies); got != "fabric/node03-eth0 wire, node03/eth0 ingress" {
		t.Errorf("copies: %s", got)
	}
}

// Each packet of a file says which hop of a trace it is, rules included.
func TestAnnotate(t *testing.T) {
	testnet.Need(t, testnet.TShark)
	a, _, places := vxlanPair(t)
	events := observe(t, places, a, ProbeICMP, "10.244.2.1:0")
	o := FromCapture(events, World{})
	rule := "-A FORWARD -j ACCEPT"
	hook := o.Request[4]
	hook.Stage, hook.Rule, hook.Action = trace.Forward, rule, trace.Pass
	o.Request = slices.Insert(o.Request, 5, hook)
	Annotate(events, o.Request, o.Reply)
	for i, e := range events {
		if len(e.Comments) == 0 {
			t.Errorf("packet %d at %s/%s has no comment", i+1, e.Place.Label, e.Device)
		}
	}
	var b bytes.Buffer
	if err := WritePcapng(&b, events); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "annotated.pcapng")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got := tshark(t, file, "frame.comment")
	if len(got) != len(events) {
		t.Fatalf("%d packets with comments of %d", len(got), len(events))
	}
	if want := "hop 2: node01/flannel.1 encap, encap"; !strings.Contains(got[1], want) || !strings.Contains(got[1], "hop 3: node01/eth0 egress") {
		t.Errorf("the encapsulated packet's comments are %q, not %q and the next", got[1], want)
	}
	if !strings.Contains(got[3], "by "+rule) {
		t.Errorf("the rule is not in %q", got[3])
	}
}
