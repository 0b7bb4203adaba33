package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"slipway/lab"
	"slipway/topology"
)

func (a *app) applyCmd() *cobra.Command {
	var files []string
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Bring Kubernetes objects into a running lab",
		Long: `Bring the objects of plain Kubernetes manifests into a running lab: pods appear
and answer on their declared ports, services get their rules on every node. In a lab
with real components they go to the API, by kubectl, whatever their kind.`,
		Example: "  slipway apply -f examples/nginx.yaml\n  kubectl create deployment web --image=nginx --port=80 --dry-run=client -o yaml | slipway apply -f -",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if real, err := a.toAPI(cmd.Context(), "apply", files); real || err != nil {
				return err
			}
			name, objects, err := a.nameAndObjects(files)
			if err != nil {
				return err
			}
			p := a.progress()
			changes, res, err := lab.Apply(cmd.Context(), name, objects, p)
			p.clear()
			if err != nil {
				return a.halfDone(cmd.Context(), name, err)
			}
			return a.print(map[string]any{"objects": changes, "result": res}, func(w io.Writer) error {
				for _, c := range changes {
					fmt.Fprintf(w, "%s %s\n", c.ObjectRef, c.Action)
				}
				return nil
			})
		},
	}
	c.Flags().StringSliceVarP(&files, "file", "f", nil, "manifest; - reads stdin; may be repeated")
	_ = c.MarkFlagRequired("file")
	return c
}

func (a *app) deleteCmd() *cobra.Command {
	var files []string
	c := &cobra.Command{
		Use: "delete -f FILE", Short: "Take Kubernetes objects out of a running lab",
		Example: "  slipway delete -f examples/nginx.yaml", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if real, err := a.toAPI(cmd.Context(), "delete", files); real || err != nil {
				return err
			}
			name, objects, err := a.nameAndObjects(files)
			if err != nil {
				return err
			}
			p := a.progress()
			gone, res, err := lab.Delete(cmd.Context(), name, objects.Refs(), p)
			p.clear()
			if err != nil {
				return a.halfDone(cmd.Context(), name, err)
			}
			return a.print(map[string]any{"deleted": gone, "result": res}, func(w io.Writer) error {
				deleted := map[topology.ObjectRef]bool{}
				for _, r := range gone {
					deleted[r] = true
				}
				for _, r := range objects.Refs() {
					if deleted[r] {
						fmt.Fprintf(w, "%s deleted\n", r)
					} else {
						fmt.Fprintf(w, "%s not found\n", r)
					}
				}
				return nil
			})
		},
	}
	c.Flags().StringSliceVarP(&files, "file", "f", nil, "manifest; - reads stdin; may be repeated")
	_ = c.MarkFlagRequired("file")
	return c
}

func (a *app) nameAndObjects(files []string) (string, *topology.Objects, error) {
	name, err := a.labName()
	if err != nil {
		return "", nil, err
	}
	all := &topology.Objects{}
	for _, f := range files {
		o, err := a.loadManifests(f)
		if err != nil {
			return "", nil, err
		}
		all.Merge(o)
	}
	if len(all.Refs()) == 0 {
		return "", nil, usageError("no object in %v", files)
	}
	return name, all, nil
}

// toAPI hands files to kubectl if the lab has an API, and reports whether it has.
func (a *app) toAPI(ctx context.Context, verb string, files []string) (real bool, err error) {
	name, err := a.labName()
	if err != nil {
		return false, err
	}
	st, err := lab.ReadState(name)
	if err != nil || !isReal(st.Cluster) {
		return false, err
	}
	args := []string{verb}
	for _, f := range files {
		args = append(args, "-f", f)
	}
	if a.output != "table" {
		args = append(args, "-o", a.output)
	}
	a.lab = name
	return true, a.kubectl(ctx, args)
}
