package kube

import (
	"context"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/components"
	"slipway/installer/daytwo"
	"slipway/lab"
	"slipway/topology"
)

// Installed is a lab whose cluster is changed as one on real hosts is.
type Installed struct {
	daytwo.Cluster
	st      *lab.State
	build   func(components.Event)
	release func()
}

// OpenInstalled takes hold of a lab's cluster: no other installation works on it
// until it is closed. Build is as in [Options].
func OpenInstalled(ctx context.Context, name string, build func(components.Event)) (*Installed, error) {
	i := &Installed{build: build}
	var err error
	if i.release, err = lockInstall(name); err != nil {
		return nil, err
	}
	if i.st, err = lab.ReadState(name); err == nil {
		i.Inputs, err = i.inputs(ctx, i.st)
	}
	if err != nil {
		i.release()
		return nil, err
	}
	i.reach(i.st.Snapshot)
	return i, nil
}

// Close lets go of it.
func (i *Installed) Close() { i.release() }

func (i *Installed) inputs(ctx context.Context, st *lab.State) (cluster.Inputs, error) {
	programs, err := Programs(ctx, st.Cluster, i.build)
	if err != nil {
		return cluster.Inputs{}, err
	}
	return inputs(ctx, st, programs)
}

// reach adds the machines of a snapshot to the hosts.
func (i *Installed) reach(s *topology.Snapshot) {
	if i.Hosts == nil {
		i.Hosts = map[string]installer.Host{}
	}
	for _, n := range s.Nodes {
		i.Hosts[n.Name] = lab.OpenMachine(i.st.Lab, n.Name)
	}
}

// With are the inputs of the lab with another cluster file: nodes that are gone
// from it have their machines still.
func (i *Installed) With(c *topology.Cluster) (cluster.Inputs, error) {
	to := i.Inputs
	to.Cluster = c
	var err error
	to.Snapshot, _, err = topology.Allocate(c, &topology.Objects{}, i.st.Allocation)
	return to, err
}

// Follow makes the lab's machines those of a cluster file, and returns the inputs.
func (i *Installed) Follow(ctx context.Context, c *topology.Cluster, p lab.Progress) (cluster.Inputs, error) {
	if _, err := lab.Up(ctx, lab.UpOptions{Cluster: c, Objects: i.st.FromFile, Manifests: i.st.Manifests, Progress: p, KeepFailed: true}); err != nil {
		return cluster.Inputs{}, err
	}
	st, err := lab.ReadState(i.st.Lab)
	if err != nil {
		return cluster.Inputs{}, err
	}
	i.st = st
	i.reach(st.Snapshot)
	return i.inputs(ctx, st)
}
