package trace

import (
	"net/netip"
	"syscall"

	"slipway/datapath"
)

// Lookup is a question to a namespace's routing tables. With IIf it is about a
// packet that came by that device.
type Lookup struct {
	Dst, Src netip.Addr
	Mark     uint32
	IIf, OIf string
}

// LookUp answers as the kernel's RTM_GETROUTE is read by the test: the next hop
// and device, "local", or the error.
func LookUp(st *datapath.NetState, q Lookup) string {
	pl := &place{}
	pl.load(st)
	w := &walk{}
	if q.IIf != "" {
		rt, flt := w.routeInput(pl, &skb{p: datapath.Packet{Src: q.Src, Dst: q.Dst, Mark: q.Mark}}, pl.devices[q.IIf])
		return answerOf(rt, flt, false)
	}
	rt, flt := w.routeOutput(pl, flow{dst: q.Dst, src: q.Src, mark: q.Mark, oif: q.OIf})
	return answerOf(rt, flt, !q.Src.IsValid())
}

func answerOf(rt route, flt *fault, src bool) string {
	switch {
	case flt != nil:
		return errnoOf(flt)
	case rt.here:
		return "local"
	}
	s := rt.gw.String() + " dev " + rt.dev
	if src {
		s += " src " + rt.src.String()
	}
	return s
}

// errnoOf is the error that the kernel has for a fault.
func errnoOf(f *fault) string {
	errno := map[Reason]syscall.Errno{
		ReasonNoRoute: syscall.ENETUNREACH, ReasonBlackhole: syscall.EINVAL, ReasonProhibit: syscall.EACCES,
		ReasonMartian: syscall.EINVAL, ReasonRPFilter: syscall.EINVAL, ReasonForwardingOff: syscall.EHOSTUNREACH,
		ReasonUnreachable: syscall.EHOSTUNREACH,
	}
	if e, ok := errno[f.reason]; ok {
		return e.Error()
	}
	return "fault " + string(f.reason) + ": " + f.text
}
