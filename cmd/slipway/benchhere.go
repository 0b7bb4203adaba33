package main

import (
	"context"
	"errors"
	"fmt"

	"slipway/lab/bench"
)

// benchHere is the running lab that --here asks for; nil without it.
func (a *app) benchHere(ctx context.Context, f *benchFlags) (*bench.Running, error) {
	if !f.here {
		return nil, nil
	}
	switch {
	case len(f.modes) > 0:
		return nil, usageError("--here measures the lab as it runs: it has no --modes (`slipway mode` switches its)")
	case f.controls:
		return nil, usageError("--here measures the lab as it runs: --controls would change its MTU and offloads")
	case f.control != "":
		return nil, usageError("--here measures one lab: there is no other for a --control")
	}
	name, err := a.labName()
	if err != nil {
		return nil, err
	}
	r, err := bench.LookAt(ctx, name)
	if errors.Is(err, bench.ErrNotMeasurable) {
		return nil, &coded{exitUsage, err}
	}
	return r, err
}

// planned says where a plan measures.
func planned(p bench.ModesPlan) string {
	if p.Here != nil {
		return fmt.Sprintf("%s in lab %s as it runs", p.Here.Name(), p.Here.Lab)
	}
	variants := fmt.Sprintf("%d variants", len(p.Variants))
	if n := len(p.All) - len(p.Variants); n > 0 {
		variants += fmt.Sprintf(" and %d to explain them", n)
	}
	return fmt.Sprintf("%s in %d labs", variants, p.Labs)
}
