package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"slipway/lab/doctor"
)

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Try what this kernel and box can do, and say what each gap means",
		Long: `Try, feature by feature, what this kernel and box can do, and say what each gap
means and what to do about it. Everything is tried in a scratch namespace; the
machine's own network is not touched, and no root is needed to ask. Exit code 3
when something is missing without which no lab comes up.`,
		Example: "  sudo slipway doctor\n  slipway doctor -o json | jq '.[] | select(.status != \"ok\")'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := doctor.Run(cmd.Context())
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			if err := a.print(findings, func(w io.Writer) error { return printFindings(w, findings) }); err != nil {
				return err
			}
			if len(doctor.Lacking(findings)) > 0 {
				return &silentError{exitMissing}
			}
			return nil
		},
	}
}

// printFindings draws everything as a table, and then what the gaps mean.
func printFindings(w io.Writer, findings []doctor.Finding) error {
	var rows [][]string
	for _, f := range findings {
		status := string(f.Status)
		if f.Required && f.Status != doctor.OK {
			status += " (required)"
		}
		rows = append(rows, []string{string(f.Group), f.Name, status, f.Detail})
	}
	if err := printTable(w, []string{"GROUP", "FEATURE", "STATUS", "DETAIL"}, rows); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Means == "" {
			continue
		}
		fmt.Fprintf(w, "\n%s is %s: %s\n", f.Name, f.Status, f.Means)
		if f.Hint != "" {
			fmt.Fprintf(w, "  %s\n", f.Hint)
		}
	}
	return printVerdict(w, doctor.Lacking(findings))
}

func printVerdict(w io.Writer, lacking []doctor.Finding) error {
	if len(lacking) == 0 {
		_, err := fmt.Fprintln(w, "\nlabs can run on this machine")
		return err
	}
	fmt.Fprint(w, "\nno lab can run on this machine, or not by this user; required and not there:")
	for i, f := range lacking {
		sep := ", "
		if i == 0 {
			sep = " "
		}
		fmt.Fprint(w, sep, f.Name)
	}
	_, err := fmt.Fprintln(w)
	return err
}
