package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"slipway/lab"
	"slipway/topology"
)

// loadCluster reads a cluster file ("-" is stdin) with its manifests. Warnings
// go to stderr; errors come all at once.
func (a *app) loadCluster(path string) (*topology.Cluster, *topology.Objects, error) {
	c, err := a.readCluster(path)
	if err != nil {
		return nil, nil, err
	}
	objects, err := a.loadObjects(path, c)
	return c, objects, err
}

// loadObjects reads the objects of a cluster file's manifests.
func (a *app) loadObjects(path string, c *topology.Cluster) (*topology.Objects, error) {
	objects := &topology.Objects{}
	for _, m := range c.Spec.Manifests {
		o, err := a.loadManifests(manifestPath(path, m))
		if err != nil {
			return nil, err
		}
		objects.Merge(o)
	}
	return objects, nil
}

// loadFiles reads the manifests of a cluster file as they are: an API knows more
// kinds of objects than a lab without one.
func (a *app) loadFiles(path string, c *topology.Cluster) ([]lab.Manifest, error) {
	var out []lab.Manifest
	for _, m := range c.Spec.Manifests {
		data, err := os.ReadFile(manifestPath(path, m))
		if err != nil {
			return nil, &coded{exitUsage, fmt.Errorf("read manifest: %w", err)}
		}
		data, old, err := topology.Modernize(data)
		if err != nil {
			return nil, &coded{exitUsage, fmt.Errorf("manifest %s: %w", m, err)}
		}
		for _, ref := range old {
			fmt.Fprintf(a.err, "%s: warning: %s is of an API version that is no longer served by Kubernetes; given to the API as apps/v1\n", m, ref)
		}
		out = append(out, lab.Manifest{Name: m, Data: data})
	}
	return out, nil
}

// manifestPath is where a manifest lies that a cluster file names.
func manifestPath(file, manifest string) string {
	if file == "-" {
		return topology.ManifestPath("", manifest)
	}
	return topology.ManifestPath(filepath.Dir(file), manifest)
}

func (a *app) readCluster(path string) (c *topology.Cluster, err error) {
	var diags topology.Diagnostics
	if path == "-" {
		c, diags, err = topology.LoadReader("stdin", a.in)
	} else {
		c, diags, err = topology.Load(path)
	}
	if err != nil {
		return nil, &coded{exitUsage, err}
	}
	return c, a.judge(diags)
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
