package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/components"
	"slipway/installer/images"
	"slipway/installer/pki"
	"slipway/internal/filelock"
	"slipway/lab"
	"slipway/topology"
)

// Options says what cluster to bring about.
type Options struct {
	lab.UpOptions
	// Build is told how far components are that are not in the cache yet; nil: that
	// they are missing is an error.
	Build func(components.Event)
	// Only are the phases to go through, as "04" or "04-etcd"; all, if none is named.
	Only []string
	// Before is called before each step, and may stop the installation; it may be nil.
	Before func(installer.Phase, installer.Step) error
	// Tell is told what becomes of each item; it may be nil.
	Tell func(installer.Event)
	// PKI is a directory with the certificates and keys that the cluster gets, where
	// it is rehearsed what others have; empty: the lab makes its own.
	PKI string
	// Like are the machines that the nodes stand for in a rehearsal: what else looks
	// after their networks is seen to on the nodes as well.
	Like map[string]cluster.Facts
	// Prepare is called with the lab's nodes before the first step; it may be nil.
	Prepare func(ctx context.Context, hosts map[string]installer.Host, programs map[string]installer.Blob) error

	after map[string]func(context.Context) error // by phase
}

// Result is what was done.
type Result struct {
	*lab.Result
	Phases []Phase `json:"phases"`
	// Changed is how many items on the hosts were not as wanted.
	Changed int `json:"changed"`
	// Certificates that were made, and why.
	Certificates []pki.Change `json:"certificates,omitempty"`
}

// Phase is how long a part of the installation took.
type Phase struct {
	ID      string        `json:"id"`
	Title   string        `json:"title"`
	Took    time.Duration `json:"tookNs"`
	Changed int           `json:"changed"`
	Steps   []Step        `json:"steps"`
}

// Step is a step of a phase: as long as its slowest host.
type Step struct {
	Name string        `json:"name"`
	Took time.Duration `json:"tookNs"`
}

// ErrOtherDepth reports a lab that runs with other components than are asked for.
var ErrOtherDepth = errors.New("a lab keeps the components that it was made with")

// Up brings a lab with real components about, or makes it follow: it builds
// what the cache lacks, starts the lab, and goes through the installer's phases.
// A second time nothing changes.
func Up(ctx context.Context, o Options) (*Result, error) {
	start := time.Now()
	name := o.Cluster.Metadata.Name
	if o.Progress == nil {
		o.Progress = lab.Silent{}
	}
	if os.Geteuid() != 0 { // before minutes are spent on building
		return nil, &lab.PrivilegeError{}
	}
	old, err := lab.ReadState(name)
	if err != nil && !errors.Is(err, lab.ErrNoLab) {
		return nil, err
	}
	if old != nil && old.Cluster.Spec.Components != o.Cluster.Spec.Components {
		return nil, fmt.Errorf("lab %s has `components: %s`, not %s: %w (`slipway down %s` first)", name, old.Cluster.Spec.Components, o.Cluster.Spec.Components, ErrOtherDepth, name)
	}
	if old == nil {
		if err := checkInotify(o.Cluster); err != nil {
			return nil, err
		}
	}
	programs, err := Programs(ctx, o.Cluster, o.Build)
	if err != nil {
		return nil, err
	}
	base, err := lab.Up(ctx, o.UpOptions)
	if err != nil {
		return nil, err
	}
	res := &Result{Result: base}
	if err := finish(ctx, o, programs, res); err != nil {
		if base.Created && !o.KeepFailed {
			return res, errors.Join(err, undo(ctx, name))
		}
		return res, err
	}
	st, err := lab.ReadState(name)
	if err != nil {
		return res, err
	}
	res.Took = time.Since(start)
	res.Pods, res.Services = len(st.Snapshot.Pods), len(st.Snapshot.Services)
	return res, nil
}

// undo takes a new lab that could not be finished down again.
func undo(ctx context.Context, name string) error {
	if _, err := lab.Down(context.WithoutCancel(ctx), name); err != nil {
		return fmt.Errorf("%w: %w (run `slipway down %s`)", lab.ErrCleanUp, err, name)
	}
	return nil
}

// finish installs the cluster in a lab that is up.
func finish(ctx context.Context, o Options, programs map[string]installer.Blob, res *Result) error {
	release, err := lockInstall(o.Cluster.Metadata.Name)
	if err != nil {
		return err
	}
	defer release()
	st, err := lab.ReadState(o.Cluster.Metadata.Name)
	if err != nil {
		return err
	}
	in, err := inputs(ctx, st, programs)
	if err != nil {
		return err
	}
	for name, f := range in.Facts {
		f.NetworkManager, f.Networkd = o.Like[name].NetworkManager, o.Like[name].Networkd
		in.Facts[name] = f
	}
	if o.PKI != "" {
		if err := borrow(o.PKI, in.PKI.Dir); err != nil {
			return err
		}
	}
	if res.Certificates, err = in.PKI.Ensure(cluster.Certificates(in)); err != nil {
		return err
	}
	plan, err := cluster.Plan(in, o.Only...)
	if err != nil {
		return err
	}
	if err := startKubelets(ctx, st); err != nil {
		return err
	}
	if err := (&installation{Options: o, st: st, res: res, programs: programs}).run(ctx, plan); err != nil {
		return err
	}
	if len(o.Only) > 0 {
		return nil
	}
	o.Progress.Phase("workloads", 0)
	began := time.Now()
	if err := settle(ctx, st.Lab); err != nil {
		return err
	}
	res.Phases = append(res.Phases, Phase{ID: "workloads", Title: "Workloads answer", Took: time.Since(began)})
	return nil
}

// ErrOtherAuthority reports a lab whose cluster has other authorities than those
// of what is to be rehearsed.
var ErrOtherAuthority = errors.New("the lab's cluster has authorities of its own (`slipway down` it first)")

// borrow copies certificates and keys.
func borrow(from, to string) error {
	theirs, err := os.ReadFile(filepath.Join(from, "ca.crt"))
	if err != nil {
		return fmt.Errorf("take the certificates: %w", err)
	}
	if own, err := os.ReadFile(filepath.Join(to, "ca.crt")); err == nil && !bytes.Equal(own, theirs) {
		return ErrOtherAuthority
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return replace(filepath.Join(to, rel), data)
	})
}

// inputs is what the installer's plan for a lab follows from.
func inputs(ctx context.Context, st *lab.State, programs map[string]installer.Blob) (cluster.Inputs, error) {
	in := cluster.Inputs{
		Cluster: st.Cluster, Snapshot: st.Snapshot, Programs: programs,
		PKI: &pki.Store{Dir: lab.PKIDir(st.Lab), Algorithm: pki.ECDSA, Now: time.Now},
	}
	for _, m := range st.Manifests {
		in.Manifests = append(in.Manifests, cluster.Manifest(m))
	}
	var err error
	if in.Facts, err = facts(st); err != nil {
		return in, err
	}
	if st.Cluster.Spec.Components == topology.ComponentsFull {
		in.Images, err = images.Build(ctx, "", imageNames...)
	}
	return in, err
}

// lockInstall holds off a second installation in the same lab.
func lockInstall(name string) (release func(), err error) {
	f, err := filelock.Try(filepath.Join(lab.Dir(name), "install.lock"))
	if errors.Is(err, filelock.ErrHeld) {
		err = lab.ErrBusy
	}
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", name, err)
	}
	return func() { _ = f.Close() }, nil
}
