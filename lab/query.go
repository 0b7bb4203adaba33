package lab

import (
	"context"
	"errors"
	"time"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/lab/daemon"
	"slipway/lab/procs"
	"slipway/topology"
)

// Summary is one line of `slipway list`.
type Summary struct {
	Name      string            `json:"name"`
	Mode      topology.ModeName `json:"mode"`
	Nodes     int               `json:"nodes"`
	Pods      int               `json:"pods"`
	Services  int               `json:"services"`
	State     string            `json:"state"` // up | partial | daemon-down | broken
	CreatedAt time.Time         `json:"createdAt,omitzero"`
}

// The states of a lab.
const (
	StateUp         = "up"
	StatePartial    = "partial"     // a command was cut off
	StateDaemonDown = "daemon-down" // what needs a process does not work
)

// List sums up every lab on the machine.
func List(ctx context.Context) ([]Summary, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	out := []Summary{}
	for _, n := range names {
		s := Summary{Name: n, State: StatePartial}
		st, err := SettledSoon(ctx, n)
		if err != nil && !errors.Is(err, ErrNoLab) {
			return nil, err
		}
		if st != nil && st.Snapshot != nil {
			s.Mode, s.CreatedAt = st.Snapshot.Network.Mode, st.CreatedAt
			s.Nodes, s.Pods, s.Services = len(st.Snapshot.Nodes), len(st.Snapshot.Pods), len(st.Snapshot.Services)
			if st.Complete {
				s.State = daemonState(ctx, n)
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func daemonState(ctx context.Context, lab string) string {
	if _, err := DaemonStatus(ctx, lab); err != nil {
		return StateDaemonDown
	}
	return StateUp
}

// DaemonStatus asks a lab's daemon what it runs.
func DaemonStatus(ctx context.Context, lab string) (daemon.Status, error) {
	return daemon.NewClient(filesOf(lab).socket()).Status(ctx)
}

// Health is what `slipway status` found.
type Health struct {
	Lab      string             `json:"lab"`
	State    string             `json:"state"`
	Daemon   *daemon.Status     `json:"daemon,omitempty"`
	Problem  string             `json:"problem,omitempty"` // why the daemon did not answer
	Missing  []string           `json:"missing,omitempty"` // namespaces that are gone
	Off      []string           `json:"off,omitempty"`     // nodes with real components whose first process does not answer
	Drift    datapath.Diff      `json:"drift"`
	Snapshot *topology.Snapshot `json:"-"`
}

// OK reports whether nothing is wrong.
func (h *Health) OK() bool {
	return h.State == StateUp && len(h.Drift) == 0 && len(h.Missing) == 0 && len(h.Off) == 0 && (h.Daemon == nil || daemonOK(h.Daemon))
}

func daemonOK(d *daemon.Status) bool {
	for _, s := range d.Speakers {
		if s.PID == 0 || len(s.Down) > 0 {
			return false
		}
	}
	return len(d.Errors) == 0
}

// Status reads the whole lab back and compares it with what it should be. It
// changes nothing.
func Status(ctx context.Context, name string) (h *Health, err error) {
	if _, err := ReadState(name); err != nil {
		return nil, err
	}
	b, err := openExisting(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	st, err := ReadState(name) // which nobody is changing now
	if err != nil {
		return nil, err
	}
	h = &Health{Lab: name, State: StateUp, Snapshot: st.Snapshot, Drift: datapath.Diff{}}
	d, derr := DaemonStatus(ctx, name)
	if derr != nil {
		h.State, h.Problem = StateDaemonDown, derr.Error()
	} else {
		h.Daemon = &d
	}
	if !st.Complete {
		h.State = StatePartial
	}
	p, err := makePlan(st.Snapshot)
	if err != nil {
		return nil, err
	}
	for _, cfg := range p.every() {
		diff, err := b.auditNode(ctx, cfg)
		if errors.Is(err, netns.ErrNotExist) {
			h.Missing = append(h.Missing, cfg.Node)
			continue
		}
		if err != nil {
			return nil, err
		}
		// Upstream's programs make the same network by names of their own.
		if st.Snapshot.Network.Implementation != topology.ImplementationUpstream {
			h.Drift = append(h.Drift, diff...)
		}
	}
	if p.real() {
		if h.Off, err = b.off(ctx, st.Snapshot); err != nil {
			return nil, err
		}
	}
	return h, b.missingPods(st.Snapshot, h)
}

// off lists the nodes that are switched off: those that `up` would start.
func (b *box) off(ctx context.Context, s *topology.Snapshot) ([]string, error) {
	var out []string
	for _, n := range s.Nodes {
		up, err := b.runs(ctx, n.Name)
		if errors.Is(err, netns.ErrNotExist) {
			continue // missing altogether
		}
		if err != nil {
			return nil, err
		}
		if !up {
			out = append(out, n.Name)
		}
	}
	return out, nil
}

func (b *box) missingPods(s *topology.Snapshot, h *Health) error {
	names, err := netns.Names(nsPrefix + b.lab + "-")
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, n := range names {
		have[n] = true
	}
	for _, p := range s.Pods {
		if !have[NSOfPod(b.lab, p.Key())] {
			h.Missing = append(h.Missing, p.Key())
		}
	}
	return nil
}

// ErrHasAPI reports a lab whose objects are its API server's to keep.
var ErrHasAPI = errors.New("a lab with real components has its objects from its own API server (`slipway kubectl apply`, `slipway kubectl delete`)")

// Apply merges objects into a running lab without real components.
func Apply(ctx context.Context, name string, objects *topology.Objects, p Progress) ([]topology.ObjectChange, *Result, error) {
	var changes []topology.ObjectChange
	res, err := Change(ctx, name, p, func(st *State) error {
		if st.Cluster.Spec.Components.Real() {
			return ErrHasAPI
		}
		if st.Applied == nil {
			st.Applied = &topology.Objects{}
		}
		changes = st.objects().Merge(objects)
		st.Applied.Merge(objects)
		return nil
	})
	return changes, res, err
}

// Delete removes objects from a running lab without real components, wherever they
// came from. An `up`
// with the cluster file brings back those that its manifests hold.
func Delete(ctx context.Context, name string, refs []topology.ObjectRef, p Progress) ([]topology.ObjectRef, *Result, error) {
	var gone []topology.ObjectRef
	res, err := Change(ctx, name, p, func(st *State) error {
		if st.Cluster.Spec.Components.Real() {
			return ErrHasAPI
		}
		gone = st.objects().Delete(refs...)
		for _, o := range []*topology.Objects{st.FromFile, st.Applied} {
			if o != nil {
				o.Delete(refs...)
			}
		}
		return nil
	})
	return gone, res, err
}

// Preview decides everything that `up` would decide of a cluster, without
// touching the machine.
func Preview(c *topology.Cluster, objects *topology.Objects) (*topology.Snapshot, error) {
	s, _, err := topology.Allocate(c, objects, nil)
	return s, err
}

// Mark is the environment entry by which `down` knows the processes that were
// started in the lab.
func Mark(st *State) string { return procs.MarkEnv + "=" + procMark(st.Lab, st.ID) }
