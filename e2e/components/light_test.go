package components

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/e2e/program"
	"slipway/internal/testnet"
	"slipway/lab"
)

const lightFile = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: NAME}
spec:
  components: light
  nodes:
    - {name: master01, roles: [control-plane, etcd]}
    - {name: node01, roles: [worker]}
    - {name: node02, roles: [worker]}
`

// A user's first hour with a cluster of real components whose kubelets are
// played: the real scheduler places, the real controllers follow, the real
// kube-proxy writes the rules, and packets pass.
func TestLight(t *testing.T) {
	built(t, "kubernetes", "etcd")
	scheduler := filepath.Join(t.TempDir(), "scheduler")
	sum := program.AnotherBuild(t, "kubernetes", "kube-scheduler", scheduler)
	w := newLab(t, strings.Replace(lightFile, "  nodes:", "  programs: [{name: kube-scheduler, file: "+scheduler+"}]\n  nodes:", 1))
	w.nodesReady(3)
	t.Run("a program of one's own runs", func(t *testing.T) {
		out, err := lab.OpenMachine(w.name, "master01").Client().Run(t.Context(), []string{"sh", "-c", "readlink /proc/$(systemctl show kube-scheduler -p MainPID --value)/exe"}, nil)
		if err != nil || !strings.Contains(string(out.Stdout), sum) {
			t.Errorf("%v: the scheduler is %s, not %s", err, out.Stdout, sum)
		}
	})

	begin := time.Now()
	w.kubectl("create", "deployment", "web", "--image=nginx", "--port=80")
	w.kubectl("expose", "deployment", "web", "--type=NodePort", "--port=8080", "--target-port=80")
	w.kubectl("scale", "deployment", "web", "--replicas=6")
	pods := w.running("app=web", 6)
	t.Logf("6 pods run after %v", time.Since(begin))
	w.onTheirNodes(pods)
	svc, err := w.api.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	clusterIP := fmt.Sprintf("%s:8080", svc.Spec.ClusterIP)
	everywhere := func(pods []corev1.Pod) {
		t.Helper()
		w.rotates("node01", clusterIP, pods)
		w.rotates(pods[0].Namespace+"/"+pods[0].Name, "web:8080", pods) // by the cluster's DNS
		for _, n := range w.state().Snapshot.Nodes {
			w.rotates(lab.ExternalName, fmt.Sprintf("%s:%d", n.Address, svc.Spec.Ports[0].NodePort), pods)
		}
	}
	everywhere(pods)

	t.Run("the lab's own commands see what the API has", func(t *testing.T) {
		out := w.must("get", "--lab", w.name, "pods")
		for _, p := range pods {
			if !strings.Contains(out, p.Name) || !strings.Contains(out, p.Status.PodIP) {
				t.Errorf("pod %s (%s) is not in\n%s", p.Name, p.Status.PodIP, out)
			}
		}
		w.must("trace", "--lab", w.name, lab.ExternalName, w.state().Snapshot.Nodes[0].Address.String()+fmt.Sprintf(":%d", svc.Spec.Ports[0].NodePort))
		// One check in a hundred says of shares that are right that they are not.
		testnet.Eventually(t, patience, "connections to be shared out as the rules say", func() (bool, string) {
			out, code := w.slipway("proxy", "check", "--lab", w.name, "default/web")
			return code == 0, out
		})
		w.must("status", "--lab", w.name)
	})
	t.Run("verify", func(t *testing.T) {
		w.greenMatrix()
		w.redMatrix()
		w.interruptedMatrix()
	})
	t.Run("a pod deleted is replaced and endpoints follow", func(t *testing.T) {
		gone := pods[0]
		w.kubectl("delete", "pod", gone.Name)
		pods = w.running("app=web", 6)
		if slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.UID == gone.UID }) {
			t.Errorf("%s is still there", gone.Name)
		}
		everywhere(pods)
	})
	t.Run("one deleted by force vanishes", func(t *testing.T) {
		gone := pods[0]
		w.kubectl("delete", "pod", gone.Name, "--force", "--grace-period=0")
		pods = w.running("app=web", 6)
		testnet.Eventually(t, patience, "it is gone from the lab", func() (bool, string) {
			out := w.must("get", "--lab", w.name, "pods")
			return !strings.Contains(out, gone.Name), out
		})
	})
	t.Run("scaled down", func(t *testing.T) {
		w.kubectl("scale", "deployment", "web", "--replicas=2")
		pods = w.running("app=web", 2)
		everywhere(pods)
	})
	t.Run("another mode gives other addresses", func(t *testing.T) {
		old := pods
		w.must("mode", "--lab", w.name, "calico-bgp")
		testnet.Eventually(t, patience, "statuses have the new addresses", func() (bool, string) {
			pods = w.running("app=web", 2)
			for _, p := range pods {
				if slices.ContainsFunc(old, func(o corev1.Pod) bool { return o.Status.PodIP == p.Status.PodIP }) || len(p.Status.PodIPs) != 1 {
					return false, fmt.Sprint(p.Name, " ", p.Status.PodIPs)
				}
			}
			return true, ""
		})
		w.onTheirNodes(pods)
		everywhere(pods)
	})
	t.Run("an API server killed", func(t *testing.T) {
		w.must("exec", "--lab", w.name, "master01", "--", "true")
		out, err := lab.OpenMachine(w.name, "master01").Client().Run(t.Context(), []string{"sh", "-c", "kill -9 $(systemctl show kube-apiserver -p MainPID --value)"}, nil)
		if err != nil || out.Code != 0 {
			t.Fatalf("%v %d %s", err, out.Code, out.Stderr)
		}
		testnet.Eventually(t, patience, "the API takes orders again", func() (bool, string) {
			out, code := w.slipway("kubectl", "--lab", w.name, "scale", "deployment", "web", "--replicas=4")
			return code == 0, out
		})
		pods = w.running("app=web", 4)
		w.nodesReady(3)
		everywhere(pods)
	})
	t.Run("only one plays", func(t *testing.T) {
		if out, code := w.slipway("kubelets", "--lab", w.name); code != 1 || !strings.Contains(out, "another process") {
			t.Errorf("%d %s", code, out)
		}
	})
	t.Run("up again changes nothing", func(t *testing.T) {
		before := w.uids()
		w.must("up", "-f", w.file)
		if got := w.uids(); got != before {
			t.Errorf("pods were\n%s\nand are\n%s", before, got)
		}
	})
}

// uids are those of all pods.
func (w *world) uids() string {
	w.t.Helper()
	list, err := w.api.CoreV1().Pods("").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	var out strings.Builder
	for _, p := range list.Items {
		fmt.Fprintln(&out, p.Namespace, p.Name, p.UID)
	}
	return out.String()
}

// nodesReady waits until so many nodes are ready and may have pods.
func (w *world) nodesReady(count int) {
	w.t.Helper()
	testnet.Eventually(w.t, patience, "all nodes are ready", func() (bool, string) {
		list, err := w.api.CoreV1().Nodes().List(w.t.Context(), metav1.ListOptions{})
		if err != nil {
			return false, err.Error()
		}
		n := 0
		for _, node := range list.Items {
			if slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
				return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
			}) && !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeNotReady }) {
				n++
			}
		}
		return n == count, fmt.Sprintf("%d of %d", n, count)
	})
}

const kinds = `apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec: {template: {metadata: {labels: {app: job}}, spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: [sleep, "1"]}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: x, ports: [{containerPort: 5432}]}]}}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: host}
spec:
  selector: {matchLabels: {app: host}}
  template: {metadata: {labels: {app: host}}, spec: {hostNetwork: true, tolerations: [{operator: Exists}], containers: [{name: c, image: x}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: probed, labels: {app: probed}}
spec:
  initContainers: [{name: first, image: i}]
  containers:
    - {name: good, image: x, ports: [{name: http, containerPort: 80}], readinessProbe: {httpGet: {port: http, path: /}, periodSeconds: 1}}
    - {name: bad, image: x, readinessProbe: {tcpSocket: {port: 81}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: probed}
spec: {selector: {app: probed}, ports: [{port: 80}]}
`

// The other kinds of workloads, and pods whose containers a light node cannot run.
func TestLightKinds(t *testing.T) {
	w := newLab(t, strings.Replace(lightFile, "components: light", "components: light\n  network: {mode: flannel-host-gw}\n  proxy: {mode: nftables}", 1), "kubernetes", "etcd")
	w.apply(kinds)
	db := w.running("app=db", 2)
	// The name comes with the endpoints, which a controller writes once the pod is ready.
	testnet.Eventually(t, time.Minute, "db-1 has a name with the address "+db[1].Status.PodIP, func() (bool, string) {
		out, _ := w.slipway("exec", "--lab", w.name, "default/db-0", "--", "getent", "hosts", "db-1.db.default.svc.cluster.local")
		return strings.Contains(out, db[1].Status.PodIP), out
	})
	t.Run("a stateful pod comes back under its name", func(t *testing.T) {
		w.kubectl("delete", "pod", "db-0")
		again := w.running("app=db", 2)
		if again[0].Name != "db-0" || again[0].UID == db[0].UID || again[1].UID != db[1].UID {
			t.Errorf("%s %s, %s %s", again[0].Name, again[0].UID, again[1].Name, again[1].UID)
		}
	})
	t.Run("pods in their nodes' network", func(t *testing.T) {
		for _, p := range w.running("app=host", 3) {
			if n, _ := w.state().Snapshot.NodeByName(p.Spec.NodeName); p.Status.PodIP != n.Address.String() || p.Status.HostIP != p.Status.PodIP {
				t.Errorf("%s on %s has %s", p.Name, n.Name, p.Status.PodIP)
			}
		}
	})
	t.Run("a job does not pretend to run", func(t *testing.T) {
		p := w.running("app=job", 1)[0]
		testnet.Eventually(t, patience, "an event says so", func() (bool, string) {
			out := w.kubectl("describe", "pod", p.Name)
			return strings.Contains(out, "runs no containers: the command is not run"), out
		})
		w.kubectl("delete", "job", "job")
		w.running("app=job", 0)
	})
	t.Run("probes decide", func(t *testing.T) {
		testnet.Eventually(t, patience, "one container is ready and one is not", func() (bool, string) {
			p, err := w.api.CoreV1().Pods("default").Get(t.Context(), "probed", metav1.GetOptions{})
			if err != nil {
				return false, err.Error()
			}
			saw := ""
			for _, c := range p.Status.ContainerStatuses {
				saw += fmt.Sprint(c.Name, c.Ready, " ")
			}
			for _, c := range p.Status.InitContainerStatuses {
				saw += fmt.Sprint(c.Name, c.State.Terminated != nil && c.State.Terminated.Reason == "Completed")
			}
			return saw == "goodtrue badfalse firsttrue" && !ready(*p), saw
		})
		if out, code := w.slipway("exec", "--lab", w.name, "node01", "--", "curl", "-s", "-m", "1", "http://"+w.kubectl("get", "service", "probed", "-o", "jsonpath={.spec.clusterIP}")); code == 0 {
			t.Errorf("a service without a ready endpoint answers: %s", out)
		}
	})
}
