package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"slipway/installer"
	"slipway/installer/components"
	"slipway/installer/images"
	"slipway/topology"
)

// componentsOf are those that the nodes of a cluster run.
func componentsOf(c *topology.Cluster) []string {
	names := []string{"etcd", "kubernetes"}
	if c.Spec.Components == topology.ComponentsFull {
		names = append(names, "containerd", "runc", "cni-plugins")
		for _, i := range imageNames {
			names = append(names, images.Component(i))
		}
	}
	if n := c.Spec.Network; n.Implementation == topology.ImplementationUpstream {
		upstream := "flannel"
		if n.Mode.IsCalico() {
			upstream = "calico"
		}
		names = append(names, upstream)
	}
	return names
}

// imageNames are the images that the nodes of a full lab have: what CoreDNS and
// every pod's sandbox run in, and the server that stands in for what cannot be
// pulled.
var imageNames = []string{"pause", "coredns", "echo"}

// NotBuiltError says that the cache lacks components.
type NotBuiltError struct{ Names []string }

// Error names them.
func (e *NotBuiltError) Error() string {
	return fmt.Sprintf("not in the component cache: %s", strings.Join(e.Names, ", "))
}

// Programs are the programs of a cluster's components, from the cache, or the
// cluster file's own. What is
// missing there is built if build is not nil, which is told how far it is; a
// [NotBuiltError] names it otherwise. This program itself is one of them.
func Programs(ctx context.Context, c *topology.Cluster, build func(components.Event)) (map[string]installer.Blob, error) {
	names := componentsOf(c)
	built, err := find(ctx, names)
	var missing *NotBuiltError
	if errors.As(err, &missing) && build != nil {
		built, err = components.BuildAll(ctx, names, build)
	}
	if err != nil {
		return nil, err
	}
	out := map[string]installer.Blob{}
	for _, b := range built {
		for name, sum := range b.Sums {
			if out[name], err = blob(b.Path(name), strings.TrimPrefix(sum, "sha256:")); err != nil {
				return nil, err
			}
		}
	}
	if err := own(c, out); err != nil {
		return nil, err
	}
	out["slipway"], err = installer.Own()
	return out, err
}

// own puts the user's programs into the place of the catalogue's.
func own(c *topology.Cluster, into map[string]installer.Blob) error {
	for _, p := range c.Spec.Programs {
		path, err := components.Given(string(p.Name), p.File, p.SHA256)
		if err != nil {
			return err
		}
		if into[string(p.Name)], err = blob(path, p.SHA256); err != nil {
			return err
		}
	}
	return nil
}

func find(ctx context.Context, names []string) ([]*components.Built, error) {
	var built []*components.Built
	missing := &NotBuiltError{}
	for _, n := range names {
		b, err := components.Lookup(ctx, n)
		switch {
		case errors.Is(err, components.ErrNotBuilt):
			missing.Names = append(missing.Names, n)
		case err != nil:
			return nil, err
		default:
			built = append(built, b)
		}
	}
	if len(missing.Names) > 0 {
		slices.Sort(missing.Names)
		return nil, missing
	}
	return built, nil
}

func blob(path, sum string) (installer.Blob, error) {
	info, err := os.Stat(path)
	if err != nil {
		return installer.Blob{}, err
	}
	return installer.Blob{Sum: sum, Size: info.Size(), Path: path}, nil
}
