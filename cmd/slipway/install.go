package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/installer"
	"slipway/lab"
	"slipway/lab/kube"
)

func (a *app) installCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "install", Short: "Install a real Kubernetes cluster, phase by phase",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []*cobra.Command{a.planCmd(), a.rehearseCmd(), a.installApplyCmd(), a.diffCmd(), a.resetCmd(), a.verifyCmd(), a.preflightCmd(),
		a.addNodeCmd(), a.removeNodeCmd(), a.backupCmd(), a.restoreCmd(), a.certsCmd(), a.upgradeCmd(), a.installModeCmd()} {
		wrapArgs(sub)
		c.AddCommand(sub)
	}
	return c
}

// upReal brings a lab with real components up and prints what was done.
func (a *app) upReal(ctx context.Context, o kube.Options, timings, quiet bool) error {
	p := a.progress()
	builds := a.buildProgress()
	o.Progress, o.Build = p, builds.on
	res, err := kube.Up(ctx, o)
	p.clear()
	if err != nil {
		return a.halfDone(ctx, o.Cluster.Metadata.Name, err)
	}
	return a.print(res, func(w io.Writer) error { return printReal(w, res, timings, quiet) })
}

func printReal(w io.Writer, r *kube.Result, timings, quiet bool) error {
	base := *r.Result
	if err := printResult(w, &base, false, quiet); err != nil {
		return err
	}
	if timings {
		return printPhases(w, r)
	}
	return nil
}

// printPhases shows where the time went.
func printPhases(w io.Writer, r *kube.Result) error {
	rows := [][]string{{"lab", "Namespaces, underlay and nodes", "", ms(sum(r.Timings)), ""}}
	for _, ph := range r.Phases {
		rows = append(rows, []string{ph.ID, ph.Title, fmt.Sprint(ph.Changed), ms(ph.Took), slowest(ph)})
	}
	return printTable(w, []string{"PHASE", "WHAT", "CHANGED", "TOOK", "MOST OF IT"}, rows)
}

func sum(timings []lab.Timing) (all time.Duration) {
	for _, t := range timings {
		all += t.Took
	}
	return all
}

// slowest is the step that took longest, where there are several.
func slowest(ph kube.Phase) string {
	var worst kube.Step
	for _, s := range ph.Steps {
		if s.Took > worst.Took {
			worst = s
		}
	}
	if len(ph.Steps) < 2 {
		return ""
	}
	return fmt.Sprintf("%s %s", worst.Name, ms(worst.Took))
}

// stepThrough explains each step and waits for Enter before it.
func (a *app) stepThrough() func(installer.Phase, installer.Step) error {
	in := bufio.NewReader(a.in)
	told, goOn := "", false
	return func(ph installer.Phase, st installer.Step) error {
		if ph.ID != told {
			told = ph.ID
			fmt.Fprintf(a.err, "\n%s  %s\n%s\n", ph.ID, ph.Title, ph.About)
		}
		a.explain(st)
		if goOn {
			return nil
		}
		fmt.Fprint(a.err, "Enter goes on, a goes on to the end, q stops here: ")
		line, err := in.ReadString('\n')
		switch strings.TrimSpace(line) {
		case "a":
			goOn = true
		case "q":
			return &coded{exitPartial, fmt.Errorf("stopped before %s, %s", ph.ID, st.Name)}
		}
		if err == io.EOF { // nobody there to press Enter
			goOn = true
		}
		return nil
	}
}

// explain shows what a step does on each host.
func (a *app) explain(st installer.Step) {
	fmt.Fprintf(a.err, "\n  %s: %s\n", st.Name, st.Why)
	shown := map[string]bool{}
	for _, w := range st.Work {
		fmt.Fprintf(a.err, "  on %s:\n", w.Host)
		for _, it := range w.Items {
			fmt.Fprintf(a.err, "    %s\n", it.ID())
			s, ok := it.(installer.Shower)
			if !ok {
				continue
			}
			path, content, secret := s.Shown()
			if secret || shown[path+string(content)] || strings.HasSuffix(path, ".crt") {
				continue
			}
			shown[path+string(content)] = true
			fmt.Fprintf(a.err, "      | %s\n", strings.ReplaceAll(strings.TrimRight(string(content), "\n"), "\n", "\n      | "))
		}
	}
}
