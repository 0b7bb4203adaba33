package kube

import (
	"context"
	"fmt"
	"time"

	"slipway/lab"
	"slipway/topology"
)

// ModeResult is what switching the mode of a lab with real components did.
type ModeResult struct {
	*lab.ModeResult
	Phases []Phase `json:"phases,omitempty"`
}

// SwitchMode moves a lab with real components to another datapath mode: the
// lab's own part, then the installer's phases, by which controllers and agents
// learn of it. In a full lab every pod's sandbox is made again, as its old
// attachment is of the old mode: pods keep their names and get new addresses.
func SwitchMode(ctx context.Context, o Options, name string, mode topology.ModeName) (*ModeResult, error) {
	began, res := time.Now(), &ModeResult{}
	var err error
	res.ModeResult, err = lab.SwitchMode(ctx, name, mode, o.Progress, func() error {
		st, err := lab.ReadState(name)
		if err != nil {
			return err
		}
		o.Cluster = st.Cluster
		programs, err := Programs(ctx, st.Cluster, o.Build)
		if err != nil {
			return err
		}
		in := &Result{Result: &lab.Result{}}
		if st.Cluster.Spec.Components == topology.ComponentsFull {
			o.after = map[string]func(context.Context) error{"09-network": func(ctx context.Context) error { return newSandboxes(ctx, st) }}
		}
		err = finish(ctx, o, programs, in)
		res.Phases = in.Phases
		return err
	})
	if res.ModeResult != nil && res.Result != nil {
		res.Took = time.Since(began)
	}
	return res, err
}

// endSandboxes ends every sandbox of a node's: kubelet makes new ones.
const endSandboxes = `ctr -n k8s.io containers ls -q 'labels."io.cri-containerd.kind"==sandbox' | while read -r id; do ctr -n k8s.io tasks kill -s SIGKILL "$id" 2>/dev/null || true; done`

func newSandboxes(ctx context.Context, st *lab.State) error {
	for _, n := range st.Snapshot.Nodes {
		if !n.InDatapath() {
			continue
		}
		r, err := lab.OpenMachine(st.Lab, n.Name).Client().Run(ctx, []string{"sh", "-c", endSandboxes}, nil)
		if err == nil && r.Code != 0 {
			err = fmt.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
		if err != nil {
			return fmt.Errorf("end the sandboxes of %s: %w", n.Name, err)
		}
	}
	return nil
}
