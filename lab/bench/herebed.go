package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/internal/filelock"
	"slipway/internal/netns"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/procs"
	"slipway/topology"
)

// hereNamespace is that of the bench's objects in a lab that it did not make, and
// hereLabel marks it, so that nobody else's is ever taken away.
const (
	hereNamespace = "slipway-bench"
	hereLabel     = "slipway/bench"
)

// The bounds of the bench's stay in a running lab: kubelets start and end its pods,
// on a machine that may be busy.
const (
	arrivePatience = 2 * time.Minute
	leavePatience  = 2 * time.Minute
	hereEvery      = 50 * time.Millisecond
)

// store is where a lab keeps its objects: its state, or its API.
type store interface {
	// put adds a namespace with what is in it.
	put(ctx context.Context, o *topology.Objects) error
	// clear takes the bench's namespace out with everything in it, and waits until
	// it is gone. Without one it does nothing.
	clear(ctx context.Context) error
	// missing says why a pod is not there yet, as far as the store knows.
	missing(ctx context.Context, pod string) string
}

// hereBed is the bench's pods in a lab that it did not make.
type hereBed struct {
	*labBed
	store  store
	lock   *os.File
	before []int // processes of the lab from before the pods came
}

// comeTo puts the bench's pods into a running lab. The bed is there, and has to be
// closed, also when that fails half-way.
func comeTo(ctx context.Context, r *Running, reasons load.DropReasons) (*hereBed, error) {
	lock, err := lockBench(r.Lab)
	if err != nil {
		return nil, err
	}
	b := &hereBed{lock: lock, labBed: &labBed{
		variant: r.Name(), lab: r.Lab, namespace: hereNamespace, pods: r.pods, open: map[string]*netns.NS{}, reasons: reasons,
	}}
	b.passes = b.foreign
	if b.store, err = storeOf(r); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := b.store.clear(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("clear what a former bench left: %w", err), lock.Close())
	}
	return b, b.arrive(ctx)
}

// storeOf is where a lab has its objects.
func storeOf(r *Running) (store, error) {
	if r.Components.Real() {
		return newAPIStore(r)
	}
	return stateStore{r.Lab}, nil
}

// ErrBenchBusy reports that another bench is at work in the lab.
var ErrBenchBusy = errors.New("another bench is measuring in it")

// lockBench holds off a second bench: what it finds of the bench's it may remove.
func lockBench(name string) (*os.File, error) {
	f, err := filelock.Try(filepath.Join(lab.Dir(name), "bench.lock"))
	if errors.Is(err, filelock.ErrHeld) {
		err = ErrBenchBusy
	}
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", name, err)
	}
	return f, nil
}

// arrive puts the pods in, and waits until the lab has plugged them in and they
// reach each other in every way that is measured.
func (b *hereBed) arrive(ctx context.Context) error {
	var err error
	if b.before, err = b.running(); err != nil {
		return err
	}
	o, _, err := topology.LoadManifests("bench.yaml", []byte(benchObjects(b.namespace, b.pods)))
	if err != nil {
		return err
	}
	o.Namespaces = []corev1.Namespace{{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: b.namespace, Labels: map[string]string{hereLabel: "true"}},
	}}
	if err := b.store.put(ctx, o); err != nil {
		return fmt.Errorf("put the bench's pods into lab %s: %w", b.lab, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, arrivePatience, fmt.Errorf("not within %s", arrivePatience))
	defer cancel()
	s, err := b.plugged(ctx)
	if err != nil {
		return err
	}
	if err := b.openAll(s); err != nil {
		return err
	}
	if err := b.reachable(ctx); err != nil {
		return err
	}
	return b.steady()
}

// plugged waits until the lab knows all pods and services, and the pods' namespaces
// are there.
func (b *hereBed) plugged(ctx context.Context) (*topology.Snapshot, error) {
	for {
		st, err := lab.ReadState(b.lab)
		if err != nil {
			return nil, err
		}
		away := b.away(st.Snapshot)
		if away == "" {
			return st.Snapshot, nil
		}
		select {
		case <-ctx.Done():
			why := ""
			if pod, is := strings.CutPrefix(away, "pod "); is {
				why = b.store.missing(context.WithoutCancel(ctx), pod)
			}
			return nil, fmt.Errorf("wait for the bench's %s in lab %s: %w%s", away, b.lab, context.Cause(ctx), why)
		case <-time.After(hereEvery):
		}
	}
}

// away names a pod or service that the lab has not got.
func (b *hereBed) away(s *topology.Snapshot) string {
	for _, p := range b.pods {
		i := slices.IndexFunc(s.Pods, func(q topology.Pod) bool { return q.Namespace == b.namespace && q.Name == p.name })
		if i < 0 || !s.Pods[i].Address.IsValid() || !there(lab.NSOfPod(b.lab, s.Pods[i].Key())) {
			return "pod " + p.name
		}
		if !slices.ContainsFunc(s.Services, func(v topology.Service) bool {
			return v.Namespace == b.namespace && v.Name == p.name && v.ClusterIP.IsValid()
		}) {
			return "service " + p.name
		}
	}
	return ""
}

// there reports whether a namespace has its name already.
func there(name string) bool {
	ns, err := netns.Open(name)
	return err == nil && ns.Close() == nil
}

// foreign are the nodes' ends of pods: those of other pods come and go, and of the
// bench's own the other ends are looked at.
func (b *hereBed) foreign(machine string, l netlink.Link) bool {
	n := b.node(machine)
	return n.Name != "" && l.Type() == "veth" && l.Attrs().Name != n.Interface.Name
}

// reachable waits until a request gets to every pod by every address that is
// measured: real kube-proxies write their rules when they see fit.
func (b *hereBed) reachable(ctx context.Context) error {
	for _, p := range b.pods {
		for _, target := range Targets() {
			e, ok := b.Ends(p.path, target)
			if !ok {
				continue
			}
			if err := asks(ctx, e); err != nil {
				return fmt.Errorf("ask %s by %s in lab %s: %w", p.name, target, b.lab, err)
			}
		}
	}
	return nil
}

// asks sends requests over a path until some are answered. That a port of the pod
// is taken does not change by waiting.
func asks(ctx context.Context, e matrix.Ends) error {
	j := load.Job{Workload: load.TCPRequests, Client: e.Client, Server: e.Server, To: e.To, Port: e.Port, Duration: 5 * time.Millisecond}
	for {
		_, err := load.Native{}.Run(ctx, j)
		if err == nil || errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(hereEvery):
		}
	}
}

// running are the processes of the lab: those with its mark, and those in its
// machines' namespaces, where real components run.
func (b *hereBed) running() ([]int, error) {
	st, err := lab.ReadState(b.lab)
	if err != nil {
		return nil, err
	}
	all, err := procs.Marked(strings.TrimPrefix(lab.Mark(st), procs.MarkEnv+"="))
	if err != nil {
		return nil, err
	}
	inodes := map[uint64]bool{}
	for _, n := range st.Snapshot.Nodes {
		ns, err := netns.Open(lab.NSOfMachine(b.lab, n.Name))
		if err != nil {
			return nil, err
		}
		inode, err := ns.Inode()
		if err = errors.Join(err, ns.Close()); err != nil {
			return nil, err
		}
		inodes[inode] = true
	}
	inside, err := procs.Inside(inodes)
	var out []int
	for _, p := range slices.Concat(all, inside) {
		out = append(out, p.PID)
	}
	slices.Sort(out)
	return slices.Compact(out), err
}

// steady keeps the processes that were there before the pods came and still are:
// those that a component runs for a moment are none to measure.
func (b *hereBed) steady() error {
	now, err := b.running()
	b.processes = slices.DeleteFunc(now, func(pid int) bool { return !slices.Contains(b.before, pid) })
	return err
}

// Watch leaves out processes that have ended since.
func (b *hereBed) Watch() load.Watch {
	b.processes = slices.DeleteFunc(b.processes, func(pid int) bool {
		_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
		return err != nil
	})
	return b.labBed.Watch()
}

// Close takes the pods out again, also when ctx has ended, and leaves the lab up.
func (b *hereBed) Close(ctx context.Context) error {
	b.shut()
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), leavePatience, fmt.Errorf("not within %s", leavePatience))
	defer cancel()
	err := b.store.clear(ctx)
	if errors.Is(err, lab.ErrNoLab) { // somebody took it down, and the pods with it
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("%w: take the bench's pods out of lab %s (the next `slipway bench --here` does, too): %w", lab.ErrCleanUp, b.lab, err)
	}
	return errors.Join(err, b.lock.Close())
}

// controls are what the lab's machines do without pods: one by itself, and the
// first two nodes with pods between each other.
func (b *hereBed) controls() []matrix.Bed {
	local := b.place(lab.ExternalName, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	out := []matrix.Bed{newControlBed(matrix.Loopback, "lo", local, local, b.labBed)}
	from := b.node(b.pods[0].node)
	if i := slices.IndexFunc(b.pods, func(p benchPod) bool { return p.path == matrix.OtherNode }); i >= 0 {
		to := b.node(b.pods[i].node)
		out = append(out, newControlBed(matrix.NodeNode, from.Interface.Name, b.place(from.Name, from.Address), b.place(to.Name, to.Address), b.labBed))
	}
	return out
}

// stateStore is the lab's own state, of a lab without real components.
type stateStore struct{ lab string }

func (s stateStore) put(ctx context.Context, o *topology.Objects) error {
	_, _, err := lab.Apply(ctx, s.lab, o, nil)
	return err
}

func (s stateStore) clear(ctx context.Context) error {
	st, err := lab.ReadState(s.lab)
	if err != nil {
		return err
	}
	all := &topology.Objects{}
	for _, o := range []*topology.Objects{st.FromFile, st.Applied} {
		if o != nil {
			all.Merge(o)
		}
	}
	namespace := topology.ObjectRef{Kind: "Namespace", Name: hereNamespace}
	if !slices.ContainsFunc(all.Refs(), func(r topology.ObjectRef) bool { return r == namespace || r.Namespace == hereNamespace }) {
		return nil
	}
	if !slices.ContainsFunc(all.Namespaces, func(n corev1.Namespace) bool { return ours(n.ObjectMeta) }) {
		return errForeign
	}
	_, _, err = lab.Delete(ctx, s.lab, []topology.ObjectRef{namespace}, nil)
	return err
}

// missing is nothing: applying waits for everything.
func (stateStore) missing(context.Context, string) string { return "" }

// errForeign reports objects of somebody else where the bench's would be.
var errForeign = fmt.Errorf("the namespace %s of this lab is not the bench's (it lacks the label %s)", hereNamespace, hereLabel)

func ours(o metav1.ObjectMeta) bool { return o.Name == hereNamespace && o.Labels[hereLabel] != "" }
