package observe

import (
	"slices"
	"strings"

	"slipway/datapath/trace"
)

// captureStages are what packet sockets see.
var captureStages = []trace.Stage{trace.Egress, trace.Ingress, trace.Wire}

// FromCapture turns the sightings at devices that packet sockets made into the
// way of one packet and of its answer. Neither rules nor drops are seen; that
// something went into a tunnel shows between two devices. Of the world, what
// the sender got is needed.
func FromCapture(events []Event, w World) trace.Observation {
	w.Answer.Err = w.Answer.refused()
	o := trace.Observation{Observer: "af_packet", Observes: captureStages, Lost: w.Lost}
	if w.Lost > 0 {
		o.Notes = append(o.Notes, lostNote(w.Lost))
	}
	steps := Path(events)
	copies := copySteps(steps)
	for i, s := range steps {
		list := &o.Request
		switch {
		case copies[i]:
			list = &o.Copies
		case s.Reply:
			list = &o.Reply
		}
		if t, ok := s.tunnelHop(*list); ok && !copies[i] {
			*list = append(*list, t)
		}
		*list = append(*list, s.deviceHop())
		o.LatencyNs = s.SinceStart.Nanoseconds()
	}
	number(o.Request, o.Reply, o.Copies)
	v := captureVerdict{w: &w, o: &o}
	v.judge()
	return o
}

// deviceHop is the sighting alone.
func (s Step) deviceHop() trace.Hop {
	h := s.hop()
	h.Stage, h.Evidence = s.passage(), []string{s.evidence()}
	if h.Action == trace.EncapAction || h.Action == trace.DecapAction {
		h.Action = trace.Pass
	}
	if s.DeadEnd {
		h.Action = trace.Drop
	}
	return h
}

func (s Step) evidence() string { return "af_packet " + s.Device + " " + string(s.Direction) }

// tunnelHop is the hop that a change of the carrying packet in one place shows,
// between a sighting and the hops before it.
func (s Step) tunnelHop(before []trace.Hop) (trace.Hop, bool) {
	h := s.hop()
	if (h.Stage != trace.Encap && h.Stage != trace.Decap) || len(before) == 0 || before[len(before)-1].Namespace != h.Namespace {
		return h, false
	}
	last := before[len(before)-1]
	h.Action = trace.DecapAction
	if h.Stage == trace.Encap {
		h.Action, h.Device = trace.EncapAction, last.Device
	}
	h.Evidence = append(slices.Clone(last.Evidence), s.evidence())
	return h, true
}

func number(lists ...[]trace.Hop) {
	n := 0
	for _, l := range lists {
		for i := range l {
			n++
			l[i].Seq = n
		}
	}
}

// copySteps finds the sightings of copies that a switch flooded: where they
// ended, and the switch's ports before that, which are called after who is
// behind them. The only end of a packet is no copy.
func copySteps(steps []Step) map[int]bool {
	out := map[int]bool{}
	for i, s := range steps {
		if !s.DeadEnd || s.Place.Wire || !goesFurther(steps, i) {
			continue
		}
		out[i] = true
		for j := range i {
			p := steps[j]
			if p.Place.Wire && p.Direction == Out && p.Reply == s.Reply && strings.HasPrefix(p.Device, s.Place.Label+"-") {
				out[j] = true
			}
		}
	}
	return out
}

// goesFurther reports whether the packet was also seen to arrive elsewhere after
// it was on the switch that the step came from.
func goesFurther(steps []Step, i int) bool {
	from := i
	for from > 0 && !steps[from].Place.Wire {
		from--
	}
	return slices.ContainsFunc(steps[from:], func(s Step) bool {
		return s.Reply == steps[i].Reply && !s.Place.Wire && !s.DeadEnd && s.Direction == In
	})
}

// captureVerdict judges by what the sender got, and where the packet was last.
type captureVerdict struct {
	w *World
	o *trace.Observation
}

func (v *captureVerdict) judge() {
	switch a := v.w.Answer; {
	case a.Got && v.arrived(v.o.Request, "") && v.arrived(v.o.Reply, v.w.Sender.Namespace):
		v.o.Verdict = trace.Delivered
	case a.Got:
		v.unknown()
		v.o.Notes = append(v.o.Notes, "the sender got its answer, but not all of its way was seen")
	case a.Err != nil && v.w.Lost == 0 && len(v.o.Request)+len(v.o.Reply) == 0:
		r := verdict{w: v.w}
		r.nothing()
		v.o.Verdict, v.o.Cause = r.verdict, r.cause
	case a.Err != nil || v.told():
		v.o.Verdict = trace.Rejected
		v.o.Cause = v.refusal()
	default:
		v.unknown()
	}
}

// arrived reports whether the last sighting is of a device that received it, out
// of any tunnel.
func (v *captureVerdict) arrived(hops []trace.Hop, namespace string) bool {
	if len(hops) == 0 {
		return false
	}
	last := hops[len(hops)-1]
	return last.Stage == trace.Ingress && last.Action != trace.Drop && last.Packet.Outer == nil && (namespace == "" || last.Namespace == namespace)
}

// told reports whether an ICMP error came back to the sender.
func (v *captureVerdict) told() bool {
	if !v.arrived(v.o.Reply, v.w.Sender.Namespace) {
		return false
	}
	return v.o.Reply[len(v.o.Reply)-1].Packet.ICMP.IsError()
}

// refusal explains by the answer: who sent it, and what it says.
func (v *captureVerdict) refusal() *trace.Cause {
	c := errnoCause(v.w.Answer.Err)
	at := v.o.Request
	if len(v.o.Reply) > 0 {
		at = v.o.Reply[:1]
		if m := v.o.Reply[0].Packet.ICMP; m.IsError() {
			d := icmpDrop(m.Type, m.Code, false, false)
			c = &trace.Cause{Reason: d.reason, Table: d.table, Hint: d.hint, Text: d.text}
		}
	}
	locate(c, at)
	if c.Text == "" {
		c.Text = "the sender was told: " + c.Kernel
	}
	if len(v.o.Reply) > 0 {
		c.Text = c.Place + " answers: " + c.Text
		c.Device = "" // where the answer left is not where the request came to
	}
	return c
}

// unknown says where it was last seen.
func (v *captureVerdict) unknown() {
	v.o.Verdict = trace.Unknown
	at := v.o.Request
	if len(v.o.Reply) > 0 {
		at = v.o.Reply
	}
	c := &trace.Cause{Reason: trace.ReasonNotSeen, Reply: len(v.o.Reply) > 0, Text: "nothing was seen of the packet"}
	locate(c, at)
	if len(at) > 0 {
		c.Text = "last seen at " + at[len(at)-1].At() + "; packet sockets do not see what became of it"
	}
	v.o.Cause = c
}

// locate puts a cause where the last of some hops was.
func locate(c *trace.Cause, hops []trace.Hop) {
	if len(hops) == 0 {
		return
	}
	h := hops[len(hops)-1]
	c.Node, c.Namespace, c.Place, c.Device, c.Stage = h.Node, h.Namespace, h.Place, h.Device, h.Stage
}
