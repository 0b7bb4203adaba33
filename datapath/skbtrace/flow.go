package skbtrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Sizes of the programs' arrays (skbtrace.c).
const (
	maxFlows  = 16
	bloomSize = 1024
)

// ErrTooManyFlows reports that a tracer can follow no more flows.
var ErrTooManyFlows = errors.New("too many flows")

// encode gives the flow the form that the programs have it in, addresses and
// ports as they are in packets.
func encode(f Flow) (skbtraceFlow, error) {
	if err := f.Validate(); err != nil {
		return skbtraceFlow{}, err
	}
	proto, _ := f.ProtoNumber()
	return skbtraceFlow{
		Src: encodeAddr(f.Src.Addr()), Dst: encodeAddr(f.Dst.Addr()),
		Sport: networkOrder(f.Src.Port()), Dport: networkOrder(f.Dst.Port()),
		IcmpId: networkOrder(f.ICMPID), Proto: proto,
	}, nil
}

func encodeAddr(a netip.Addr) uint32 {
	if !a.IsValid() {
		return 0
	}
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func networkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

// filter is what packets are asked before anything else: how many of their two
// addresses must be among the marked ones.
type filter struct {
	marked [bloomSize]uint8
	needed uint32
}

func filterOf(flows []skbtraceFlow) filter {
	f := filter{needed: 2}
	for _, flow := range flows {
		given := uint32(0)
		for _, addr := range []uint32{flow.Src, flow.Dst} {
			if addr != 0 {
				f.marked[bloomIndex(addr)] = 1
				given++
			}
		}
		f.needed = min(f.needed, given)
	}
	return f
}

// bloomIndex is bloom_index of skbtrace.c: Fibonacci hashing (Knuth, The Art of
// Computer Programming, vol. 3, 6.4).
func bloomIndex(addr uint32) uint32 { return addr * 0x9E3779B1 >> 22 }

// AddFlow makes more packets wanted, from now on. A flow that is wanted already
// is no error; ErrTooManyFlows if there is no room.
func (t *Tracer) AddFlow(f Flow) error {
	encoded, err := encode(f)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(t.flows, encoded) {
		return nil
	}
	if len(t.flows) == maxFlows {
		return fmt.Errorf("follow %v: %w: %d", f, ErrTooManyFlows, maxFlows)
	}
	t.flows = append(t.flows, encoded)
	return t.writeFlows()
}

// writeFlows hands the flows to the programs. They go first and their number
// last, so that a program that runs meanwhile sees no half of a flow.
func (t *Tracer) writeFlows() error {
	var all [maxFlows]skbtraceFlow
	copy(all[:], t.flows)
	f := filterOf(t.flows)
	if err := errors.Join(
		t.programs.Variables[skbtraceVarFlows].Set(&all),
		t.programs.Variables[skbtraceVarBloom].Set(&f.marked),
		t.programs.Variables[skbtraceVarAddressesNeeded].Set(f.needed),
		t.programs.Variables[skbtraceVarFlowCount].Set(uint32(len(t.flows))),
	); err != nil {
		return fmt.Errorf("set the flows to follow: %w", err)
	}
	return nil
}
