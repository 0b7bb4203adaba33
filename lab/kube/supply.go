package kube

import (
	"context"
	"fmt"
	"strings"

	"slipway/installer"
	"slipway/installer/components"
	"slipway/installer/images"
	"slipway/topology"
)

// Supply are the programs and the images of a cluster's nodes: what [Programs]
// says, and archives by the images' full names.
func Supply(ctx context.Context, c *topology.Cluster, build func(components.Event)) (programs, archives map[string]installer.Blob, err error) {
	if programs, err = Programs(ctx, c, build); err != nil {
		return nil, nil, err
	}
	if c.Spec.Components == topology.ComponentsFull {
		archives, err = images.Build(ctx, "", imageNames...)
	}
	return programs, archives, err
}

// Versions are those of a cluster's programs, by their sums: "containerd v2.2.9".
// Components that are not in the cache have none.
func Versions(ctx context.Context, c *topology.Cluster) map[string]string {
	out := map[string]string{}
	for _, name := range componentsOf(c) {
		b, err := components.Lookup(ctx, name)
		if err != nil {
			continue
		}
		for _, sum := range b.Sums {
			out[strings.TrimPrefix(sum, "sha256:")] = name + " " + b.Version
		}
	}
	for _, p := range c.Spec.Programs {
		out[p.SHA256] = fmt.Sprintf("%s from %s", p.Name, p.File)
	}
	return out
}
