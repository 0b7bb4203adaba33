package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"slipway/lab/bench/report"
)

func (a *app) benchCompareCmd() *cobra.Command {
	var least float64
	c := &cobra.Command{
		Use: "compare A.json B.json", Short: "Say what is faster or slower in B than in A, and how sure that is",
		Long: `Compare two reports of the bench metric by metric: faster, slower, or no evidence of
a difference. Reports of the same thing show any difference at all in one comparison
of twenty at most, however many metrics they have; --least asks for a size, too.
The exit code is 1 if something is slower.`,
		Example: "  slipway bench compare before.json after.json\n  slipway bench compare before.json after.json --least 3   # percent",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if least < 0 || least >= 100 {
				return usageError("--least %g is not within 0 to 100 percent", least)
			}
			return a.benchCompare(args[0], args[1], least/100)
		},
	}
	c.Flags().Float64Var(&least, "least", 0, "differences smaller than this many percent are none")
	return c
}

func (a *app) benchCompare(before, after string, least float64) error {
	ra, err := readReport(before)
	if err != nil {
		return err
	}
	rb, err := readReport(after)
	if err != nil {
		return err
	}
	c := report.Compare(ra, rb, least)
	if err := a.print(c, c.Text); err != nil {
		return err
	}
	if c.Worse() {
		return &silentError{exitNo}
	}
	return nil
}

// readReport reads a report; whatever is wrong with it is the user's input.
func readReport(file string) (*report.Report, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, &coded{exitUsage, fmt.Errorf("read report: %w", err)}
	}
	defer f.Close() //nolint:errcheck // read only
	r, err := report.Read(f, file)
	if err != nil {
		return nil, &coded{exitUsage, fmt.Errorf("read report: %w", err)}
	}
	return r, nil
}

// renderers write a report, by the name of the format.
var renderers = map[string]func(io.Writer, *report.Report) error{
	"table": report.Table, "csv": report.CSV, "markdown": report.Markdown, "json": report.Write, "html": report.HTML,
}

func (a *app) benchRenderCmd() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "render FILE", Short: "Draw a report of the bench again, from its JSON",
		Long: `Draw a report of the bench again from the JSON that it wrote: as tables for a
terminal (table, at most 120 columns; of many cases the summary alone, without -v) or a
document (markdown), as one row for each round (csv), as it was (json), or as a page with
charts that needs no network (html).`,
		Example:     "  slipway bench render bench.json\n  slipway bench render bench.json -o html -w bench.html",
		Args:        cobra.ExactArgs(1),
		Annotations: map[string]string{formatsOf: "table,csv,html,markdown,json"},
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := readReport(args[0])
			if err != nil {
				return err
			}
			return a.writeReport(r, file)
		},
	}
	c.Flags().StringVarP(&file, "write", "w", "", "write to this file instead of stdout")
	return c
}

// writeReport prints a report in the wanted format, or writes it into a file.
func (a *app) writeReport(r *report.Report, file string) error {
	render := renderers[a.output]
	if a.output == "table" && !a.verbose {
		render = report.Brief
	}
	if file == "" {
		return render(a.out, r)
	}
	out, err := os.Create(file)
	if err != nil {
		return &coded{exitUsage, fmt.Errorf("write report: %w", err)}
	}
	return errors.Join(render(out, r), out.Close())
}
