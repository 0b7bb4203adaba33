package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	"slipway/internal/run"
)

// Program is the program that compiles filters.
const Program = "tcpdump"

// DefaultSnapLen is how much of a packet is kept unless told otherwise, in
// bytes: tcpdump's own (MAXIMUM_SNAPLEN), more than any packet has.
const DefaultSnapLen = 262144

// Filter is a filter for the kernel, once for each link type that a lab's
// devices have.
type Filter struct {
	Expression string // as it was asked for
	SnapLen    int    // bytes
	ethernet   []bpf.RawInstruction
	raw        []bpf.RawInstruction
	// RawReason says why no packet of a device without frame header can match,
	// if that is so although the filter means something elsewhere.
	RawReason string
}

// FilterError says that a filter is not one.
type FilterError struct {
	Expression string
	Reason     string // as tcpdump says it
}

// Error quotes the filter.
func (e *FilterError) Error() string { return fmt.Sprintf("filter %q: %s", e.Expression, e.Reason) }

// Compile turns a filter in tcpdump's syntax (pcap-filter(7)) into the kernel's.
// The zero expression takes every packet and needs no tcpdump. A wrong one is a
// *FilterError.
func Compile(ctx context.Context, expression string, snapLen int) (*Filter, error) {
	f := &Filter{Expression: expression, SnapLen: snapLen}
	if strings.TrimSpace(expression) == "" {
		keep := []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: uint32(snapLen)}}
		f.ethernet, f.raw = keep, keep
		return f, nil
	}
	// tcpdump asks the resolver what names mean. In a namespace without any
	// device it can ask nobody.
	ns, err := netns.Anonymous()
	if err != nil {
		return nil, fmt.Errorf("compile filter: %w", err)
	}
	defer ns.Close() //nolint:errcheck // nothing is left in it
	var why string
	if f.ethernet, why, err = compile(ctx, ns, "EN10MB", expression, snapLen); err != nil {
		return nil, err
	}
	if why != "" && why != rejectsAll {
		return nil, &FilterError{Expression: expression, Reason: why}
	}
	nothing := why != ""
	if f.raw, why, err = compile(ctx, ns, "RAW", expression, snapLen); err != nil {
		return nil, err
	}
	if nothing && why != "" {
		return nil, &FilterError{Expression: expression, Reason: "no packet can match"}
	}
	if why != rejectsAll { // "arp" needs no explanation
		f.RawReason = why
	}
	return f, nil
}

// rejectsAll is what libpcap says of a filter that no packet of the link type
// can pass (gencode.c, pcap_compile).
const rejectsAll = "expression rejects all packets"

// dropAll is the program that takes no packet.
var dropAll = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K}}

// compile asks tcpdump for the program of one link type. why is what it says
// against the expression; the program then takes nothing.
func compile(ctx context.Context, ns *netns.NS, link, expression string, snapLen int) (prog []bpf.RawInstruction, why string, err error) {
	out, err := run.Cmd{NS: ns, Name: Program, Args: []string{"-y", link, "-s", strconv.Itoa(snapLen), "-ddd", "--", expression}}.Output(ctx)
	var failed *run.Error
	var exit *exec.ExitError
	if errors.As(err, &failed) && errors.As(err, &exit) && ctx.Err() == nil {
		lines := strings.Split(strings.TrimSpace(failed.Stderr), "\n")
		why = strings.TrimPrefix(lines[len(lines)-1], Program+": ")
		return dropAll, strings.TrimPrefix(why, "can't parse filter expression: "), nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("compile filter %q: %w", expression, err)
	}
	prog, err = parseProgram(out)
	if err != nil {
		return nil, "", fmt.Errorf("compile filter %q: %w", expression, err)
	}
	return prog, "", nil
}

// parseProgram reads what `tcpdump -ddd` prints: how many instructions there
// are, then one a line, as four decimal numbers.
func parseProgram(out []byte) ([]bpf.RawInstruction, error) {
	lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
	n, err := strconv.Atoi(lines[0])
	if err != nil || n != len(lines)-1 || n == 0 {
		return nil, fmt.Errorf("%s printed %d lines that begin with %q, not a program", Program, len(lines), lines[0])
	}
	prog := make([]bpf.RawInstruction, n)
	for i, l := range lines[1:] {
		in := &prog[i]
		if _, err := fmt.Sscanf(l, "%d %d %d %d", &in.Op, &in.Jt, &in.Jf, &in.K); err != nil {
			return nil, fmt.Errorf("instruction %d %q: %w", i, l, err)
		}
	}
	return prog, nil
}

// rawTypes are the hardware types of devices whose packets begin with their IP
// header, as datapath/observe knows them.
var rawTypes = []uint32{unix.ARPHRD_NONE, unix.ARPHRD_TUNNEL, unix.ARPHRD_IPGRE, unix.ARPHRD_PPP, unix.ARPHRD_RAWIP}

// program is the filter of one place's socket, which hears all its devices: it
// takes only packets of the devices with these indexes, all if there are none,
// and goes on with the program that fits the device's link type.
func (f *Filter) program(devices []int) ([]bpf.RawInstruction, error) {
	var prog []bpf.RawInstruction
	if len(devices) > 0 {
		prog = append(prog, load(bpf.ExtInterfaceIndex))
		for i, d := range devices {
			end := 2*(len(devices)-i-1) + 1
			prog = append(prog, jumpIf(uint32(d), end)...)
		}
		prog = append(prog, dropAll...)
	}
	prog = append(prog, load(bpf.ExtLinkLayerType))
	for i, t := range rawTypes {
		prog = append(prog, jumpIf(t, 2*(len(rawTypes)-i-1)+len(f.ethernet))...)
	}
	prog = append(append(prog, f.ethernet...), f.raw...)
	if len(prog) > unix.BPF_MAXINSNS {
		return nil, &FilterError{Expression: f.Expression, Reason: fmt.Sprintf("%d instructions with the choice of devices, and the kernel takes %d", len(prog), unix.BPF_MAXINSNS)}
	}
	return prog, nil
}

// load puts what the kernel knows of a packet into the accumulator (linux
// include/uapi/linux/filter.h, SKF_AD_OFF).
func load(ext bpf.Extension) bpf.RawInstruction {
	const ancillary = -0x1000 // SKF_AD_OFF
	return bpf.RawInstruction{Op: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(ancillary + int32(ext))}
}

// jumpIf skips n instructions if the accumulator is v. Conditional jumps reach
// 255 instructions only, this one any distance.
func jumpIf(v uint32, n int) []bpf.RawInstruction {
	return []bpf.RawInstruction{
		{Op: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: v},
		{Op: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)},
	}
}
