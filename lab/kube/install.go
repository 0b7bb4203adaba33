package kube

import (
	"context"
	"time"

	"slipway/installer"
	"slipway/lab"
)

// installation is a plan on its way through a lab's nodes.
type installation struct {
	Options
	st       *lab.State
	res      *Result
	programs map[string]installer.Blob
}

func (i *installation) run(ctx context.Context, plan installer.Plan) error {
	hosts := map[string]installer.Host{}
	for _, n := range i.st.Snapshot.Nodes {
		hosts[n.Name] = lab.OpenMachine(i.st.Lab, n.Name)
	}
	if i.Prepare != nil {
		if err := i.Prepare(ctx, hosts, i.programs); err != nil {
			return err
		}
	}
	e := &installer.Engine{Hosts: hosts, Tell: i.told}
	for _, ph := range plan.Phases {
		i.res.Phases = append(i.res.Phases, Phase{ID: ph.ID, Title: ph.Title})
		now := &i.res.Phases[len(i.res.Phases)-1]
		for _, st := range ph.Steps {
			if i.Before != nil {
				if err := i.Before(ph, st); err != nil {
					return err
				}
			}
			i.Progress.Phase(ph.ID+": "+st.Name, len(st.Work))
			began := time.Now()
			err := e.Step(ctx, ph, st)
			took := time.Since(began)
			now.Steps = append(now.Steps, Step{Name: st.Name, Took: took})
			now.Took += took
			if err != nil {
				return err
			}
		}
		if then := i.after[ph.ID]; then != nil {
			if err := then(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// told counts what an item was and hands it on.
func (i *installation) told(e installer.Event) {
	now := &i.res.Phases[len(i.res.Phases)-1]
	switch {
	case e.Item == "":
		i.Progress.Step()
	case e.Changed:
		now.Changed++
		i.res.Changed++
	}
	if i.Tell != nil {
		i.Tell(e)
	}
}
