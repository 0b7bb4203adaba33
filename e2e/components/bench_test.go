package components

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/e2e/program"
	"slipway/installer/verify"
	"slipway/internal/testnet"
	"slipway/lab/bench/report"
)

// benchPatience bounds a bench of few rounds, with the image on its way to the nodes.
const benchPatience = 5 * time.Minute

// byKubeconfig uses the cluster as a user does who has nothing but a kubeconfig.
func (w *world) byKubeconfig(t *testing.T) {
	file := filepath.Join(w.dir, "kubeconfig")
	w.must("kubeconfig", "--lab", w.name, "--file", file)
	t.Run("verify", func(t *testing.T) {
		raw, code := said(t, "install", "verify", "--kubeconfig", file, "--patience", "1m", "-o", "json")
		var r verify.Report
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		for _, c := range r.Failed() {
			t.Errorf("%s: %s", c, c.Reason)
		}
		if code != 0 || len(r.Cells) == 0 {
			t.Errorf("exit code %d, %d cells", code, len(r.Cells))
		}
	})
	t.Run("bench", func(t *testing.T) { w.kubeBench(t, file) })
	t.Run("bench interrupted", func(t *testing.T) { w.kubeBenchInterrupted(t, file) })
}

// kubeBench measures every path and target once, and leaves nothing.
func (w *world) kubeBench(t *testing.T, file string) {
	raw, code := said(t, "bench", "--kubeconfig", file, "--workloads", "tcp-stream,udp-stream,tcp-rr", "--paths", "other-node,same-node,node",
		"--targets", "pod,clusterip", "--streams", "1", "--duration", "1s", "--rounds", "1", "--max-rounds", "1", "--budget", "0", "-o", "json")
	r, err := report.Read(bytes.NewReader(raw), "stdout")
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v\n%s", code, err, raw)
	}
	var rows []string
	for _, s := range r.Series {
		rows = append(rows, strings.Join([]string{s.Workload, s.Path, s.Target}, " "))
		i := slices.IndexFunc(s.Metrics, func(m report.Metric) bool { return m.Name == s.Main })
		if i < 0 || s.Metrics[i].Summary.N != 1 || s.Metrics[i].Summary.Median <= 0 || s.MTU == 0 {
			t.Errorf("%s has no %s, or an MTU of %d: %+v", rows[len(rows)-1], s.Main, s.MTU, s.Metrics)
		}
	}
	slices.Sort(rows)
	var want []string
	for _, load := range []string{"tcp-rr", "tcp-stream", "udp-stream"} {
		want = append(want, load+" node ", load+" other-node clusterip", load+" other-node pod", load+" same-node clusterip", load+" same-node pod")
	}
	if !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q", rows, want)
	}
	if len(r.Conditions.Nodes) != 2 || r.Conditions.Cluster == "" {
		t.Errorf("conditions %+v", r.Conditions)
	}
	w.nothingOfBench(t)
}

func (w *world) kubeBenchInterrupted(t *testing.T, file string) {
	cmd := exec.CommandContext(t.Context(), binary, "bench", "--kubeconfig", file, "--workloads", "tcp-rr", "--rounds", "1000", "--max-rounds", "1000", "--budget", "0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, benchPatience, "a client's Job is there", func() (bool, string) {
		list, err := w.api.BatchV1().Jobs("slipway-bench").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false, err.Error()
		}
		return len(list.Items) > 0, ""
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the code says it
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("interrupted, it ends with %d\n%s", code, out.String())
	}
	w.nothingOfBench(t)
}

// nothingOfBench checks that neither the namespace nor the image has stayed.
func (w *world) nothingOfBench(t *testing.T) {
	t.Helper()
	if _, err := w.api.CoreV1().Namespaces().Get(t.Context(), "slipway-bench", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the namespace has stayed: %v", err)
	}
	for _, n := range []string{"node01", "node02"} {
		out := w.must("exec", "--lab", w.name, n, "--", "ctr", "--namespace", "k8s.io", "images", "ls", "-q")
		if strings.Contains(out, "slipway.local/slipway:") {
			t.Errorf("the image has stayed on %s", n)
		}
	}
}

// said runs a command, and returns what it printed as its result.
func said(t *testing.T, args ...string) ([]byte, int) {
	t.Helper()
	s := program.Run(t, benchPatience, exec.Command(binary, args...))
	if s.Code != 0 {
		t.Log(s)
	}
	return []byte(s.Out), s.Code
}
