package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"slipway/internal/ordered"
	"slipway/lab"
	"slipway/lab/kube"
	"slipway/topology"
)

func (a *app) modeCmd() *cobra.Command {
	var names []string
	for _, m := range topology.ModeNames() {
		names = append(names, string(m))
	}
	return &cobra.Command{
		Use: "mode MODE", Short: "Switch the datapath of a running lab and measure the gap",
		Long: `Switch the datapath of a running lab. While it goes on, a pod keeps opening TCP
connections to a service, so that the gap is measured and not guessed; afterwards
every node is read back, so that nothing of the old mode stays behind unseen.
Pods keep their namespaces; between flannel and calico modes they get new
addresses, because the two hand them out differently. With components: full every pod's
sandbox is made again, as containers' attachments are of one mode.`,
		Example:   "  slipway mode calico-bgp\n  slipway mode flannel-host-gw -o json",
		ValidArgs: names, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.labName()
			if err != nil {
				return err
			}
			mode := topology.ModeName(args[0])
			known := false
			for _, m := range topology.ModeNames() {
				known = known || m == mode
			}
			if !known {
				return usageError("mode %q is not one of %s", mode, join(topology.ModeNames()))
			}
			res, err := a.switchMode(cmd.Context(), name, mode)
			if err != nil {
				return a.halfDone(cmd.Context(), name, err)
			}
			if err := a.print(res, func(w io.Writer) error { return printMode(w, res) }); err != nil {
				return err
			}
			if len(res.Leftovers) > 0 {
				return &silentError{exitNo}
			}
			return nil
		},
	}
}

// switchMode switches a lab, by the installer too where components are real.
func (a *app) switchMode(ctx context.Context, name string, mode topology.ModeName) (*kube.ModeResult, error) {
	st, err := lab.ReadState(name)
	if err != nil {
		return nil, err
	}
	p := a.progress()
	defer p.clear()
	if isReal(st.Cluster) {
		o := kube.Options{Build: a.buildProgress().on}
		o.Progress = p
		return kube.SwitchMode(ctx, o, name, mode)
	}
	res, err := lab.SwitchMode(ctx, name, mode, p, nil)
	return &kube.ModeResult{ModeResult: res}, err
}

func printMode(w io.Writer, r *kube.ModeResult) error {
	fmt.Fprintf(w, "lab %s: %s → %s, %s in %s\n", r.Lab, r.From, r.Mode, plural(len(r.Changes), "change"), ms(r.Took))
	for _, ph := range r.Phases {
		if ph.Changed > 0 {
			fmt.Fprintf(w, "  %s: %s on the nodes in %s\n", ph.ID, plural(ph.Changed, "item"), ms(ph.Took))
		}
	}
	for _, k := range ordered.Keys(r.Implementations) {
		fmt.Fprintf(w, "  %s: %s\n", k, r.Implementations[k])
	}
	if v := r.Window; v != nil {
		fmt.Fprintf(w, "  gap %s: %d of %d connections lost, %s → %s, one every %s\n", ms(v.Gap), v.Lost, v.Attempts, v.From, v.To, ms(v.Every))
	}
	if len(r.Leftovers) == 0 {
		fmt.Fprintln(w, "  every node was read back: nothing of the old mode is left")
	}
	for _, c := range r.Leftovers {
		fmt.Fprintf(w, "  left over: %-7s %-12s %s\n", c.Action, c.Node, c.Command)
	}
	return nil
}
