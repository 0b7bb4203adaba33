package skbtrace

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"slipway/datapath/bpf"
	"slipway/internal/netns"
)

// Options say what to trace.
type Options struct {
	// Namespaces are watched: their devices and their netfilter hooks.
	// Bystanders are those of which only the devices are, which costs nothing: a
	// switch may flood a packet to many. Events come from no others.
	Namespaces []*netns.NS
	Bystanders []*netns.NS
	Flows      []Flow
	Ports      Ports
	// TracepointsOnly leaves netfilter's hooks alone, as it has to be on kernels
	// without programs for them. It costs packets less.
	TracepointsOnly bool
}

// Tracer has programs attached until it is closed or the process ends.
type Tracer struct {
	programs *ebpf.Collection
	hooked   bool // has programs for netfilter's hooks
	reader   *ringbuf.Reader
	links    []link.Link
	record   ringbuf.Record // reused from event to event

	mu    sync.Mutex
	flows []skbtraceFlow
}

// The object files are read once; each tracer loads its own copy.
var (
	spec  = sync.OnceValues(loadSkbtrace)
	older = sync.OnceValues(loadTracepoints)
)

// Open attaches everything before it returns. Where the kernel cannot do that
// the error is a *bpf.UnsupportedError.
func Open(o Options) (*Tracer, error) {
	t := &Tracer{}
	for _, f := range o.Flows {
		encoded, err := encode(f)
		if err != nil {
			return nil, err
		}
		t.flows = append(t.flows, encoded)
	}
	if len(t.flows) > maxFlows {
		return nil, fmt.Errorf("%w: %d of at most %d", ErrTooManyFlows, len(t.flows), maxFlows)
	}
	if err := t.load(o); err != nil {
		return nil, &bpf.UnsupportedError{Feature: "kernel tracing", Err: err}
	}
	if err := t.attach(o.Namespaces, o.Bystanders); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Supported says why this kernel cannot trace: a *bpf.UnsupportedError, or nil
// if it can, and whether netfilter's hooks too, as is found out by doing it, once.
var Supported = sync.OnceValues(func() (hooks bool, err error) {
	ns, err := netns.Anonymous()
	if err != nil {
		return false, err
	}
	defer ns.Close() //nolint:errcheck // scratch
	t, err := Open(Options{Namespaces: []*netns.NS{ns}})
	if err != nil {
		return false, err
	}
	return t.Hooks(), t.Close()
})

// Hooks reports whether netfilter's hooks are looked at: the kernel has programs
// for them since Linux 6.4. Without, devices and the ends of packets are.
func (t *Tracer) Hooks() bool { return t.hooked }

func (t *Tracer) load(o Options) error {
	if err := t.loadBest(o); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if hook := t.programs.Programs[skbtraceProgOnHook]; hook != nil {
		t.hooked = true
		if err := t.programs.Maps[skbtraceMapHookProgram].Put(uint32(0), hook); err != nil {
			t.programs.Close()
			return fmt.Errorf("set the hooks' program: %w", err)
		}
	}
	var err error
	t.reader, err = ringbuf.NewReader(t.programs.Maps[skbtraceMapEvents])
	if err != nil {
		t.programs.Close()
		return fmt.Errorf("open the ring buffer: %w", err)
	}
	return nil
}

// loadBest loads what this kernel takes: its versions differ in what programs may
// do more than in what they can be attached to.
func (t *Tracer) loadBest(o Options) error {
	best, err := spec()
	if err != nil {
		return err
	}
	if o.TracepointsOnly {
		return t.loadOlder(o)
	}
	// Linux 6.11 lets tracepoints read what is not in a packet's first piece of
	// memory; before, what a UDP tunnel sends together is not taken apart.
	if t.loadWith(best, o, true) == nil {
		return nil
	}
	if err = t.loadWith(best, o, false); err == nil {
		return nil
	}
	if t.loadOlder(o) == nil {
		return nil
	}
	return err
}

func (t *Tracer) loadOlder(o Options) error {
	parsed, err := older()
	if err != nil {
		return err
	}
	return t.loadWith(parsed, o, false)
}

func (t *Tracer) loadWith(parsed *ebpf.CollectionSpec, o Options, readSegments bool) (err error) {
	own := parsed.Copy()
	if !hasICMPSend() {
		delete(own.Programs, skbtraceProgOnIcmpSend)
	}
	if err := errors.Join(
		own.Variables[skbtraceVarVxlanPort].Set(networkOrder(o.Ports.VXLAN)),
		own.Variables[skbtraceVarUdpPort].Set(networkOrder(o.Ports.UDP)),
	); err != nil {
		return err
	}
	// Not all programs have it.
	if v := own.Variables[skbtraceVarReadSegments]; v != nil {
		if err := v.Set(readSegments && o.Ports.UDP != 0); err != nil {
			return err
		}
	}
	t.programs, err = ebpf.NewCollection(own)
	return err
}

// hasICMPSend reports whether the kernel tells of ICMP errors that it sends, as it
// does since Linux 6.10. Before, only the reason that the packet was dropped for
// and the error itself show it.
var hasICMPSend = sync.OnceValue(func() bool {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return false
	}
	var found *btf.Typedef
	return types.TypeByName("btf_trace_icmp_send", &found) == nil
})

// attach begins with the namespaces' hooks, which see nothing until the
// tracepoints see packets.
func (t *Tracer) attach(spaces, bystanders []*netns.NS) error {
	if err := t.writeFlows(); err != nil {
		return err
	}
	for _, ns := range slices.Concat(spaces, bystanders) {
		inode, err := ns.Inode()
		if err != nil {
			return err
		}
		if err := t.programs.Maps[skbtraceMapSpaces].Put(inode, uint8(1)); err != nil {
			return fmt.Errorf("trace in %s: %w", ns.Name(), err)
		}
	}
	if t.hooked {
		if err := t.attachHooks(spaces); err != nil {
			return err
		}
	}
	for _, prog := range t.tracepoints() {
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return &bpf.UnsupportedError{Feature: "kernel tracing", Err: fmt.Errorf("attach %s: %w", prog, err)}
		}
		t.links = append(t.links, l)
	}
	return nil
}

// tracepoints are the programs for the kernel's tracepoints, in the order in which
// they are attached.
func (t *Tracer) tracepoints() []*ebpf.Program {
	return t.named(skbtraceProgOnFree, skbtraceProgOnConsume, skbtraceProgOnIcmpSend, skbtraceProgOnReceive, skbtraceProgOnRx, skbtraceProgOnQueue, skbtraceProgOnXmit)
}

// hooks are the programs for priorities.
func (t *Tracer) hooks() []*ebpf.Program {
	return t.named(skbtraceProgOnHook0, skbtraceProgOnHook1, skbtraceProgOnHook2, skbtraceProgOnHook3, skbtraceProgOnHook4, skbtraceProgOnHook5, skbtraceProgOnHook6)
}

func (t *Tracer) named(names ...string) []*ebpf.Program {
	var out []*ebpf.Program
	for _, n := range names {
		if p := t.programs.Programs[n]; p != nil {
			out = append(out, p)
		}
	}
	return out
}

// Close detaches everything and forgets what was not collected.
func (t *Tracer) Close() error {
	errs := make([]error, 0, len(t.links)+2)
	for i := len(t.links) - 1; i >= 0; i-- {
		errs = append(errs, t.links[i].Close())
	}
	t.links = nil
	errs = append(errs, t.reader.Close())
	t.programs.Close()
	return errors.Join(errs...)
}

// Lost is how many events the kernel had no room for since Open: with any, the
// absence of an event says nothing.
func (t *Tracer) Lost() int {
	var n uint64
	if err := t.programs.Variables[skbtraceVarLost].Get(&n); err != nil {
		return 0 // memory that is mapped can be read
	}
	return int(n)
}
