package components

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/internal/testnet"
)

// apply hands manifests to the API.
func (w *world) apply(text string) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.kubectl("apply", "-f", file)
}

// ready reports whether a pod runs, is ready, and is not on its way out.
func ready(p corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// running waits until exactly so many pods are there and all are ready.
func (w *world) running(selector string, count int) (out []corev1.Pod) {
	w.t.Helper()
	testnet.Eventually(w.t, patience, fmt.Sprintf("%d pods of %s run", count, selector), func() (bool, string) {
		list, err := w.api.CoreV1().Pods("default").List(w.t.Context(), metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return false, err.Error()
		}
		var saw []string
		out = nil
		for _, p := range list.Items {
			if saw = append(saw, fmt.Sprintf("%s %s %s", p.Name, p.Status.Phase, p.Status.PodIP)); ready(p) {
				out = append(out, p)
			}
		}
		return len(out) == count && len(list.Items) == count, strings.Join(saw, ", ")
	})
	return out
}

// onTheirNodes checks that pods are spread over the workers, with addresses of
// their nodes' ranges.
func (w *world) onTheirNodes(pods []corev1.Pod) {
	w.t.Helper()
	st, nodes, addresses := w.state(), map[string]int{}, map[string]string{}
	for _, p := range pods {
		n, ok := st.Snapshot.NodeByName(p.Spec.NodeName)
		a, err := netip.ParseAddr(p.Status.PodIP)
		in := n.PodCIDR.IsValid() && n.PodCIDR.Contains(a)
		for _, b := range n.Blocks {
			in = in || b.Contains(a)
		}
		if !ok || err != nil || !in || addresses[p.Status.PodIP] != "" {
			w.t.Errorf("pod %s on %s has %s", p.Name, p.Spec.NodeName, p.Status.PodIP)
		}
		if p.Status.HostIP != n.Address.String() {
			w.t.Errorf("pod %s on %s (%s) has the host %s", p.Name, n.Name, n.Address, p.Status.HostIP)
		}
		nodes[p.Spec.NodeName]++
		addresses[p.Status.PodIP] = p.Name
	}
	// Of two that were left of more, both may be on one.
	if len(nodes) != 2 && len(pods) > 2 || nodes["master01"] > 0 {
		w.t.Errorf("pods are on %v", nodes)
	}
}

// rotates checks that a service answers at an address by all of the pods in turn.
// Others may answer for a while: those that have just gone.
func (w *world) rotates(from, address string, pods []corev1.Pod) {
	w.t.Helper()
	got := map[string]bool{}
	testnet.Eventually(w.t, patience, fmt.Sprintf("%d pods answer at %s from %s", len(pods), address, from), func() (bool, string) {
		name, err := w.whoAnswers(from, address)
		if err != nil {
			return false, err.Error()
		}
		if !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Name == name }) {
			clear(got)
			return false, "also " + name
		}
		got[name] = true
		return len(got) == len(pods), fmt.Sprintf("so far %d", len(got))
	})
}

// whoAnswers asks once and reads the pod's name out of the answer.
func (w *world) whoAnswers(from, address string) (string, error) {
	out, code := w.slipway("exec", "--lab", w.name, from, "--", "curl", "-sS", "-m", "5", "http://"+address+"/")
	if code != 0 {
		return "", fmt.Errorf("curl: exit code %d: %s", code, out)
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "pod:"); ok {
			return strings.TrimSpace(name), nil
		}
	}
	return "", fmt.Errorf("nobody known: %s", out)
}
