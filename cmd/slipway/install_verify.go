package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"slipway/installer"
	"slipway/installer/components"
	"slipway/installer/images"
	reach "slipway/installer/verify"
	"slipway/lab/kube"
	"slipway/topology"
)

// verifyFlags say which cluster, and how.
type verifyFlags struct {
	siteFlags
	kubeconfig, context, image string
	patience                   time.Duration
}

func (a *app) verifyCmd() *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use: "verify", Short: "Can everything in a cluster reach what it should?",
		Long: `Put a server on every node, and ask each of them from pods, from nodes and from
outside, by the address of its pod, its ClusterIP, its name at a headless service, its
NodePort and its name in DNS: on the same node and on others. The answer is a table,
what failed and why, and exit code 1 if anything did. It takes less than a minute and
leaves nothing: its namespace, slipway-verify-..., is removed also after Ctrl-C.

The cluster is that of a lab (-L), one on real hosts (-f or --site; kubectl runs on a
master), or with --kubeconfig any. Outside is this machine; where a kubeconfig leads to a
lab, the lab's own. The image with the echo program is one that Slipway's clusters have;
for others 'slipway components image echo' writes it.`,
		Example: `  slipway install verify -L demo
  slipway install verify -f cluster.yaml
  slipway install verify -o json | jq '.cells[] | select(.ok | not)'
  slipway install verify --kubeconfig ~/.kube/config --image registry.example/echo:v1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.verify(cmd.Context(), &f) },
	}
	f.add(c, false)
	fl := c.Flags()
	fl.StringVar(&f.kubeconfig, "kubeconfig", "", "verify the cluster of this kubeconfig instead of a lab's")
	fl.StringVar(&f.context, "context", "", "the kubeconfig's context; default its current one")
	fl.StringVar(&f.image, "image", "", "image with the echo program (default: Slipway's own, which its clusters have)")
	fl.DurationVar(&f.patience, "patience", 15*time.Second, "how long what fails is tried again")
	return c
}

func (a *app) verify(ctx context.Context, f *verifyFlags) error {
	if f.patience <= 0 {
		return usageError("--patience is more than zero")
	}
	o, end, err := a.verification(ctx, f)
	if err != nil {
		return err
	}
	defer end()
	if f.image != "" {
		o.Image = f.image
	}
	o.Patience = f.patience
	o.Tell = func(what string) { fmt.Fprintf(a.err, "slipway: %s\n", what) }
	r, err := reach.Run(ctx, o)
	if r == nil {
		return err
	}
	if err := errors.Join(a.print(r, func(w io.Writer) error { return printVerified(w, r) }), err); err != nil {
		return err
	}
	if r.NoImage() {
		fmt.Fprintln(a.err, "hint: "+echoHint)
	}
	if !r.OK {
		return &silentError{exitNo}
	}
	return nil
}

// echoHint says how a cluster that is not Slipway's gets the image.
const echoHint = "`slipway components image echo -w echo.tar` writes the image; push it to a registry that the nodes reach and name it by --image, or import it on the nodes"

// verification is the cluster that the flags mean, and what to call when done.
func (a *app) verification(ctx context.Context, f *verifyFlags) (o reach.Options, end func(), err error) {
	end = func() {}
	onSite := f.file != "" || f.site != ""
	switch {
	case f.kubeconfig != "" && onSite:
		return o, end, usageError("--kubeconfig goes with neither -f nor --site")
	case f.context != "" && f.kubeconfig == "":
		return o, end, usageError("--context goes with --kubeconfig")
	case f.kubeconfig != "":
		o, err = a.verifyKubeconfig(ctx, f)
		return o, end, err
	case !onSite:
		name, err := a.realLab()
		if err != nil {
			return o, end, err
		}
		o, err = kube.Verification(ctx, name)
		return o, end, err
	}
	echo, err := components.Lookup(ctx, "echo")
	if err != nil {
		return o, end, err
	}
	if o.Image, err = images.Ref("echo"); err != nil {
		return o, end, err
	}
	o.Outside = reach.FromHere(echo.Path("echo"))
	o.Kubectl, end, err = a.masters(ctx, f.siteFlags)
	return o, end, err
}

// verifyKubeconfig is the cluster of a kubeconfig. That of a lab has an outside of its
// own, which no other machine stands for: its nodes' addresses are the lab's alone.
func (a *app) verifyKubeconfig(ctx context.Context, f *verifyFlags) (o reach.Options, err error) {
	_, config, err := readKubeconfig(f.kubeconfig, f.context)
	if err != nil {
		return o, err
	}
	kubectl, err := findKubectl(ctx)
	if err != nil {
		return o, err
	}
	if name, _ := labOf(config); name != "" {
		o, err = kube.Verification(ctx, name)
		o.Kubectl = reach.Here(kubectl, f.kubeconfig, f.context)
		return o, err
	}
	o.Kubectl = reach.Here(kubectl, f.kubeconfig, f.context)
	if o.Image, err = images.Ref("echo"); err != nil {
		return o, err
	}
	echo, err := components.Lookup(ctx, "echo")
	if err != nil { // from pods and nodes it is asked all the same
		fmt.Fprintf(a.err, "slipway: nothing is asked from outside, as this machine lacks the program for it (`slipway components build echo`): %v\n", err)
		return o, nil
	}
	o.Outside = reach.FromHere(echo.Path("echo"))
	return o, nil
}

// findKubectl is the catalogue's kubectl, or this machine's.
func findKubectl(ctx context.Context) (string, error) {
	built, err := components.Lookup(ctx, "kubernetes")
	if err == nil {
		return built.Path("kubectl"), nil
	}
	if path, e := exec.LookPath("kubectl"); e == nil {
		return path, nil
	}
	return "", err
}

// masters connects to a site's masters alone: whether others answer is what is to
// be found out.
func (a *app) masters(ctx context.Context, f siteFlags) (reach.Kubectl, func(), error) {
	s, err := a.readSite(f)
	if err != nil {
		return nil, func() {}, err
	}
	only := *s.Cluster
	only.Spec.Nodes = slices.DeleteFunc(slices.Clone(only.Spec.Nodes), func(n topology.Node) bool {
		return !slices.Contains(n.Roles, topology.RoleControlPlane)
	})
	hosts, end, err := a.connect(ctx, &only, f.ssh)
	if err != nil {
		return nil, func() {}, err
	}
	var list []installer.Host
	for _, n := range only.Spec.Nodes {
		list = append(list, hosts[n.Name])
	}
	return reach.OnMasters(list), end, nil
}

// shownFailures is how many are listed one by one.
const shownFailures = 40

// printVerified draws the matrix, and lists what is not open.
func printVerified(w io.Writer, r *reach.Report) error {
	head := []string{"FROM", "SERVER ON"}
	for _, to := range reach.Targets {
		head = append(head, string(to))
	}
	var rows [][]string
	for _, from := range reach.Sources {
		for _, same := range []bool{true, false} {
			row := []string{string(from), map[bool]string{true: "the same node", false: "another node"}[same]}
			for _, to := range reach.Targets {
				row = append(row, r.Square(from, to, same).String())
			}
			rows = append(rows, row)
		}
	}
	if err := printTable(w, head, rows); err != nil {
		return err
	}
	failed := r.Failed()
	for i, c := range failed {
		if i == shownFailures {
			fmt.Fprintf(w, "… and %d more (-o json has all)\n", len(failed)-i)
			break
		}
		fmt.Fprintf(w, "✗ %s: %s\n", c, c.Reason)
	}
	_, err := fmt.Fprintf(w, "%d of %d ways open, %s, %s\n", len(r.Cells)-len(failed), len(r.Cells), plural(len(r.Nodes), "node"), ms(r.Took))
	return err
}
