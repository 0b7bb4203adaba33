package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"slipway/installer/images"
	"slipway/installer/pki"
	"slipway/installer/site"
	"slipway/lab"
	"slipway/lab/bench"
	"slipway/lab/bench/kubejobs"
	"slipway/lab/bench/load"
	"slipway/topology"
)

// kubeFlags are those of a bench in a cluster that is reached by a kubeconfig.
type kubeFlags struct {
	file, context, namespace, image string
	nodes                           []string
	hostPort                        uint16
	ssh                             sshFlags
}

// The API's bounds: of one request, and of how many a second are sent.
const (
	requestTimeout = 30 * time.Second
	requestRate    = 50
)

func (f *kubeFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.file, "kubeconfig", "", "in the cluster of this kubeconfig, whatever it is, by Jobs")
	fl.StringVar(&f.context, "context", "", "the kubeconfig's context; default its current one")
	fl.StringVar(&f.namespace, "namespace", "slipway-bench", "of the Jobs: it is made, and removed again")
	fl.StringSliceVar(&f.nodes, "nodes", nil, "the client's and the server's node; default the first two that take pods")
	fl.StringVar(&f.image, "image", "", "an image whose entry point is this program; default Slipway's own, which its clusters are given")
	fl.Uint16Var(&f.hostPort, "host-port", 28990, "this port and the next are the control's on the server's node")
	f.ssh.add(fl)
}

// only are the flags that mean nothing without --kubeconfig.
var kubeOnly = []string{"context", "namespace", "nodes", "image", "host-port"}

// check refuses flags that do not go together.
func (f *benchFlags) checkKube(given func(string) bool) error {
	if f.kube.file == "" {
		for _, name := range kubeOnly {
			if given(name) {
				return usageError("--%s goes with --kubeconfig", name)
			}
		}
		return nil
	}
	switch {
	case f.here:
		return usageError("--kubeconfig measures in any cluster, --here in a lab: one of them")
	case len(f.modes) > 0, f.control != "", f.controls:
		return usageError("--kubeconfig measures a cluster as it is: it has no --modes, --control and --controls")
	case f.tool != toolSlipway:
		return usageError("--kubeconfig measures with the generator of its own, and not --tool %s", f.tool)
	case f.kube.hostPort == 0 || f.kube.hostPort == 1<<16-1:
		return usageError("--host-port is 1 to %d", 1<<16-2)
	}
	return nil
}

// benchKube measures in the cluster of a kubeconfig.
func (a *app) benchKube(cmd *cobra.Command, f *benchFlags) error {
	p, err := f.planKube(cmd.Flags().Changed)
	if err != nil {
		return err
	}
	o := kubejobs.Options{Plan: p, Namespace: f.kube.namespace, Nodes: f.kube.nodes, HostPort: f.kube.hostPort, Owner: owner()}
	config, err := f.kube.open(&o)
	if err != nil {
		return err
	}
	if err := a.benchImage(cmd.Context(), f.kube, config, &o); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "plan: %s at %s: %s\n", o.Name, o.Host, p)
	progress := a.progress()
	o.Progress = progress
	r, err := kubejobs.Run(cmd.Context(), o)
	progress.clear()
	err = kubeError(err)
	if r == nil || len(r.Series) == 0 {
		return err
	}
	return errors.Join(err, a.keepReport(r, f.save), a.writeReport(r, f.file))
}

// kubeError gives errors their exit codes.
func kubeError(err error) error {
	var forbidden *kubejobs.ForbiddenError
	var image *kubejobs.ImageError
	switch {
	case errors.As(err, &forbidden), errors.As(err, &image):
		return &coded{exitMissing, err}
	case errors.Is(err, kubejobs.ErrNodes), errors.Is(err, kubejobs.ErrForeign):
		return &coded{exitUsage, err}
	}
	return err
}

// planKube checks the flags and decides what will be done.
func (f *benchFlags) planKube(given func(string) bool) (kubejobs.Plan, error) {
	if f.quick {
		f.quicken(given)
	}
	o := bench.ModesOptions{
		Workloads: f.workloads, Paths: f.paths, Targets: f.targets, Streams: f.streams,
		Rounds: f.rounds, MaxRounds: max(f.rounds, f.maxRounds), Duration: f.duration, WarmUp: f.warmUp, Budget: f.budget,
		Seed: 1, Version: version(), Generator: toolSlipway,
	}
	if len(o.Workloads) == 0 {
		o.Workloads = bench.Workloads()
	} else if slices.Contains(o.Workloads, load.Idle) {
		return kubejobs.Plan{}, usageError("a cluster's %s is not measured: whose it is cannot be told", load.Idle)
	}
	if err := f.check(o); err != nil {
		return kubejobs.Plan{}, err
	}
	for _, of := range []struct {
		what       string
		given, has []string
	}{{"paths", o.Paths, kubejobs.Paths()}, {"targets", o.Targets, kubejobs.Targets()}} {
		for _, name := range of.given {
			if !slices.Contains(of.has, name) {
				return kubejobs.Plan{}, usageError("with --kubeconfig, --%s are %s", of.what, strings.Join(of.has, ", "))
			}
		}
	}
	p := kubejobs.Decide(o)
	switch {
	case len(p.Cases) == 0:
		return p, usageError("nothing is left to measure")
	case p.Budget > 0 && p.Least() > p.Budget:
		return p, usageError("one round of this takes about %s, more than the --budget of %s", p.Least().Round(time.Second), p.Budget)
	}
	return p, nil
}

// open reads the kubeconfig. Nothing is asked yet.
func (f kubeFlags) open(o *kubejobs.Options) (*rest.Config, error) {
	name, config, err := readKubeconfig(f.file, f.context)
	if err != nil {
		return nil, err
	}
	o.Name = name
	o.Host = config.Host
	config.UserAgent, config.QPS, config.Burst = "slipway", requestRate, 2*requestRate
	if o.Logs, err = kubernetes.NewForConfig(config); err != nil {
		return nil, usageError("--kubeconfig %s: %w", f.file, err)
	}
	bounded := rest.CopyConfig(config)
	bounded.Timeout = requestTimeout
	o.API, err = kubernetes.NewForConfig(bounded)
	return config, err
}

// readKubeconfig reads a context of a kubeconfig, its current one if none is named.
func readKubeconfig(file, name string) (string, *rest.Config, error) {
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: file}, &clientcmd.ConfigOverrides{CurrentContext: name})
	raw, err := loader.RawConfig()
	if err != nil {
		return "", nil, usageError("--kubeconfig %s: %w", file, err)
	}
	config, err := loader.ClientConfig()
	if err != nil {
		return "", nil, usageError("--kubeconfig %s: %w", file, err)
	}
	return cmp.Or(name, raw.CurrentContext), config, nil
}

// owner is who another one finds at work.
func owner() string {
	host, _ := os.Hostname()
	name := fmt.Sprint(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return fmt.Sprintf("%s@%s, process %d", name, host, os.Getpid())
}

// benchImage decides on the image, and how nodes of our own clusters get it.
func (a *app) benchImage(ctx context.Context, f kubeFlags, config *rest.Config, o *kubejobs.Options) error {
	if o.Image = f.image; o.Image != "" {
		return nil
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if o.Image, err = images.SelfRef(program); err != nil {
		return err
	}
	i := imports{program: program, ref: o.Image}
	if name, st := labOf(config); name != "" {
		if st.Cluster.Spec.Components != topology.ComponentsFull {
			return usageError("lab %s runs no containers (`components: %s`): `slipway bench --here` measures in it", name, st.Cluster.Spec.Components)
		}
		o.Import = func(ctx context.Context, nodes []string) (func(context.Context) error, error) {
			return i.intoLab(ctx, name, nodes)
		}
		return nil
	}
	if s := siteOf(config); s != nil {
		o.Import = func(ctx context.Context, nodes []string) (func(context.Context) error, error) {
			return a.imageToSite(ctx, i, s, f.ssh, nodes)
		}
	}
	return nil
}

// labOf is the lab whose API a kubeconfig leads to: whose authority it trusts.
func labOf(config *rest.Config) (string, *lab.State) {
	names, err := lab.Names()
	if err != nil {
		return "", nil
	}
	for _, name := range names {
		st, err := lab.ReadState(name)
		if err != nil || st.Cluster == nil || !isReal(st.Cluster) {
			continue
		}
		ca, err := (&pki.Store{Dir: lab.PKIDir(name)}).File(pki.KubernetesCA + ".crt")
		if err == nil && trusts(config, ca) {
			return name, st
		}
	}
	return "", nil
}

// siteOf is the site whose API a kubeconfig leads to.
func siteOf(config *rest.Config) *site.Site {
	names, err := site.Names()
	if err != nil {
		return nil
	}
	for _, name := range names {
		s, err := site.Load(name)
		if err != nil {
			continue
		}
		if ca, err := s.PKI().File(pki.KubernetesCA + ".crt"); err == nil && trusts(config, ca) {
			return s
		}
	}
	return nil
}

// trusts reports whether a kubeconfig trusts just this authority.
func trusts(config *rest.Config, ca []byte) bool {
	have := config.CAData
	if len(have) == 0 && config.CAFile != "" {
		have, _ = os.ReadFile(config.CAFile)
	}
	return len(ca) > 0 && bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(ca))
}
