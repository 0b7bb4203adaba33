package skbtrace

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
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
}

// Tracer has programs attached until it is closed or the process ends.
type Tracer struct {
	programs skbtraceObjects
	reader   *ringbuf.Reader
	links    []link.Link
	record   ringbuf.Record // reused from event to event

	mu    sync.Mutex
	flows []skbtraceFlow
}

// The object file is read once; each tracer loads its own copy.
var spec = sync.OnceValues(loadSkbtrace)

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
// if it can, as is found out by doing it, once.
var Supported = sync.OnceValue(func() error {
	ns, err := netns.Anonymous()
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // scratch
	t, err := Open(Options{Namespaces: []*netns.NS{ns}})
	if err != nil {
		return err
	}
	return t.Close()
})

func (t *Tracer) load(o Options) error {
	parsed, err := spec()
	if err != nil {
		return err
	}
	// Linux 6.11 lets tracepoints read what is not in a packet's first piece of
	// memory; before, what a UDP tunnel sends together is not taken apart.
	if err := t.loadWith(parsed, o, true); err != nil {
		if err := t.loadWith(parsed, o, false); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	if err := t.programs.HookProgram.Put(uint32(0), t.programs.OnHook); err != nil {
		return errors.Join(fmt.Errorf("set the hooks' program: %w", err), t.programs.Close())
	}
	t.reader, err = ringbuf.NewReader(t.programs.Events)
	if err != nil {
		return errors.Join(fmt.Errorf("open the ring buffer: %w", err), t.programs.Close())
	}
	return nil
}

func (t *Tracer) loadWith(parsed *ebpf.CollectionSpec, o Options, readSegments bool) error {
	own := parsed.Copy()
	if err := errors.Join(
		own.Variables[skbtraceVarVxlanPort].Set(networkOrder(o.Ports.VXLAN)),
		own.Variables[skbtraceVarUdpPort].Set(networkOrder(o.Ports.UDP)),
		own.Variables[skbtraceVarReadSegments].Set(readSegments && o.Ports.UDP != 0),
	); err != nil {
		return err
	}
	return own.LoadAndAssign(&t.programs, nil)
}

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
		if err := t.programs.Spaces.Put(inode, uint8(1)); err != nil {
			return fmt.Errorf("trace in %s: %w", ns.Name(), err)
		}
	}
	if err := t.attachHooks(spaces); err != nil {
		return err
	}
	for _, prog := range t.programs.tracepoints() {
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return &bpf.UnsupportedError{Feature: "kernel tracing", Err: fmt.Errorf("attach %s: %w", prog, err)}
		}
		t.links = append(t.links, l)
	}
	return nil
}

func (p *skbtracePrograms) tracepoints() []*ebpf.Program {
	return []*ebpf.Program{p.OnFree, p.OnConsume, p.OnIcmpSend, p.OnReceive, p.OnRx, p.OnQueue, p.OnXmit}
}

// hooks are the programs for priorities.
func (p *skbtracePrograms) hooks() []*ebpf.Program {
	return []*ebpf.Program{p.OnHook0, p.OnHook1, p.OnHook2, p.OnHook3, p.OnHook4, p.OnHook5, p.OnHook6}
}

// Close detaches everything and forgets what was not collected.
func (t *Tracer) Close() error {
	errs := make([]error, 0, len(t.links)+2)
	for i := len(t.links) - 1; i >= 0; i-- {
		errs = append(errs, t.links[i].Close())
	}
	t.links = nil
	return errors.Join(append(errs, t.reader.Close(), t.programs.Close())...)
}

// Lost is how many events the kernel had no room for since Open: with any, the
// absence of an event says nothing.
func (t *Tracer) Lost() int {
	var n uint64
	if err := t.programs.Lost.Get(&n); err != nil {
		return 0 // memory that is mapped can be read
	}
	return int(n)
}
