package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"slipway/installer"
	"slipway/installer/images"
	"slipway/installer/site"
	"slipway/internal/digest"
	"slipway/lab"
	"slipway/topology"
)

// imports brings the image of this very program to nodes of clusters that Slipway
// made: no registry has it.
type imports struct{ program, ref string }

// ctr is containerd's own client, for what kubelets see.
var ctr = []string{"ctr", "--namespace", "k8s.io", "images"}

// archive writes the image where the nodes of a lab can read it, too.
func (i imports) archive() (b installer.Blob, remove func() error, err error) {
	dir, err := images.AdoptDir()
	if err != nil {
		return b, nil, err
	}
	remove = func() error { return os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	f, err := os.Create(filepath.Join(dir, "slipway.tar"))
	if err != nil {
		return b, remove, err
	}
	if err := errors.Join(images.WriteSelf(f, i.program, i.ref), f.Close()); err != nil {
		return b, remove, fmt.Errorf("write the image %s: %w", i.ref, err)
	}
	sum, size, err := digest.File(f.Name())
	return installer.Blob{Sum: sum, Size: size, Path: f.Name()}, remove, err
}

// intoLab imports on nodes of a lab, which see this machine's files.
func (i imports) intoLab(ctx context.Context, name string, nodes []string) (func(context.Context) error, error) {
	b, remove, err := i.archive()
	if err != nil {
		return nil, err
	}
	var hosts []installer.Host
	for _, n := range nodes {
		hosts = append(hosts, lab.OpenMachine(name, n))
	}
	err = i.each(ctx, hosts, func(ctx context.Context, h installer.Host) error { return i.importOn(ctx, h, b.Path) })
	return func(ctx context.Context) error { return i.removeFrom(ctx, hosts) }, errors.Join(err, remove())
}

// intoHosts imports on real hosts, which are lent the archive.
func (i imports) intoHosts(ctx context.Context, hosts []installer.Host) (func(context.Context) error, error) {
	b, remove, err := i.archive()
	if err != nil {
		return nil, err
	}
	err = i.each(ctx, hosts, func(ctx context.Context, h installer.Host) error {
		if err := installer.Lend(ctx, h, b); err != nil {
			return err
		}
		err := i.importOn(ctx, h, installer.StorePath(b.Sum))
		return errors.Join(err, installer.TakeBack(context.WithoutCancel(ctx), h, b))
	})
	return func(ctx context.Context) error { return i.removeFrom(ctx, hosts) }, errors.Join(err, remove())
}

func (i imports) importOn(ctx context.Context, h installer.Host, path string) error {
	return runOn(ctx, h, append(slices.Clone(ctr), "import", "--local", path))
}

// removeFrom takes the image away again. It is not missed where it is not.
func (i imports) removeFrom(ctx context.Context, hosts []installer.Host) error {
	return i.each(ctx, hosts, func(ctx context.Context, h installer.Host) error {
		return runOn(ctx, h, append(slices.Clone(ctr), "rm", i.ref))
	})
}

// each does something on all hosts at once.
func (i imports) each(ctx context.Context, hosts []installer.Host, do func(context.Context, installer.Host) error) error {
	var all errgroup.Group
	for _, h := range hosts {
		all.Go(func() error {
			if err := do(ctx, h); err != nil {
				return fmt.Errorf("image %s on node %s: %w", i.ref, h.Name(), err)
			}
			return nil
		})
	}
	return all.Wait()
}

// runOn runs what has to succeed.
func runOn(ctx context.Context, h installer.Host, argv []string) error {
	r, err := h.Run(ctx, installer.Command{Argv: argv})
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%s: exit code %d: %s", argv[0], r.Code, strings.TrimSpace(string(r.Stderr)))
	}
	return err
}

// imageToSite imports on the hosts of a site that are measured.
func (a *app) imageToSite(ctx context.Context, i imports, s *site.Site, o sshFlags, nodes []string) (func(context.Context) error, error) {
	only := *s.Cluster
	only.Spec.Nodes = slices.DeleteFunc(slices.Clone(only.Spec.Nodes), func(n topology.Node) bool { return !slices.Contains(nodes, n.Name) })
	byName, end, err := a.connect(ctx, &only, o)
	if err != nil {
		return nil, err
	}
	var hosts []installer.Host
	for _, n := range only.Spec.Nodes {
		hosts = append(hosts, byName[n.Name])
	}
	undo, err := i.intoHosts(ctx, hosts)
	return func(ctx context.Context) error {
		defer end()
		if undo == nil {
			return nil
		}
		return undo(ctx)
	}, err
}
