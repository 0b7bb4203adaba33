package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"slipway/lab"
	"slipway/lab/ui"
)

func (a *app) uiCmd() *cobra.Command {
	var listen string
	var allow, noOpen bool
	var reports []string
	c := &cobra.Command{
		Use: "ui [LAB]", Short: "Show a lab in a browser: live map, packets, services, tables, lessons",
		Long: `Serve a page that shows a running lab, until interrupted: its topology as it
changes, the way of a packet step by step with its headers and the rules that
decide, services with the probabilities and counters of their rules, routes, FDB,
neighbours and leases with what the last change touched, reports of the bench,
lessons and drills.

The page is for this machine: it listens on the loopback device, and every request
must carry the token of the address that is printed. It needs no network. Unless
--allow-change is given it only looks (and sends the packets that are traced).`,
		Example: `  slipway ui
  slipway ui demo --listen 127.0.0.1:8900 --no-open
  slipway ui --report bench.json --allow-change`,
		Annotations: map[string]string{formatsOf: "table,json"},
		Args:        cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.shownLab(args)
			if err != nil {
				return err
			}
			if os.Geteuid() != 0 {
				return &lab.PrivilegeError{}
			}
			o := ui.Options{Lab: name, AllowChange: allow, Log: a.logger()}
			for _, f := range reports {
				r, err := readReport(f)
				if err != nil {
					return err
				}
				o.Reports = append(o.Reports, ui.Report{File: f, Report: r})
			}
			return a.serveUI(cmd.Context(), listen, o, !noOpen && isTerminal(a.out))
		},
	}
	f := c.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:0", "loopback address and port to serve at; port 0 takes a free one")
	f.BoolVar(&allow, "allow-change", false, "let the page change the lab: start, reset and solve scenarios")
	f.BoolVar(&noOpen, "no-open", false, "print the address only, open no browser")
	f.StringArrayVar(&reports, "report", nil, "a report of the bench to draw (JSON, as `bench --save` writes it); may be repeated")
	return c
}

// shownLab is the lab that the page begins with: the one that is named or, of
// several, the first; none where none is up, as lessons start labs.
func (a *app) shownLab(args []string) (string, error) {
	if len(args) == 0 && a.lab == "" {
		names, err := lab.Names()
		if err != nil || len(names) == 0 {
			return "", err
		}
		args = names[:1]
	}
	st, err := a.state(args)
	if err != nil {
		return "", err
	}
	return st.Lab, nil
}

// serveUI serves the page until the command is interrupted, which is how it is
// meant to end.
func (a *app) serveUI(ctx context.Context, listen string, o ui.Options, open bool) error {
	s, err := ui.Listen(ctx, listen, o)
	var outside *ui.LoopbackError
	if errors.As(err, &outside) {
		return &coded{exitUsage, err}
	}
	if err != nil {
		return err
	}
	if a.output == "json" {
		err = a.print(map[string]string{"lab": o.Lab, "url": s.URL()}, nil)
	} else {
		_, err = fmt.Fprintln(a.out, s.URL())
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(a.err, "the page is served until Ctrl-C; the address is for this machine only, and its token is a secret")
	if open {
		openBrowser(ctx, s.URL())
	}
	if err := s.Serve(ctx); err != nil {
		return err
	}
	return &silentError{exitOK}
}

// openBrowser tries to; where there is none the address has been printed.
func openBrowser(ctx context.Context, url string) {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return
	}
	opening, cancel := context.WithTimeout(ctx, 10*time.Second)
	go func() {
		defer cancel()
		_ = exec.CommandContext(opening, "xdg-open", url).Run()
	}()
}
