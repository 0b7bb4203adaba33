package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/installer/components"
)

func (a *app) componentsCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "components", Short: "List, build and verify the upstream programs that labs can run",
		Long: `The upstream programs that a lab can run in its nodes or be measured against, at
pinned versions. They are built from source by the Go toolchain of this machine,
once, into a cache (` + components.CacheDirEnv + `, else slipway/ in the user's cache directory).`,
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []*cobra.Command{a.componentsListCmd(), a.componentsBuildCmd(), a.componentsVerifyCmd()} {
		wrapArgs(sub)
		c.AddCommand(sub)
	}
	return c
}

// componentView is a component and what the cache has of it.
type componentView struct {
	components.Component
	Built *components.Built `json:"built,omitempty"`
	Dir   string            `json:"dir,omitempty"`
	State string            `json:"state"`
}

func (a *app) componentsListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the components, their versions, and which are built",
		Example: "  slipway components list\n  slipway components list -o json | jq -r '.[] | select(.built) | .dir'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := components.All()
			if err != nil {
				return err
			}
			views := make([]componentView, 0, len(all))
			for _, c := range all {
				views = append(views, viewComponent(cmd.Context(), c))
			}
			return a.print(views, func(w io.Writer) error {
				var rows [][]string
				for _, v := range views {
					rows = append(rows, []string{v.Name, v.Version, v.State, strings.Join(v.Names(), " "), v.Module})
				}
				return printTable(w, []string{"NAME", "VERSION", "STATE", "PROGRAMS", "MODULE"}, rows)
			})
		},
	}
}

func viewComponent(ctx context.Context, c components.Component) componentView {
	v := componentView{Component: c}
	b, err := components.Lookup(ctx, c.Name)
	var missing *components.MissingError
	switch {
	case err == nil:
		v.Built, v.Dir, v.State = b, b.Dir, "built"
	case errors.Is(err, components.ErrNotBuilt):
		v.State = "not built"
	case errors.As(err, &missing):
		v.State = "needs " + missing.What
	default:
		v.State = err.Error()
	}
	return v
}

func (a *app) componentsBuildCmd() *cobra.Command {
	return &cobra.Command{
		Use: "build [NAME...]", Short: "Build components from source into the cache",
		Long: `Build components, all of them without a name, two at a time. What is in the cache
already is left as it is; a build that was cut off goes on where it was. It needs a Go
toolchain and, for flannel, a C compiler; modules come from the Go module proxy
(GOPROXY) and are checked against the sums that this program carries.`,
		Example: "  slipway components build\n  slipway components build etcd flannel",
		RunE: func(cmd *cobra.Command, names []string) error {
			names, err := componentNames(names)
			if err != nil {
				return err
			}
			built, err := a.buildComponents(cmd.Context(), names)
			if err != nil {
				return err
			}
			return a.print(built, func(w io.Writer) error { return printBuilt(w, built) })
		},
	}
}

// componentNames are those given, checked, or all.
func componentNames(given []string) ([]string, error) {
	for _, n := range given {
		if _, err := components.Find(n); err != nil {
			return nil, err
		}
	}
	if len(given) > 0 {
		return given, nil
	}
	all, err := components.All()
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names, err
}

func printBuilt(w io.Writer, built []*components.Built) error {
	var rows [][]string
	for _, b := range built {
		rows = append(rows, []string{b.Component, b.Version, ms(time.Duration(b.Took)), b.Dir})
	}
	return printTable(w, []string{"NAME", "VERSION", "TOOK", "DIRECTORY"}, rows)
}

// buildComponents builds with progress on stderr.
func (a *app) buildComponents(ctx context.Context, names []string) ([]*components.Built, error) {
	p := &buildProgress{progress: a.progress(), last: map[string]components.Event{}}
	built, err := components.BuildAll(ctx, names, p.on)
	p.clear()
	return built, err
}

// buildProgress shows the builds that are on their way, in one line.
type buildProgress struct {
	*progress
	order []string
	last  map[string]components.Event
	drawn time.Time
}

// on takes one event; the builder calls it from one goroutine at a time.
func (p *buildProgress) on(e components.Event) {
	if e.Stage == components.Cached {
		return
	}
	before, known := p.last[e.Component]
	if !known {
		p.order = append(p.order, e.Component)
	}
	p.last[e.Component] = e
	every := sayEvery
	if p.live {
		every = redrawEvery
	}
	if before.Stage == e.Stage && time.Since(p.drawn) < every {
		return
	}
	p.drawn = time.Now()
	var parts []string
	for _, name := range p.order {
		if e := p.last[name]; e.Stage != components.Done {
			parts = append(parts, sayBuild(e))
		}
	}
	if len(parts) == 0 {
		return
	}
	p.Phase(strings.Join(parts, "; "), 0)
	if !p.live && !p.verbose { // with --verbose, Phase has said it
		p.say()
	}
}

// sayBuild words one event.
func sayBuild(e components.Event) string {
	s := e.Component + ": "
	switch e.Stage {
	case components.Waiting:
		return s + "another process builds it, waiting"
	case components.Fetching:
		return fmt.Sprintf("%sfetching, %s so far", s, plural(e.Count, "module"))
	case components.Compiling:
		s += fmt.Sprintf("compiling, %d of %s, %.0f %%", e.Count, plural(e.Of, "package"), 100*e.Share)
		if e.Left > 0 {
			s += fmt.Sprintf(", about %s left and linking", e.Left)
		}
		return s
	default:
		return s + string(e.Stage)
	}
}

func (a *app) componentsVerifyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "verify [NAME...]", Short: "Compare built components with their checksums",
		Long: `Compare the programs in the cache with the SHA-256 that they had when they were built.
Without a name: all that are built. Exit code 1 if one is not what was built, or was
named and is not there.`,
		Example: "  slipway components verify\n  slipway components verify flannel && echo as built",
		RunE: func(cmd *cobra.Command, given []string) error {
			names, err := componentNames(given)
			if err != nil {
				return err
			}
			var good []*components.Built
			var errs []error
			for _, n := range names {
				b, err := components.Verify(cmd.Context(), n)
				switch {
				case err == nil:
					good = append(good, b)
				case len(given) > 0 || !errors.Is(err, components.ErrNotBuilt):
					errs = append(errs, err)
				}
			}
			err = a.print(good, func(w io.Writer) error {
				var rows [][]string
				for _, b := range good {
					rows = append(rows, []string{b.Component, b.Version, "as built", b.Dir})
				}
				return printTable(w, []string{"NAME", "VERSION", "VERDICT", "DIRECTORY"}, rows)
			})
			return errors.Join(append(errs, err)...)
		},
	}
}
