package main

import (
	"cmp"
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
		Use: "components", Short: "List, build, verify and bundle the programs that labs can run",
		Long: `The upstream programs that a lab can run in its nodes or be measured against, at
pinned versions. They are built from source by the Go toolchain of this machine,
once, into a cache (` + components.CacheDirEnv + `, else slipway/ in the user's cache directory).`,
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []*cobra.Command{a.componentsListCmd(), a.componentsBuildCmd(), a.componentsVerifyCmd(), a.componentsBundleCmd(), a.componentsLoadCmd(), a.componentsImageCmd()} {
		wrapArgs(sub)
		c.AddCommand(sub)
	}
	return c
}

// componentView is a component and what this machine has of it.
type componentView struct {
	components.Component
	Built     *components.Built    `json:"built,omitempty"`
	Dir       string               `json:"dir,omitempty"`
	Installed []components.Package `json:"installed,omitempty"`
	State     string               `json:"state"`
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
					source := cmp.Or(v.Module, "slipway")
					if len(v.Debian) > 0 {
						source = "Debian: " + strings.Join(v.Debian, " ")
					}
					rows = append(rows, []string{v.Name, v.Version, string(v.Set), v.State, strings.Join(v.Names(), " "), source})
				}
				return printTable(w, []string{"NAME", "VERSION", "SET", "STATE", "PROGRAMS", "FROM"}, rows)
			})
		},
	}
}

func viewComponent(ctx context.Context, c components.Component) componentView {
	v := componentView{Component: c}
	if len(c.Debian) > 0 {
		return viewDebian(ctx, v)
	}
	b, err := components.Lookup(ctx, c.Name)
	var missing *components.MissingError
	var damaged *components.SumError
	switch {
	case err == nil:
		v.Built, v.Dir, v.State = b, b.Dir, "built"
		if b.Bundle {
			v.State = "from a bundle"
		}
	case errors.As(err, &damaged):
		v.State = "damaged"
	case errors.Is(err, components.ErrNotBuilt):
		v.State = "not built"
	case errors.As(err, &missing):
		v.State = "needs " + missing.What
	default:
		v.State = err.Error()
	}
	return v
}

// viewDebian tells the version that is installed, or the packages to install.
func viewDebian(ctx context.Context, v componentView) componentView {
	packages, err := v.Component.Installed(ctx)
	if err != nil {
		v.State = err.Error()
		return v
	}
	var missing []string
	for _, p := range packages {
		if p.Version == "" {
			missing = append(missing, p.Name)
		}
	}
	v.Installed, v.State = packages, "installed"
	if len(missing) > 0 {
		v.State = "not installed: apt-get install " + strings.Join(missing, " ")
		return v
	}
	v.Version = packages[0].Version
	return v
}

func (a *app) componentsBuildCmd() *cobra.Command {
	var all bool
	var arch string
	c := &cobra.Command{
		Use: "build [NAME...]", Short: "Build components from source into the cache",
		Long: `Build components; without a name the core set, which a lab with real components needs.
Two at a time where there is the memory. What is in the cache already is left as it is; a
build that was cut off goes on where it was. It needs a Go toolchain and, for flannel and
runc, a C compiler; modules come from the Go module proxy (GOPROXY) and are checked
against the sums that this program carries.`,
		Example: "  slipway components build\n  slipway components build etcd flannel\n  slipway components build --arch arm64 etcd",
		RunE: func(cmd *cobra.Command, names []string) error {
			names, err := toBuild(names, all)
			if err != nil {
				return err
			}
			built, err := a.buildComponents(cmd.Context(), arch, names)
			if err != nil {
				return err
			}
			return a.print(built, func(w io.Writer) error { return printBuilt(w, built) })
		},
	}
	c.Flags().BoolVar(&all, "all", false, "build the sets core, network and test")
	c.Flags().StringVar(&arch, "arch", "", "build for another architecture, such as arm64 (as GOARCH)")
	return c
}

// toBuild are the components named, all, or the core set.
func toBuild(given []string, all bool) ([]string, error) {
	if len(given) > 0 {
		if all {
			return nil, usageError("--all and names exclude each other")
		}
		return given, checkComponents(given)
	}
	if all {
		return components.Names(components.Core, components.Network, components.Test)
	}
	return components.Names(components.Core)
}

func checkComponents(names []string) error {
	for _, n := range names {
		if _, err := components.Find(n); err != nil {
			return err
		}
	}
	return nil
}

func printBuilt(w io.Writer, built []*components.Built) error {
	var rows [][]string
	for _, b := range built {
		rows = append(rows, []string{b.Component, b.Version, ms(time.Duration(b.Took)), b.Dir})
	}
	return printTable(w, []string{"NAME", "VERSION", "TOOK", "DIRECTORY"}, rows)
}

// buildComponents builds with progress on stderr.
func (a *app) buildComponents(ctx context.Context, arch string, names []string) ([]*components.Built, error) {
	p := a.buildProgress()
	built, err := components.BuildFor(ctx, arch, names, p.on)
	p.clear()
	return built, err
}

func (a *app) buildProgress() *buildProgress {
	return &buildProgress{progress: a.progress(), last: map[string]components.Event{}}
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
		Long: `Compare the programs in the cache with the SHA-256 that they had when they were built,
and Debian's with what dpkg knows of its packages. Without a name: all that are built or
installed. Exit code 1 if one is not what it was, or was named and is not there.`,
		Example: "  slipway components verify\n  slipway components verify flannel && echo as built",
		RunE: func(cmd *cobra.Command, given []string) error {
			names := given
			if len(given) == 0 {
				all, err := components.All()
				if err != nil {
					return err
				}
				for _, c := range all {
					names = append(names, c.Name)
				}
			}
			var good []verdict
			var errs []error
			for _, n := range names {
				v, err := verify(cmd.Context(), n)
				var toolchain *components.MissingError
				var damaged *components.SumError
				absent := errors.Is(err, components.ErrNotBuilt) || errors.Is(err, components.ErrNotInstalled) || errors.As(err, &toolchain)
				absent = absent && !errors.As(err, &damaged)
				switch {
				case err == nil:
					good = append(good, v)
				case len(given) > 0 || !absent:
					errs = append(errs, err)
				}
			}
			err := a.print(good, func(w io.Writer) error {
				var rows [][]string
				for _, v := range good {
					rows = append(rows, []string{v.Component, v.Version, v.Verdict, v.From})
				}
				return printTable(w, []string{"NAME", "VERSION", "VERDICT", "FROM"}, rows)
			})
			return errors.Join(append(errs, err)...)
		},
	}
}

// verdict is what verify says of a component that is what it was.
type verdict struct {
	Component string            `json:"component"`
	Version   string            `json:"version"`
	Verdict   string            `json:"verdict"`
	From      string            `json:"from"` // a directory, or Debian's packages
	Sums      map[string]string `json:"sums,omitempty"`
}

func verify(ctx context.Context, name string) (verdict, error) {
	c, err := components.Find(name)
	if err != nil {
		return verdict{}, err
	}
	if len(c.Debian) == 0 {
		b, err := components.Verify(ctx, name)
		if err != nil {
			return verdict{}, err
		}
		return verdict{name, b.Version, "as built", b.Dir, b.Sums}, nil
	}
	packages, err := c.VerifyInstalled(ctx)
	if err != nil {
		return verdict{}, err
	}
	return verdict{name, packages[0].Version, "as packaged", "Debian: " + strings.Join(c.Debian, " "), nil}, nil
}
