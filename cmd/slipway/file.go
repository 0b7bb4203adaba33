package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"slipway/topology"
)

// loadCluster reads a cluster file ("-" is stdin) with its manifests. Warnings
// go to stderr; errors come all at once.
func (a *app) loadCluster(path string) (*topology.Cluster, *topology.Objects, error) {
	var c *topology.Cluster
	var diags topology.Diagnostics
	var err error
	dir := filepath.Dir(path)
	if path == "-" {
		dir = ""
		c, diags, err = topology.LoadReader("stdin", a.in)
	} else {
		c, diags, err = topology.Load(path)
	}
	if err != nil {
		return nil, nil, &coded{exitUsage, err}
	}
	if err := a.judge(diags); err != nil {
		return nil, nil, err
	}
	objects := &topology.Objects{}
	for _, m := range c.Spec.Manifests {
		o, err := a.loadManifests(topology.ManifestPath(dir, m))
		if err != nil {
			return nil, nil, err
		}
		objects.Merge(o)
	}
	return c, objects, nil
}

// loadManifests reads one file of Kubernetes objects ("-" is stdin).
func (a *app) loadManifests(path string) (*topology.Objects, error) {
	var data []byte
	var err error
	name := path
	if path == "-" {
		name = "stdin"
		data, err = io.ReadAll(a.in)
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, &coded{exitUsage, fmt.Errorf("read manifest: %w", err)}
	}
	objects, warnings, err := topology.LoadManifests(name, data)
	for _, w := range warnings {
		fmt.Fprintln(a.err, w.String())
	}
	if err != nil {
		return nil, &coded{exitUsage, err}
	}
	return objects, nil
}

// judge prints warnings and returns the errors.
func (a *app) judge(diags topology.Diagnostics) error {
	for _, w := range diags.Warnings() {
		fmt.Fprintln(a.err, w.String())
	}
	return diags.Err()
}

// defaultCluster is what `up` without a file makes.
func defaultCluster(name string) (*topology.Cluster, error) {
	src := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %q}\n", topology.APIVersion, topology.KindCluster, name)
	c, diags := topology.Parse("default", []byte(src))
	if err := diags.Err(); err != nil {
		return nil, &coded{exitUsage, fmt.Errorf("lab name %q: %w", name, err)}
	}
	return c, nil
}

// withMode checks and sets the mode of a cluster as --mode asks.
func withMode(c *topology.Cluster, mode string) error {
	for _, m := range topology.ModeNames() {
		if string(m) == mode {
			c.Spec.Network.Mode = m
			diags := topology.Validate(c)
			if err := diags.Err(); err != nil {
				return &coded{exitUsage, fmt.Errorf("mode %s: %w", mode, err)}
			}
			return nil
		}
	}
	return usageError("mode %q is not one of %s", mode, join(topology.ModeNames()))
}

var errBadCNI = errors.New("--cni takes in-process or exec")
