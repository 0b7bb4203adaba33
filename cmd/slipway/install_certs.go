package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/installer/daytwo"
)

// expiresSoon is what `certs` takes for soon unless told otherwise.
const expiresSoon = 30 * 24 * time.Hour

func (a *app) certsCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "certs", Short: "See which certificates expire, and renew them",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []*cobra.Command{a.certsCheckCmd(), a.certsRenewCmd()} {
		wrapArgs(sub)
		c.AddCommand(sub)
	}
	return c
}

func (a *app) certsCheckCmd() *cobra.Command {
	var o siteFlags
	var within time.Duration
	c := &cobra.Command{
		Use: "check", Short: "List the certificates of a cluster, here and on its hosts",
		Long: `List all certificates of an installed cluster: those in the store on this machine, and on
every host those of its components, in its kubeconfigs, and kubelet's. Exit code 1 says
that one expires soon, is missing, or is not the one in the store.`,
		Example: `  slipway install certs check -L demo
  slipway install certs check --site prod --within 2160h -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := a.holdInstalled(cmd.Context(), o, "certs check")
			if err != nil {
				return err
			}
			defer func() { h.close() }()
			all, err := h.Certificates(cmd.Context())
			if err != nil {
				return err
			}
			ending := daytwo.Ending(all, time.Now().Add(within))
			if err := a.print(all, func(w io.Writer) error { return printCertificates(w, all, within) }); err != nil {
				return err
			}
			if len(ending) > 0 {
				return &silentError{exitNo}
			}
			return nil
		},
	}
	o.addInstalled(c, "cluster file of the cluster that is meant")
	c.Flags().DurationVar(&within, "within", expiresSoon, "how soon is soon")
	return c
}

func printCertificates(w io.Writer, all []daytwo.Certificate, within time.Duration) error {
	now := time.Now()
	var rows [][]string
	for _, k := range all {
		where, state := k.Host, "ok"
		if where == "" {
			where = "(store)"
		}
		switch {
		case k.Problem != "":
			state = k.Problem
		case k.NotAfter.Before(now):
			state = "expired"
		case k.NotAfter.Before(now.Add(within)):
			state = "expires soon"
		}
		end := ""
		if !k.NotAfter.IsZero() {
			end = fmt.Sprintf("%s (%d days)", k.NotAfter.Format(time.DateOnly), int(k.NotAfter.Sub(now).Hours()/24))
		}
		rows = append(rows, []string{where, k.Path, k.Name, end, state})
	}
	return printTable(w, []string{"HOST", "CERTIFICATE", "NAMES", "UNTIL", "STATE"}, rows)
}

func (a *app) certsRenewCmd() *cobra.Command {
	var o siteFlags
	var all bool
	var within time.Duration
	c := &cobra.Command{
		Use: "renew", Short: "Make certificates again and hand them out, one host at a time",
		Long: `Make certificates again that expire soon, with new keys, and bring them to the hosts: one
host at a time, what reads them is started again there, and has to be well before the next
host's turn. Kubelets ask the API for theirs. The authorities stay: they are good for ten
years. Something that is missing or another on a host is put right as well.`,
		Example: `  slipway install certs renew --site prod
  slipway install certs renew -L demo --all`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := a.holdInstalled(cmd.Context(), o, "certs renew")
			if err != nil {
				return err
			}
			defer func() { h.close() }()
			r := daytwo.Renewal{Before: time.Now().Add(within)}
			if all {
				r.Before = time.Time{}
			}
			renewed, err := h.Renew(cmd.Context(), r)
			if err != nil {
				return h.halfChanged(cmd.Context(), err)
			}
			return a.print(renewed, func(w io.Writer) error {
				for _, n := range renewed {
					fmt.Fprintf(w, "  %s\n", strings.Replace(n, " ", ": ", 1))
				}
				_, err := fmt.Fprintf(w, "cluster %s: %s renewed\n", h.name, plural(len(renewed), "certificate"))
				return err
			})
		},
	}
	o.addInstalled(c, "cluster file of the cluster that is meant")
	c.Flags().DurationVar(&within, "within", expiresSoon, "renew those that expire within this time")
	c.Flags().BoolVar(&all, "all", false, "renew all")
	return c
}
