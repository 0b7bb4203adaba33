package components

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/e2e/program"
	"slipway/installer/verify"
	"slipway/internal/testnet"
	"slipway/lab"
)

// verified runs the matrix, and says what is not open in it.
func (w *world) verified(args ...string) (verify.Report, int) {
	w.t.Helper()
	said := program.Run(w.t, 2*patience, exec.Command(binary, append([]string{"install", "verify", "--lab", w.name, "-o", "json"}, args...)...))
	var r verify.Report
	if err := json.Unmarshal([]byte(said.Out), &r); err != nil {
		w.t.Fatalf("%v: %s", err, said)
	}
	return r, said.Code
}

// nothingOfVerify waits until no namespace of a verification is left.
func (w *world) nothingOfVerify() {
	w.t.Helper()
	testnet.Eventually(w.t, patience, "no namespace is left", func() (bool, string) {
		list, err := w.api.CoreV1().Namespaces().List(w.t.Context(), metav1.ListOptions{LabelSelector: "slipway/verify"})
		if err != nil {
			return false, err.Error()
		}
		var left []string
		for _, n := range list.Items {
			left = append(left, n.Name)
		}
		return len(left) == 0, fmt.Sprint(left)
	})
}

// greenMatrix: all ways are open where all is well, and the check leaves nothing.
func (w *world) greenMatrix() {
	w.t.Helper()
	r, code := w.verified("--patience", "1m")
	for _, c := range r.Failed() {
		w.t.Errorf("%s: %s", c, c.Reason)
	}
	// Three nodes: from pods and nodes 5 addresses of 3 servers each, from outside
	// each server's port at each node.
	if want := 2*3*5*3 + 3*3; code != 0 || !r.OK || len(r.Cells) != want {
		w.t.Errorf("exit code %d, %d cells, want 0 and %d", code, len(r.Cells), want)
	}
	w.nothingOfVerify()
}

// redMatrix has one node drop connections that come from elsewhere to its pods.
func (w *world) redMatrix() {
	w.t.Helper()
	n, err := w.api.CoreV1().Nodes().Get(w.t.Context(), "node02", metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	rule := []string{"FORWARD", "-p", "tcp", "-d", n.Spec.PodCIDR, "!", "-i", "cni0", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"}
	w.inNode("node02", append([]string{"iptables", "-t", "mangle", "-A"}, rule...)...)
	r, code := w.verified("--patience", "20s")
	w.inNode("node02", append([]string{"iptables", "-t", "mangle", "-D"}, rule...)...)
	if code != 1 || r.OK {
		w.t.Errorf("exit code %d, ok %t", code, r.OK)
	}
	for _, c := range r.Cells {
		// Outside a node there is no way to its pods but the one that is closed.
		if want := c.Node != "node02" || c.FromNode == "node02"; c.OK != want {
			w.t.Errorf("%s: open %t (%s), want %t", c, c.OK, c.Reason, want)
		} else if !want && c.Reason != "no answer" {
			w.t.Errorf("%s: the reason is %q", c, c.Reason)
		}
	}
	w.nothingOfVerify()
}

func (w *world) inNode(node string, argv ...string) {
	w.t.Helper()
	r, err := lab.OpenMachine(w.name, node).Client().Run(w.t.Context(), argv, nil)
	if err != nil || r.Code != 0 {
		w.t.Fatalf("%v: %v %d %s", argv, err, r.Code, r.Stderr)
	}
}

// interruptedMatrix interrupts while servers and clients are there.
func (w *world) interruptedMatrix() {
	w.t.Helper()
	cmd := exec.Command(binary, "install", "verify", "--lab", w.name)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	testnet.Eventually(w.t, patience, "it has begun", func() (bool, string) {
		list, err := w.api.CoreV1().Namespaces().List(w.t.Context(), metav1.ListOptions{LabelSelector: "slipway/verify"})
		if err != nil && !apierrors.IsNotFound(err) {
			return false, err.Error()
		}
		return len(list.Items) == 1, fmt.Sprint(len(list.Items))
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		w.t.Fatal(err)
	}
	_ = cmd.Wait() // the code says it
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		w.t.Errorf("interrupted, it ends with %d", code)
	}
	list, err := w.api.CoreV1().Namespaces().List(w.t.Context(), metav1.ListOptions{LabelSelector: "slipway/verify"})
	if err != nil || len(list.Items) > 0 {
		w.t.Errorf("it has left %v: %v", list.Items, err)
	}
}
