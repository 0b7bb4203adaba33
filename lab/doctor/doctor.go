// Package doctor finds out what this kernel and box can do, feature by feature,
// and what each gap means for labs. Every feature is really tried, in a scratch
// namespace that ends with the probe; the root namespace is never touched, and
// no probe loads a kernel module that would put devices or sysctls into it.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Group is a heading that findings stand under.
type Group string

// The groups, in the order in which they are reported.
const (
	Privilege Group = "privilege"
	Kernel    Group = "kernel"
	Tools     Group = "tools"
	Resources Group = "resources"
)

// Status says how a feature was found.
type Status string

// The states of a feature.
const (
	OK       Status = "ok"
	Missing  Status = "missing"
	Degraded Status = "degraded" // there, but less than it should be
	Unknown  Status = "unknown"  // could not be tried; never taken for ok
)

// Finding is what was found about one feature.
type Finding struct {
	Name   string `json:"name"`
	Group  Group  `json:"group"`
	Status Status `json:"status"`
	// Detail is what was seen: a version, a limit, the kernel's answer.
	Detail string `json:"detail,omitempty"`
	// Means says what the gap means for a user; empty if there is none.
	Means string `json:"means,omitempty"`
	// Hint says what to do about the gap; empty if there is none, or nothing to do.
	Hint string `json:"hint,omitempty"`
	// Required says that no lab comes up without the feature.
	Required bool `json:"required"`
}

// check is one feature to look at. probe returns what it saw; an error makes
// the feature missing, or with [lessError] degraded.
type check struct {
	name     string
	group    Group
	required bool
	needsNS  bool // cannot be tried without a scratch namespace
	means    string
	hint     string
	probe    func(context.Context, *scratch) (detail string, err error)
}

// lessError says that a feature is there but not as it should be.
type lessError struct{ why string }

// Error is the reason.
func (e *lessError) Error() string { return e.why }

// errUnseen makes a feature unknown: there was no permission to look.
var errUnseen = errors.New("could not be looked at")

func less(format string, args ...any) error { return &lessError{fmt.Sprintf(format, args...)} }

// Run tries everything and returns one finding per feature, by group. It needs
// no privilege: what cannot be tried without is reported as unknown. Features
// that ctx leaves no time for are unknown too.
func Run(ctx context.Context) []Finding {
	s := newScratch()
	defer s.close()
	var out []Finding
	for _, c := range slices.Concat(privilegeChecks(), kernelChecks(), tableChecks(), toolChecks(), resourceChecks()) {
		out = append(out, c.run(ctx, s))
	}
	return out
}

func (c check) run(ctx context.Context, s *scratch) Finding {
	f := Finding{Name: c.name, Group: c.group, Required: c.required, Status: OK}
	if err := ctx.Err(); err != nil {
		f.Status, f.Detail = Unknown, "not tried: "+err.Error()
		return f
	}
	if c.needsNS && s.ns == nil {
		f.Status, f.Detail = Unknown, "not tried: needs a namespace, and so root"
		return f
	}
	detail, err := c.probe(ctx, s)
	f.Detail = detail
	if err == nil {
		return f
	}
	if detail != "" {
		f.Detail += ": "
	}
	f.Detail += err.Error()
	if errors.Is(err, errUnseen) {
		f.Status = Unknown
		return f
	}
	f.Status, f.Means, f.Hint = Missing, c.means, c.hint
	var lesser *lessError
	if errors.As(err, &lesser) {
		f.Status = Degraded
	}
	return f
}

// Lacking returns the required features that are missing, or that could not be
// tried because one of them is.
func Lacking(findings []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool {
		return !f.Required || f.Status == OK || f.Status == Degraded
	})
}
