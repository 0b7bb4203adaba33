package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/e2e/program"
	"slipway/installer/components"
	"slipway/installer/images"
	"slipway/internal/testnet"
	"slipway/lab"
)

// What to run.
const (
	// SetEnv is "quick" (the default) or "all".
	setEnv = "SLIPWAY_CONFORMANCE"
	// modesEnv are the modes to run in, separated by commas.
	modesEnv = "SLIPWAY_CONFORMANCE_MODES"
	// reportEnv is a directory for the reports; the test's own without it.
	reportEnv = "SLIPWAY_CONFORMANCE_REPORT"
)

// sets are the specs of a run, by name: a regular expression that ginkgo focuses on.
var sets = map[string]string{
	"all": `\[sig-network\].*\[Conformance\]`,
	// Pods that reach each other across nodes, a name that resolves, a service that
	// gets a port on every node.
	"quick": `\[sig-network\] (Networking Granular Checks: Pods should function for intra-pod communication: http|` +
		`DNS should provide DNS for the cluster|Services should be able to create a functioning NodePort service) .*\[Conformance\]`,
}

// modesOf are the modes of a set, where nothing else is said.
var modesOf = map[string]string{
	"all":   "flannel-vxlan,flannel-host-gw,calico-bgp,calico-ipip",
	"quick": "flannel-vxlan",
}

// cluster has two workers, on which the tests spread their pods.
const cluster = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: %s}
spec:
  components: full
  network: {mode: %s}
  nodes:
  - {name: master, roles: [control-plane, etcd]}
  - {name: node01, roles: [worker]}
  - {name: node02, roles: [worker]}
`

// exitMissing is the exit code by which slipway says that the machine lacks
// something.
const exitMissing = 3

// How long one thing may take on a busy machine.
const (
	upPatience    = 10 * time.Minute
	suitePatience = 60 * time.Minute
)

func TestConformance(t *testing.T) {
	testnet.Need(t, testnet.Root)
	set := os.Getenv(setEnv)
	if set == "" {
		set = "quick"
	}
	focus, known := sets[set]
	if !known {
		t.Fatalf("%s=%s: there are quick and all", setEnv, set)
	}
	suite, err := components.Lookup(t.Context(), "conformance")
	if err != nil {
		testnet.Lacks(t, testnet.Conformance, err)
	}
	kube, err := components.Lookup(t.Context(), "kubernetes")
	if err != nil {
		testnet.Lacks(t, testnet.Conformance, err)
	}
	archives, err := images.Build(t.Context(), "", "agnhost")
	if err != nil {
		testnet.Lacks(t, testnet.Conformance, err)
	}
	archive := ""
	for _, b := range archives { // one archive under all names
		archive = b.Path
	}
	t.Setenv(lab.StateDirEnv, fmt.Sprintf("%s%d", statePrefix, os.Getpid()))
	modes := os.Getenv(modesEnv)
	if modes == "" {
		modes = modesOf[set]
	}
	for _, mode := range strings.Split(modes, ",") {
		t.Run(mode, func(t *testing.T) {
			w := &world{T: t, name: fmt.Sprintf("cf%d", os.Getpid()), dir: t.TempDir(), e2e: suite.Path("e2e.test"), kubectl: kube.Path("kubectl")}
			w.up(mode, archive)
			w.run(mode, focus)
		})
	}
}

// world is a full lab to test.
type world struct {
	*testing.T
	name, dir    string
	e2e, kubectl string
}

// up brings the lab up, with the images of the tests in its workers.
func (w *world) up(mode, archive string) {
	w.Helper()
	file := filepath.Join(w.dir, "cluster.yaml")
	content := fmt.Appendf(nil, cluster, w.name, mode)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		w.Fatal(err)
	}
	program.Room(w, content)
	began := time.Now()
	var exit *exec.ExitError
	out, err := w.slipway("up", "-f", file, "-q")
	if err != nil && errors.As(err, &exit) && exit.ExitCode() == exitMissing {
		testnet.Lacks(w, testnet.Conformance, fmt.Errorf("up: %s", out))
	}
	if err != nil {
		w.Fatalf("up, which leaves nothing when it fails: %v\n%s", err, out)
	}
	w.Cleanup(func() {
		if out, err := w.slipway("down", w.name); err != nil {
			w.Errorf("down: %v\n%s", err, out)
		}
	})
	w.Logf("%s: up in %s", mode, time.Since(began).Round(time.Second))
	for _, node := range []string{"node01", "node02"} {
		if out, err := w.slipway("exec", "-L", w.name, node, "--", "ctr", "-n", "k8s.io", "images", "import", "--local", archive); err != nil {
			w.Fatalf("import the tests' images into %s: %v\n%s", node, err, out)
		}
	}
}

// slipway runs a command of the program to its end; also after the test's.
func (w *world) slipway(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), upPatience)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
	return string(out), err
}

// run runs the specs and reports each as a test of its own.
func (w *world) run(mode, focus string) {
	w.Helper()
	config := filepath.Join(w.dir, "kubeconfig")
	if out, err := w.slipway("kubeconfig", "-L", w.name, "--file", config); err != nil {
		w.Fatalf("kubeconfig: %v\n%s", err, out)
	}
	report := w.dir
	if d := os.Getenv(reportEnv); d != "" {
		report = filepath.Join(d, mode)
		if err := os.MkdirAll(report, 0o755); err != nil {
			w.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(w.Context(), suitePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.e2e,
		"--provider=skeleton", "--kubeconfig="+config, "--kubectl-path="+w.kubectl, "--num-nodes=2",
		"--allowed-not-ready-nodes=1", // the master, which runs no kubelet
		"--disable-log-dump", "--report-dir="+report,
		"--ginkgo.focus="+focus, "--ginkgo.no-color", "--ginkgo.seed=1", "--ginkgo.silence-skips", "--ginkgo.timeout="+suitePatience.String())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it reports, and deletes its namespaces
	cmd.WaitDelay = time.Minute
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	began := time.Now()
	err := cmd.Run()
	if werr := os.WriteFile(filepath.Join(report, "e2e.log"), said.Bytes(), 0o644); werr != nil {
		w.Error(werr)
	}
	specs, rerr := readReport(report)
	if rerr != nil || len(specs) == 0 {
		w.Fatalf("e2e.test: %v, no report: %v\n%s", err, rerr, tail(said.Bytes()))
	}
	failed := w.tell(mode, specs, time.Since(began))
	var exit *exec.ExitError
	if err != nil && failed == 0 && errors.As(err, &exit) {
		w.Errorf("e2e.test ended with %v, though no spec failed:\n%s", err, tail(said.Bytes()))
	}
}

// tell makes a test of every spec and prints them as a table.
func (w *world) tell(mode string, specs []spec, took time.Duration) (failed int) {
	var table strings.Builder
	for _, s := range specs {
		verdict := "pass"
		if s.Failure != "" {
			verdict = "FAIL"
			failed++
		}
		fmt.Fprintf(&table, "%s  %6.1f s  %s\n", verdict, s.Seconds, s.Name)
		w.Run(s.Name, func(t *testing.T) {
			if s.Failure != "" {
				t.Error(s.Failure)
			}
		})
	}
	w.Logf("%s: %d of %d specs passed in %s\n%s", mode, len(specs)-failed, len(specs), took.Round(time.Second), &table)
	return failed
}

// tail is the end of what a program said.
func tail(said []byte) []byte {
	const most = 4000
	return said[max(0, len(said)-most):]
}
