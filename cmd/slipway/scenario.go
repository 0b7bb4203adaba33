package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"slipway/lab/scenario"
)

const scenarioLong = `Learn on real packets, and practise mending. A lesson walks through a lab step by
step; a drill starts a lab in which something is wrong, and is passed when packets
arrive again, however that was brought about. Each has a lab of its own, called
sc-NAME, for all other commands: slipway trace, exec, status, …

FILE is a scenario of your own (docs/scenarios.md has the format); what has a slash
or ends in .txtar is a file.`

func (a *app) scenarioCmd() *cobra.Command {
	var lang string
	c := &cobra.Command{
		Use: "scenario", Aliases: []string{"scenarios"}, Short: "Lessons to walk through and drills to mend",
		Long: scenarioLong, Example: "  slipway scenario list\n  slipway scenario run lost-route\n  slipway scenario check",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.PersistentFlags().StringVar(&lang, "lang", "", "language of texts: "+strings.Join(scenario.Languages, ", ")+"; default: the locale's")
	p := &player{app: a, lang: &lang}
	c.AddCommand(p.listCmd(), p.showCmd(), p.runCmd(), p.stepCmd(), p.checkCmd(), p.hintCmd(), p.solveCmd(), p.resetCmd())
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
	return c
}

// player is what the commands of scenarios share.
type player struct {
	*app
	lang *string
}

// language settles --lang.
func (p *player) language() (string, error) {
	switch {
	case *p.lang == "":
		return scenario.LocaleLanguage(), nil
	case slices.Contains(scenario.Languages, *p.lang):
		return *p.lang, nil
	}
	return "", usageError("language %q is not one of %s", *p.lang, strings.Join(scenario.Languages, ", "))
}

// open finds the session of a scenario: of the one that runs, if none is named.
func (p *player) open(args []string) (*scenario.Session, error) {
	lang, err := p.language()
	if err != nil {
		return nil, err
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
	} else if name, err = onlyRunning(); err != nil {
		return nil, err
	}
	s, err := scenario.LoadRunning(name)
	if err != nil {
		if s, err = loadScenario(name); err != nil {
			return nil, err
		}
	}
	return scenario.New(s, scenario.Options{Lang: lang})
}

func loadScenario(name string) (*scenario.Scenario, error) {
	s, err := scenario.Load(name)
	if err != nil {
		return nil, &coded{exitUsage, err}
	}
	return s, nil
}

// onlyRunning is the name of the scenario that runs.
func onlyRunning() (string, error) {
	names, err := scenario.Running()
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", usageError("no scenario runs (`slipway scenario run NAME` starts one)")
	case len(names) > 1:
		return "", usageError("several scenarios run (%s): name one", strings.Join(names, ", "))
	}
	return names[0], nil
}

// played gives errors of sessions their exit codes.
func played(err error) error {
	if errors.Is(err, scenario.ErrNotRunning) || errors.Is(err, scenario.ErrRuns) {
		return &coded{exitUsage, err}
	}
	return err
}

// completeScenarios completes names.
func completeScenarios(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	all, err := scenario.All()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveDefault
}

func (p *player) listCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the lessons and drills", Args: cobra.NoArgs,
		Example: "  slipway scenario list\n  slipway scenario list --lang zh -o json",
		RunE: func(*cobra.Command, []string) error {
			lang, err := p.language()
			if err != nil {
				return err
			}
			all, err := scenario.All()
			if err != nil {
				return err
			}
			running, err := scenario.Running()
			if err != nil {
				return err
			}
			return p.print(all, func(w io.Writer) error { return printScenarios(w, all, running, lang) })
		},
	}
}

func printScenarios(w io.Writer, all []*scenario.Scenario, running []string, lang string) error {
	// Lessons first, in their order; then drills, easy ones first.
	all = slices.Clone(all)
	rank := func(s *scenario.Scenario) int {
		switch {
		case s.Kind == scenario.Drill:
			return lastOrder + 1 + s.Level
		case s.Order == 0:
			return lastOrder
		}
		return s.Order
	}
	slices.SortStableFunc(all, func(a, b *scenario.Scenario) int { return rank(a) - rank(b) })
	var rows [][]string
	for _, s := range all {
		state := "-"
		if slices.Contains(running, s.Name) {
			state = "running"
		}
		rows = append(rows, []string{s.Name, s.Kind, strconv.Itoa(s.Level), strconv.Itoa(s.Minutes), string(s.Mode), string(s.Components), state, s.Title(lang)})
	}
	return printTable(w, []string{"NAME", "KIND", "LEVEL", "MINUTES", "MODE", "COMPONENTS", "STATE", "TITLE"}, rows)
}

// lastOrder is after all lessons that have a place.
const lastOrder = 1000

func (p *player) showCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME|FILE]", Short: "Print a scenario's task, steps and checks", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeScenarios,
		Example: "  slipway scenario show lost-route --lang zh\n  slipway scenario show ./mine.txtar",
		RunE: func(_ *cobra.Command, args []string) error {
			x, err := p.open(args)
			if err != nil {
				return err
			}
			lang, err := p.language()
			if err != nil {
				return err
			}
			return p.print(x.Scenario, func(w io.Writer) error { return printScenario(w, x, lang) })
		},
	}
}

// printTask prints what one begins with: of a lesson only what its steps are about,
// as their commands say what is to be found out.
func printTask(w io.Writer, x *scenario.Session, lang string) {
	s := x.Scenario
	if s.Kind == scenario.Drill {
		_ = printScenario(w, x, lang)
		return
	}
	fmt.Fprintf(w, "# %s\n\n%s\n\n", s.Title(lang), s.Prose(lang))
	for i, st := range s.Steps {
		fmt.Fprintf(w, "%2d. %s\n", i+1, st.Title(lang))
	}
}

// printScenario prints everything but hints and solution.
func printScenario(w io.Writer, x *scenario.Session, lang string) error {
	s := x.Scenario
	fmt.Fprintf(w, "# %s\n\n%s\n", s.Title(lang), s.Prose(lang))
	for i, st := range s.Steps {
		fmt.Fprintf(w, "\n## %d. %s\n\n%s\n", i+1, st.Title(lang), st.Prose.In(lang))
		for _, part := range st.Parts {
			fmt.Fprintln(w)
			if why := part.Why.In(lang); why != "" {
				fmt.Fprintf(w, "    # %s\n", why)
			}
			for _, c := range part.Commands {
				fmt.Fprintf(w, "    %s\n", x.Typed(c))
			}
		}
	}
	if len(s.Checks) > 0 {
		fmt.Fprintf(w, "\n## %s\n\n", map[string]string{scenario.English: "What has to be", scenario.Chinese: "需要达到的结果"}[lang])
		for _, c := range s.Checks {
			fmt.Fprintf(w, "- %s\n", c.Name.In(lang))
		}
	}
	return nil
}
