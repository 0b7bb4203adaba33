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
		st, err := ReadState(n)
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
	Drift    datapath.Diff      `json:"drift"`
	Snapshot *topology.Snapshot `json:"-"`
}

// OK reports whether nothing is wrong.
func (h *Health) OK() bool {
	return h.State == StateUp && len(h.Drift) == 0 && len(h.Missing) == 0 && (h.Daemon == nil || daemonOK(h.Daemon))
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
	st, err := ReadState(name)
	if err != nil {
		return nil, err
	}
	b, err := openExisting(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
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
	for _, cfg := range p.all() {
		diff, err := b.auditNode(ctx, cfg)
		if errors.Is(err, netns.ErrNotExist) {
			h.Missing = append(h.Missing, cfg.Node)
			continue
		}
		if err != nil {
			return nil, err
		}
		h.Drift = append(h.Drift, diff...)
	}
	return h, b.missingPods(st.Snapshot, h)
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

// Apply merges objects into a running lab.
func Apply(ctx context.Context, name string, objects *topology.Objects, p Progress) ([]topology.ObjectChange, *Result, error) {
	var changes []topology.ObjectChange
	res, err := Change(ctx, name, p, func(st *State) error {
		if st.Applied == nil {
			st.Applied = &topology.Objects{}
		}
		changes = st.objects().Merge(objects)
		st.Applied.Merge(objects)
		return nil
	})
	return changes, res, err
}

// Delete removes objects from a running lab, wherever they came from. An `up`
// with the cluster file brings back those that its manifests hold.
func Delete(ctx context.Context, name string, refs []topology.ObjectRef, p Progress) ([]topology.ObjectRef, *Result, error) {
	var gone []topology.ObjectRef
	res, err := Change(ctx, name, p, func(st *State) error {
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
