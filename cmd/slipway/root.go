package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/datapath/bpf"
	"slipway/installer/components"
	"slipway/installer/images"
	"slipway/installer/site"
	"slipway/lab"
	"slipway/lab/kube"
	"slipway/lab/podexec"
	"slipway/topology"
)

// The exit codes of DESIGN.md §3.
const (
	exitOK          = 0
	exitNo          = 1   // the answer is no
	exitUsage       = 2   // bad usage or input
	exitMissing     = 3   // a kernel feature, package or privilege is missing
	exitDisagree    = 4   // prediction and observation disagree
	exitPartial     = 5   // partly done, running it again repairs
	exitInterrupted = 130 // interrupted, cleaned up
)

type streams struct {
	in       io.Reader
	out, err io.Writer
}

// app is what every command has: the streams and the global flags.
type app struct {
	streams
	lab       string
	output    string
	logFormat string
	verbose   bool
}

// coded carries the exit code that an error stands for.
type coded struct {
	code int
	err  error
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

func usageError(format string, args ...any) error {
	return &coded{exitUsage, fmt.Errorf(format, args...)}
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	a := &app{streams: s}
	root := a.root() //nolint:contextcheck // commands get theirs from cobra
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(ctx, err)
	var silent *silentError
	if !errors.As(err, &silent) {
		a.complain(ctx, err, code)
	}
	return code
}

// silentError ends with a code without saying more: the command has said it.
type silentError struct{ code int }

func (e *silentError) Error() string { return fmt.Sprintf("exit %d", e.code) }

func exitCode(ctx context.Context, err error) int {
	var c *coded
	var silent *silentError
	var diags topology.Diagnostics
	var privilege *lab.PrivilegeError
	var unsupported *bpf.UnsupportedError
	var name *lab.NameError
	var path *lab.PathError
	var unknown *components.UnknownError
	var missing *components.MissingError
	var inotify *kube.InotifyError
	var tool *images.MissingError
	switch {
	case errors.As(err, &silent):
		return silent.code
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &c):
		return c.code
	case errors.As(err, &diags), errors.As(err, &name), errors.As(err, &path), errors.As(err, &unknown), errors.Is(err, lab.ErrNoLab):
		return exitUsage
	case errors.As(err, &privilege), errors.As(err, &unsupported), errors.As(err, &missing), errors.As(err, &inotify), errors.As(err, &tool), errors.Is(err, exec.ErrNotFound), denied(err):
		return exitMissing
	default:
		return exitNo
	}
}

// denied tells a missing privilege from a file that nobody may touch.
func denied(err error) bool { return errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 }

// complain prints the error and what to do about it.
func (a *app) complain(ctx context.Context, err error, code int) {
	var left *leftError
	switch {
	case code == exitInterrupted && errors.Is(err, lab.ErrCleanUp):
		fmt.Fprintf(a.err, "slipway: interrupted: %v\n", err)
		return
	case code == exitInterrupted && errors.As(err, &left):
		fmt.Fprintf(a.err, "slipway: interrupted: %s\n", left.said)
		return
	case code == exitInterrupted && readerGone(ctx):
		return // nobody is there to be told
	case code == exitInterrupted:
		fmt.Fprintln(a.err, "slipway: interrupted, cleaned up")
		return
	}
	if a.logFormat == "json" {
		a.logger().Error(err.Error(), "exitCode", code, "hint", hint(err))
		return
	}
	if diags := topology.Diagnostics(nil); errors.As(err, &diags) && diags.Error() == err.Error() {
		fmt.Fprintln(a.err, err) // begins with file:line:col, which editors jump to
		return
	}
	fmt.Fprintf(a.err, "slipway: %v\n", err)
	if h := hint(err); h != "" {
		fmt.Fprintf(a.err, "hint: %s\n", h)
	}
}

// readerGone reports whether it was the end of our output's reader, as in
// `slipway inspect | head`, that interrupted the command.
func readerGone(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errReaderGone) }

func hint(err error) string {
	var notRun *podexec.NotRunError
	var program *exec.Error
	var own interface{ Hint() string }
	var unrehearsed *site.UnrehearsedError
	switch {
	case errors.As(err, &own):
		return own.Hint()
	case errors.As(err, &unrehearsed):
		return "`slipway install rehearse` goes through it in a lab; --unrehearsed carries it out all the same"
	case errors.Is(err, errNoneUp):
		return "`slipway up -f FILE` makes one"
	case errors.As(err, &notRun):
		return ""
	case errors.Is(err, lab.ErrNoLab):
		return "`slipway list` shows the labs that there are, `slipway up -f FILE` makes one"
	case denied(err):
		return "labs belong to root: run it with sudo"
	case errors.Is(err, lab.ErrBusy):
		return "wait for it to end, or end it; its work can be repeated or taken down at any point"
	case errors.As(err, &program) && strings.HasPrefix(program.Name, "iptables"):
		return "install the package iptables (`apt-get install iptables`); its programs are in /usr/sbin, which PATH must have"
	case errors.Is(err, exec.ErrNotFound):
		return "`slipway doctor` lists the packages that are needed, `make deps` installs them"
	}
	return ""
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "slipway",
		Short: "Build a Kubernetes cluster's network on one box and look at it from below",
		Long: `Slipway builds every node of a cluster as a network namespace, joins them by an
underlay that lives in namespaces too, and runs the flannel (UDP, VXLAN, host-gw)
and calico (BGP, IPIP) datapaths and kube-proxy's rules in them for real. The
machine's own network is never touched.`,
		Example: `  slipway demo                          # all five modes, traced and measured
  slipway up -f examples/flannel-3node.yaml
  slipway exec client -- curl -s http://nginx-svc:8080/
  slipway mode calico-bgp
  slipway down --all`,
		SilenceUsage: true, SilenceErrors: true, Version: version(), SuggestionsMinimumDistance: 2,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnv(cmd); err != nil {
				return err
			}
			return a.checkFormats(cmd)
		},
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetIn(a.in)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError("%w (see `%s --help`)", err, cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVarP(&a.lab, "lab", "L", "", "the lab to work on; may be left out when only one is up")
	f.StringVarP(&a.output, "output", "o", "table", "how results are printed: table, json, yaml (graph and trace have more)")
	f.StringVar(&a.logFormat, "log-format", "text", "how progress and logs are printed to stderr: text, json")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "say more")
	root.AddCommand(
		a.demoCmd(), a.upCmd(), a.downCmd(), a.listCmd(), a.inspectCmd(), a.statusCmd(),
		a.applyCmd(), a.deleteCmd(), a.getCmd(), a.execCmd(), a.shellCmd(), a.modeCmd(), a.traceCmd(), a.benchCmd(),
		a.captureCmd(), a.watchCmd(), a.outageCmd(), a.proxyCmd(), a.scenarioCmd(), a.graphCmd(), a.uiCmd(), a.componentsCmd(), a.installCmd(), a.kubeconfigCmd(), a.kubectlCmd(), a.doctorCmd(), a.schemaCmd(), a.versionCmd(), a.manCmd(),
		a.agentCmd(), a.occupyCmd(), a.imageStandInCmd(), a.meshCmd(), a.cniCmd(), a.daemonCmd(), a.speakerCmd(), a.nodeCmd(), a.kubeletsCmd(), a.hostAgentCmd(), a.benchServerCmd(), a.benchClientCmd(),
	)
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	return root
}

// noCommand complains of a first word that is no command.
func noCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	said := "see `slipway --help`"
	if like := root.SuggestionsFor(args[0]); len(like) > 0 {
		said = "did you mean " + strings.Join(like, " or ") + "?"
	}
	return usageError("unknown command %q (%s)", args[0], said)
}

// formatsOf is the annotation of a command with formats of its own.
const formatsOf = "formats"

// checkFormats refuses output that nothing prints, before anything is done.
func (a *app) checkFormats(cmd *cobra.Command) error {
	if !slices.Contains([]string{"text", "json"}, a.logFormat) {
		return usageError("log format %q is not one of text, json", a.logFormat)
	}
	if cmd.Name() == "graph" { // has its own
		return nil
	}
	if own := strings.Split(cmd.Annotations[formatsOf], ","); own[0] != "" {
		if !slices.Contains(own, a.output) {
			return usageError("output %q is not one of %s", a.output, strings.Join(own, ", "))
		}
		return nil
	}
	if a.output == "markdown" && cmd.CommandPath() == "slipway bench scale" {
		return nil
	}
	return checkOutput(a.output)
}

// wrapArgs makes wrong arguments a usage error.
func wrapArgs(c *cobra.Command) {
	check := c.Args
	if check == nil {
		return
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError("%w\nusage: %s (see `%s --help`)", err, strings.TrimSuffix(cmd.UseLine(), " [flags]"), cmd.CommandPath())
		}
		return nil
	}
}

// fromEnv sets each flag that was not given from its variable: --log-format
// from SLIPWAY_LOG_FORMAT.
func fromEnv(cmd *cobra.Command) error {
	var first error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "SLIPWAY_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		v, ok := os.LookupEnv(name)
		if !ok || f.Changed || first != nil {
			return
		}
		if err := cmd.Flags().Set(f.Name, v); err != nil {
			first = usageError("%s: %w", name, err)
		}
	})
	return first
}

func (a *app) logger() *slog.Logger {
	level := slog.LevelInfo
	if a.verbose {
		level = slog.LevelDebug
	}
	opts := &slog.HandlerOptions{Level: level}
	if a.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.err, opts))
	}
	return slog.New(slog.NewTextHandler(a.err, opts))
}

// release is set by the build (-X main.release=…).
var release = ""

func version() string {
	v := release
	if v == "" {
		v = "devel"
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 && !strings.Contains(v, s.Value[:7]) {
				v += "+" + s.Value[:12]
			}
		}
	}
	return v
}

// errNoneUp is [lab.ErrNoLab] of a command that named no lab.
var errNoneUp error = noneUpError{}

type noneUpError struct{}

func (noneUpError) Error() string        { return "no lab is up" }
func (noneUpError) Is(target error) bool { return target == lab.ErrNoLab }

// labName settles which lab a command works on.
func (a *app) labName() (string, error) {
	if a.lab != "" {
		return a.lab, lab.CheckName(a.lab)
	}
	names, err := lab.Names()
	if err != nil {
		return "", err
	}
	switch len(names) {
	case 0:
		return "", &coded{exitUsage, errNoneUp}
	case 1:
		return names[0], nil
	default:
		return "", usageError("several labs are up (%s): say which with -L", strings.Join(names, ", "))
	}
}
