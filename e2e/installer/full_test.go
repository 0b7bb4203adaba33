package installer

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/images"
	"slipway/internal/testnet"
)

// web is a workload of two pods, each on a node of its own, and its service.
const web = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - {name: web, image: "%s", imagePullPolicy: Never, ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
`

// full is a cluster in which everything is real, from bare machines, with the
// workload web.
type full struct {
	*rig.Rig
	plan installer.Plan
}

// workload is web as a manifest.
func workload(t *testing.T) []cluster.Manifest {
	t.Helper()
	image, err := images.Ref("echo")
	if err != nil {
		t.Fatal(err)
	}
	return []cluster.Manifest{{Name: "web.yaml", Data: fmt.Appendf(nil, web, image)}}
}

// newFull installs it, with programs beside those that every cluster has.
func newFull(t *testing.T, network string, more ...map[string]installer.Blob) *full {
	t.Helper()
	programs, archives := rig.Full(t)
	for _, m := range more {
		maps.Copy(programs, m)
	}
	f := &full{Rig: rig.New(t, "  components: full\n  network: "+network+"\n  nodes: [{name: master01, roles: [control-plane, etcd]}, {name: node01}, {name: node02}]\n", programs)}
	f.Inputs.Images = archives
	f.Inputs.Manifests = workload(t)
	var err error
	if f.plan, err = cluster.Plan(f.Inputs); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f.Engine.Tell = func(e installer.Event) {
		if e.Item == "" {
			t.Logf("%5.1fs %s, %s on %s: %.1fs", time.Since(began).Seconds(), e.Phase, e.Step, e.Host, e.Took.Seconds())
		}
	}
	if err := f.Engine.Apply(t.Context(), f.plan); err != nil {
		for name, n := range f.Nodes {
			out, _ := n.Sh("for u in kube-proxy kubelet slipway-agent flanneld calico-felix calico-confd calico-bird; do systemctl is-active $u || tail -n 15 /var/log/slipway/$u*; done 2>&1")
			t.Logf("%s: %s", name, out)
		}
		t.Fatal(err)
	}
	f.kubectl(t, "rollout status deployment/web --timeout=5m")
	return f
}

func (f *full) kubectl(t *testing.T, args string) string {
	t.Helper()
	out, code := f.Nodes["master01"].Sh(ctlKube + args)
	if code != 0 {
		t.Fatalf("kubectl %s: %s", args, out)
	}
	return out
}

// everyPod asks the service at every node until both pods have answered there.
func (f *full) everyPod(t *testing.T) {
	t.Helper()
	// A controller that was started once more may make one too many, and takes it away.
	var pods []string
	testnet.Eventually(t, time.Minute, "two pods run", func() (bool, string) {
		pods = strings.Fields(f.kubectl(t, "get pods -l app=web --field-selector status.phase=Running -o go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}'"))
		return len(pods) == 2, f.kubectl(t, "get pods -l app=web -o wide; "+ctlKube+"get events --field-selector involvedObject.kind=Pod")
	})
	for name, n := range f.Nodes {
		var seen string
		testnet.Eventually(t, 2*time.Minute, "both pods at "+name, func() (bool, string) {
			out, _ := n.Sh("curl -sS -m 2 http://127.0.0.1:30080/")
			seen += out
			return strings.Contains(seen, pods[0]) && strings.Contains(seen, pods[1]), out
		})
	}
}

// running checks that containers run, and are reached through services, logs and
// exec, also after a kubelet was started again.
func (f *full) running(t *testing.T) {
	t.Run("both pods answer at every node", f.everyPod)
	t.Run("logs and exec go to kubelets", func(t *testing.T) {
		f.kubectl(t, "logs deployment/web")
		if out := f.kubectl(t, "exec deployment/web -- sh -c 'echo hello'"); !strings.Contains(out, "hello") {
			t.Error(out)
		}
	})
	t.Run("a kubelet that is started again is the one that it was", func(t *testing.T) {
		n := f.Nodes["node01"]
		const identity = "sha256sum /etc/kubernetes/kubelet.conf; readlink /var/lib/kubelet/pki/kubelet-client-current.pem"
		before, _ := n.Sh(identity)
		if out, code := n.Sh("systemctl restart kubelet"); code != 0 {
			t.Fatal(out)
		}
		testnet.Eventually(t, 2*time.Minute, "kubelet is healthy", func() (bool, string) {
			out, code := n.Sh("curl -sSf http://127.0.0.1:10248/healthz")
			return code == 0, out
		})
		if after, _ := n.Sh(identity); after != before {
			t.Errorf("%s is not %s", after, before)
		}
		f.Unchanged(t, f.plan)
		// What it wrote itself follows when the API gets another address.
		if out, code := n.Sh("sed -i 's#server: .*#server: https://192.168.233.99:6443#' /etc/kubernetes/kubelet.conf"); code != 0 {
			t.Fatal(out)
		}
		if err := f.Engine.Apply(t.Context(), f.plan); err != nil {
			t.Fatal(err)
		}
		if after, _ := n.Sh(identity); after != before {
			t.Errorf("%s is not %s", after, before)
		}
	})
}

// nothing checks that what was undone is gone from all machines.
func (f *full) nothing(t *testing.T) {
	t.Helper()
	for _, name := range []string{"master01", "node01", "node02"} {
		out, _ := f.Nodes[name].Sh(`ps -eo args | grep -E '^(/[a-z/]*/)?(kube|etcd|containerd|slipway agent|flanneld|/echo|/pause|coredns)'; find /etc/kubernetes /etc/cni /etc/slipway /etc/containerd /opt/cni -type f 2>/dev/null; ls /usr/local/bin | grep -E 'kube|etcd|containerd|runc|ctr$|slipway'; ip -o link | grep -E 'cni0|flannel|veth'; iptables-save | grep -i flannel; grep -e /run/containerd -e /var/lib/kubelet/ /proc/mounts`)
		if strings.TrimSpace(out) != "" {
			t.Errorf("%s has still\n%s", name, out)
		}
	}
}

// The other family of modes, whose pods have routes of their own.
func TestFullCalico(t *testing.T) {
	f := newFull(t, "{mode: calico-bgp}")
	f.Unchanged(t, f.plan)
	f.everyPod(t)
}

// The agent and the plugins that are upstream's.
func TestFullUpstream(t *testing.T) {
	f := newFull(t, "{mode: flannel-vxlan, implementation: upstream}")
	f.Unchanged(t, f.plan)
	f.everyPod(t)
}
