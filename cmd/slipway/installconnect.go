package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"slipway/installer"
	"slipway/installer/mesh"
	"slipway/installer/preflight"
	"slipway/installer/site"
	"slipway/installer/ssh"
	"slipway/topology"
)

// sshFlags say how hosts are reached.
type sshFlags struct {
	config, knownHosts string
	keys               []string
	acceptNew, askSudo bool
}

func (o *sshFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.config, "ssh-config", "", "read this instead of ~/.ssh/config; none reads no file")
	f.StringVar(&o.knownHosts, "known-hosts", "", "the hosts' keys, instead of ~/.ssh/known_hosts")
	f.StringSliceVarP(&o.keys, "identity", "i", nil, "a private key to log in with; may be repeated")
	f.BoolVar(&o.acceptNew, "accept-new", false, "trust hosts that are not known yet, and remember their keys")
	f.BoolVar(&o.askSudo, "ask-sudo", false, "ask for the password that sudo on the hosts wants, once for all of them")
}

// connect opens connections to all hosts of a cluster.
func (a *app) connect(ctx context.Context, c *topology.Cluster, o sshFlags) (hosts map[string]installer.Host, end func(), err error) {
	opened, err := ssh.OpenAll(ctx, targets(c), a.sshOptions(o))
	if err != nil {
		ssh.CloseAll(opened)
		return nil, nil, err
	}
	hosts = map[string]installer.Host{}
	for name, h := range opened {
		hosts[name] = h
	}
	return hosts, func() { ssh.CloseAll(opened) }, nil
}

// targets are how a cluster's hosts are reached.
func targets(c *topology.Cluster) (out []ssh.Target) {
	for _, n := range c.Spec.Nodes {
		t := ssh.Target{Name: n.Name}
		if n.SSH != nil {
			t.Host, t.Port, t.User = n.SSH.Host, n.SSH.Port, n.SSH.User
		}
		if t.Host == "" && n.Address.IsValid() {
			t.Host = n.Address.String()
		}
		out = append(out, t)
	}
	return out
}

func (a *app) sshOptions(o sshFlags) ssh.Options {
	out := ssh.Options{
		ConfigFile: o.config, KnownHosts: o.knownHosts, Keys: o.keys, AcceptNew: o.acceptNew,
		Passphrase: func(_ context.Context, path string) ([]byte, error) { return a.secret("passphrase of " + path) },
		Tell: func(e ssh.Event) {
			if e.Kind == ssh.NewKey || e.Kind == ssh.Again || a.verbose && e.Kind == ssh.Connected {
				fmt.Fprintf(a.err, "slipway: %s: %s: %s\n", e.Host, e.Kind, e.Text)
			}
		},
	}
	if o.askSudo {
		ask := sync.OnceValues(func() ([]byte, error) { return a.secret("password for sudo") })
		out.Sudo = func(context.Context, string) (string, error) {
			p, err := ask()
			return string(p), err
		}
	}
	return out
}

// secret asks whoever is at the terminal.
func (a *app) secret(what string) ([]byte, error) {
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, fmt.Errorf("%s: nobody is at a terminal to be asked", what)
	}
	fmt.Fprintf(a.err, "%s: ", what)
	defer fmt.Fprintln(a.err)
	return term.ReadPassword(int(f.Fd()))
}

// preflightFlags are the checks that may fail.
type preflightFlags struct {
	ignore []string
	noMesh bool
}

func (o *preflightFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&o.ignore, "ignore", nil, "a check of preflight that may fail; may be repeated")
}

// preflightSite refuses hosts that cannot become the cluster, with all that is in
// the way of it. Ports are tried between hosts that are not the cluster yet.
func (a *app) preflightSite(ctx context.Context, s *onSite, p *site.Planned, o preflightFlags) error {
	found, _, err := judgeHosts(ctx, s.Cluster, p.Inputs.Snapshot, s.hosts, preflightOptions{
		ignore: o.ignore, mesh: !o.noMesh && !s.Applied().Complete, timeout: mesh.DefaultTimeout, facts: p.Facts,
	})
	var unknown *preflight.UnknownCheckError
	if errors.As(err, &unknown) {
		return &coded{exitUsage, err}
	}
	if err != nil && !preflight.Failed(found) { // else what was found says more than that the ports could not be tried
		return err
	}
	var wrong []string
	for _, f := range found {
		line := fmt.Sprintf("%s: %s: %s", f.Host, f.Check, f.Text)
		if f.Hint != "" {
			line += " (" + f.Hint + ")"
		}
		switch f.Severity {
		case preflight.Error:
			wrong = append(wrong, line)
		case preflight.Warning:
			fmt.Fprintln(a.err, "slipway: warning: "+line)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the hosts cannot become the cluster; nothing was changed (--ignore NAME leaves a check out):\n  %s", strings.Join(wrong, "\n  "))
	}
	return nil
}
