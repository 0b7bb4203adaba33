package components

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"slipway/internal/testnet"
	"slipway/lab"
)

// endSandbox kills the process that holds a pod's network, as the OOM killer may.
const endSandbox = `id=$(ctr -n k8s.io containers ls -q 'labels."io.cri-containerd.kind"==sandbox,labels."io.kubernetes.pod.uid"==UID') && ctr -n k8s.io tasks kill -s SIGKILL "$id"`

// One cluster of real kubelets is used by all who need one and break nothing.
func TestFull(t *testing.T) {
	w := newLab(t, strings.Replace(lightFile, "light", "full", 1), "kubernetes", "etcd", "containerd", "runc", "cni-plugins", "coredns", "pause", "echo")
	w.kubectl("create", "deployment", "web", "--image=nginx", "--port=80", "--replicas=2")
	w.kubectl("expose", "deployment", "web", "--type=NodePort", "--port=8080", "--target-port=80")
	w.inRules("web", w.running("app=web", 2))
	t.Run("agents on the nodes trace", w.remoteTrace)
	t.Run("agents on the nodes capture", w.remoteCapture)
	t.Run("the lab sees its pods", w.podsSeen)
	t.Run("verify", func(t *testing.T) {
		w.nodesReady(3)
		w.greenMatrix()
		w.redMatrix()
	})
	t.Run("by kubeconfig", w.byKubeconfig)
}

// podsSeen: the lab's commands find pods that real kubelets run: where the container
// runtime put them, and put them again.
func (w *world) podsSeen(t *testing.T) {
	pods := w.running("app=web", 2)
	w.seen(pods)
	w.must("trace", "--lab", w.name, "default/"+pods[0].Name, "web:8080")
	w.must("status", "--lab", w.name)

	t.Run("a sandbox made again", func(t *testing.T) {
		was := pods[0]
		r, err := lab.OpenMachine(w.name, was.Spec.NodeName).Client().Run(t.Context(), []string{"sh", "-c", strings.ReplaceAll(endSandbox, "UID", string(was.UID))}, nil)
		if err != nil || r.Code != 0 {
			t.Fatalf("%v %d %s", err, r.Code, r.Stderr)
		}
		testnet.Eventually(t, patience, "the pod has another address", func() (bool, string) {
			pods = w.running("app=web", 2)
			for _, p := range pods {
				if p.UID == was.UID && p.Status.PodIP == was.Status.PodIP {
					return false, p.Status.PodIP
				}
			}
			return true, ""
		})
		w.seen(pods)
	})
	t.Run("a pod deleted", func(t *testing.T) {
		gone := pods[0]
		w.kubectl("delete", "pod", gone.Name)
		w.seen(w.running("app=web", 2))
		testnet.Eventually(t, patience, "the lab has forgotten it", func() (bool, string) {
			out := w.must("get", "--lab", w.name, "pods")
			_, code := w.slipway("exec", "--lab", w.name, "default/"+gone.Name, "--", "true")
			return !strings.Contains(out, gone.Name) && code != 0, out
		})
	})
}

// seen waits until the lab finds every pod in its network namespace, with the
// address that the API says.
func (w *world) seen(pods []corev1.Pod) {
	w.t.Helper()
	for _, p := range pods {
		testnet.Eventually(w.t, patience, "the lab finds "+p.Name, func() (bool, string) {
			out, _ := w.slipway("exec", "--lab", w.name, "default/"+p.Name, "--", "ip", "-br", "addr", "show", "eth0")
			return strings.Contains(out, " "+p.Status.PodIP+"/"), out
		})
	}
}

// inRules waits until the rules of every node's kube-proxy have the pods as
// endpoints of a service: each learns of them from the API at its own time.
func (w *world) inRules(service string, pods []corev1.Pod) {
	w.t.Helper()
	for _, n := range w.state().Snapshot.Nodes {
		testnet.Eventually(w.t, patience, service+" in the rules of "+n.Name, func() (bool, string) {
			out, _ := w.slipway("proxy", "explain", "--lab", w.name, service, "--node", n.Name)
			return !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return !strings.Contains(out, p.Status.PodIP+":") }), out
		})
	}
}
