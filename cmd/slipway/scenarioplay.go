package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"slipway/lab/scenario"
)

func (p *player) runCmd() *cobra.Command {
	var auto bool
	c := &cobra.Command{
		Use: "run [NAME|FILE]", Short: "Start a scenario's lab and print the task", Args: cobra.ExactArgs(1), ValidArgsFunction: completeScenarios,
		Long: `Start the scenario's lab, make what is wrong in it, and print the task. With --auto
the steps of a lesson are run too, one after the other, with what they print. A run
that is interrupted takes its lab down again.`,
		Example: "  slipway scenario run lost-route\n  slipway scenario run lesson-one-node --auto\n  slipway scenario run ./mine.txtar",
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := p.open(args)
			if err != nil {
				return err
			}
			lang, err := p.language()
			if err != nil {
				return err
			}
			show := p.progress()
			show.Phase("lab "+x.Lab(), 0)
			err = x.Start(cmd.Context())
			show.clear()
			if err != nil {
				return played(err)
			}
			if !auto {
				return p.print(x.Scenario, func(w io.Writer) error {
					printTask(w, x, lang)
					_, err := fmt.Fprint(w, whatNow(x, lang))
					return err
				})
			}
			return p.steps(cmd.Context(), x, lang, 0, len(x.Scenario.Steps))
		},
	}
	c.Flags().BoolVar(&auto, "auto", false, "run the steps of a lesson too")
	return c
}

// whatNow says how to go on.
func whatNow(x *scenario.Session, lang string) string {
	name := x.Scenario.Name
	if x.Scenario.Kind == scenario.Lesson {
		return map[string]string{
			scenario.English: fmt.Sprintf("\nThe lab is %s, for all other commands too. `slipway scenario step` runs the first step,\nand each time the next one; `slipway scenario reset %s` ends.\n", x.Lab(), name),
			scenario.Chinese: fmt.Sprintf("\n实验环境是 %s，其他命令也可使用。`slipway scenario step` 执行第一步，再次执行则是下一步；\n`slipway scenario reset %s` 结束。\n", x.Lab(), name),
		}[lang]
	}
	return map[string]string{
		scenario.English: fmt.Sprintf("\nThe lab is %s, its files are in %s. Mend it; `slipway scenario check` grades,\n`hint` helps, `solve` shows how, `slipway scenario reset %s` ends.\n", x.Lab(), x.Dir(), name),
		scenario.Chinese: fmt.Sprintf("\n实验环境是 %s，文件在 %s。请修复它：`slipway scenario check` 评分，\n`hint` 提示，`solve` 演示答案，`slipway scenario reset %s` 结束。\n", x.Lab(), x.Dir(), name),
	}[lang]
}

func (p *player) stepCmd() *cobra.Command {
	return &cobra.Command{
		Use: "step [NAME|FILE] [N]", Short: "Run a step of a lesson: the next one, or number N", Args: cobra.MaximumNArgs(2), ValidArgsFunction: completeScenarios,
		Example: "  slipway scenario step\n  slipway scenario step lesson-one-node 2",
		RunE: func(cmd *cobra.Command, args []string) error {
			n := 0
			if len(args) > 0 {
				if last, err := strconv.Atoi(args[len(args)-1]); err == nil {
					n, args = last, args[:len(args)-1]
				}
			}
			x, err := p.open(args)
			if err != nil {
				return err
			}
			st, err := x.State()
			if err != nil {
				return played(err)
			}
			if n == 0 {
				n = st.Step + 1
			}
			all := len(x.Scenario.Steps)
			switch {
			case len(args) < 2 && n == all+1 && all > 0:
				return usageError("all %d steps of %s are done: `slipway scenario step 1` begins again, `slipway scenario reset %[2]s` ends", all, x.Scenario.Name)
			case n < 1 || n > all:
				return usageError("%s has %s, and there is no step %d", x.Scenario.Name, plural(all, "step"), n)
			}
			lang, err := p.language()
			if err != nil {
				return err
			}
			return p.steps(cmd.Context(), x, lang, n-1, n)
		},
	}
}

// steps runs steps of a lesson and prints them as they go.
func (p *player) steps(ctx context.Context, x *scenario.Session, lang string, from, to int) error {
	all := [][]scenario.Explained{}
	for i := from; i < to; i++ {
		st := x.Scenario.Steps[i]
		table := p.output == "table" || p.output == "text"
		if table {
			fmt.Fprintf(p.out, "## %d. %s\n\n%s\n", i+1, st.Title(lang), st.Prose.In(lang))
		}
		ran, err := x.Step(ctx, i)
		if table {
			printRan(p.out, ran)
		}
		if err != nil {
			return played(err)
		}
		all = append(all, ran)
	}
	return p.print(all, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, afterStep(x, lang, to))
		return err
	})
}

// afterStep says how to go on after so many steps of a lesson.
func afterStep(x *scenario.Session, lang string, done int) string {
	all := len(x.Scenario.Steps)
	if done < all {
		return map[string]string{
			scenario.English: fmt.Sprintf("Step %d of %d is done; `slipway scenario step` runs the next one.", done, all),
			scenario.Chinese: fmt.Sprintf("第 %d 步（共 %d 步）已完成；`slipway scenario step` 执行下一步。", done, all),
		}[lang]
	}
	text := map[string]string{
		scenario.English: fmt.Sprintf("That was the last step; `slipway scenario reset %s` takes the lab down.", x.Scenario.Name),
		scenario.Chinese: fmt.Sprintf("这是最后一步；`slipway scenario reset %s` 拆除实验环境。", x.Scenario.Name),
	}[lang]
	if next, err := x.Scenario.Next(); err == nil && next != nil {
		text += "\n" + map[string]string{scenario.English: "Next:", scenario.Chinese: "下一课："}[lang] + " slipway scenario run " + next.Name
	}
	return text
}

func printRan(w io.Writer, parts []scenario.Explained) {
	for _, e := range parts {
		fmt.Fprintln(w)
		if e.Why != "" {
			fmt.Fprintf(w, "# %s\n", e.Why)
		}
		for _, r := range e.Ran {
			fmt.Fprintf(w, "$ %s\n%s%s", r.Command, r.Stdout, r.Stderr)
		}
	}
	fmt.Fprintln(w)
}

func (p *player) checkCmd() *cobra.Command {
	return &cobra.Command{
		Use: "check [NAME|FILE]", Short: "Grade a scenario on real packets", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeScenarios,
		Long: `Look at everything that the scenario wants: real packets are sent and their answers
waited for. What was seen and what was wanted is printed of each check.

Exit codes: 0 all passed · 1 not yet · 2 no such scenario, or it does not run.`,
		Example: "  slipway scenario check\n  slipway scenario check lost-route -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := p.open(args)
			if err != nil {
				return err
			}
			r, err := x.Check(cmd.Context())
			if err != nil {
				return played(err)
			}
			if err := p.print(r, func(w io.Writer) error { return printReport(w, r) }); err != nil {
				return err
			}
			if !r.Passed {
				return &silentError{exitNo}
			}
			return nil
		},
	}
}

func printReport(w io.Writer, r *scenario.Report) error {
	good := 0
	for _, c := range r.Checks {
		mark := "✗"
		if c.OK {
			mark = "✓"
			good++
		}
		fmt.Fprintf(w, "%s %s\n", mark, c.Name)
		if !c.OK {
			fmt.Fprintf(w, "    want: %s\n", c.Want)
		}
		fmt.Fprintf(w, "    seen: %s\n", strings.ReplaceAll(c.Got, "\n", "\n          "))
	}
	_, err := fmt.Fprintf(w, "%d of %s passed in %s\n", good, plural(len(r.Checks), "check"), ms(r.Took))
	return err
}

func (p *player) hintCmd() *cobra.Command {
	return &cobra.Command{
		Use: "hint [NAME|FILE]", Short: "Give the next hint", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeScenarios,
		Example: "  slipway scenario hint",
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := p.open(args)
			if err != nil {
				return err
			}
			h, err := x.Hint(cmd.Context())
			if err != nil {
				return played(err)
			}
			return p.print(h, func(w io.Writer) error {
				if h.Of == 0 {
					_, err := fmt.Fprintln(w, "it has no hints")
					return err
				}
				_, err := fmt.Fprintf(w, "[%d/%d] %s\n", h.N, h.Of, h.Text)
				return err
			})
		},
	}
}

func (p *player) solveCmd() *cobra.Command {
	return &cobra.Command{
		Use: "solve [NAME|FILE]", Short: "Run a scenario's solution, and say why", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeScenarios,
		Example: "  slipway scenario solve lost-route",
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := p.open(args)
			if err != nil {
				return err
			}
			ran, err := x.Solve(cmd.Context())
			if err != nil {
				return played(err)
			}
			return p.print(ran, func(w io.Writer) error {
				printRan(w, ran)
				return nil
			})
		},
	}
}

func (p *player) resetCmd() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "reset [NAME|FILE] [--all]", Short: "Take a scenario's lab down and forget the session", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeScenarios,
		Long: `Take the scenario's lab down, however it was left, and forget what was done in it.
A run of the scenario then begins anew.`,
		Example: "  slipway scenario reset lost-route\n  slipway scenario reset --all",
		RunE: func(cmd *cobra.Command, args []string) error {
			names := args
			if all && len(args) > 0 {
				return usageError("--all takes no names")
			}
			if all {
				var err error
				if names, err = scenario.Running(); err != nil {
					return err
				}
			} else if len(args) == 0 {
				name, err := onlyRunning()
				if err != nil {
					return err
				}
				names = []string{name}
			}
			return p.reset(cmd.Context(), names)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "reset all scenarios that run")
	return c
}

func (p *player) reset(ctx context.Context, names []string) error {
	var errs []error
	done := []string{}
	for _, n := range names {
		x, err := p.toReset(n)
		if err == nil {
			err = x.Reset(ctx)
		}
		if err != nil {
			errs = append(errs, played(err))
			continue
		}
		done = append(done, x.Scenario.Name)
	}
	err := p.print(done, func(w io.Writer) error {
		for _, n := range done {
			fmt.Fprintf(w, "scenario %s is reset\n", n)
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// toReset is the session of a name, also of one whose file cannot be read any more.
func (p *player) toReset(name string) (*scenario.Session, error) {
	running, err := scenario.Running()
	if err != nil {
		return nil, err
	}
	if slices.Contains(running, name) {
		return scenario.New(&scenario.Scenario{Name: name}, scenario.Options{})
	}
	return p.open([]string{name})
}
