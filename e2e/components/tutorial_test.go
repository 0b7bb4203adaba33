package components

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/topology"
)

// whoami is what a tutorial has its reader apply.
const whoami = `apiVersion: apps/v1
kind: Deployment
metadata: {name: whoami}
spec:
  replicas: 2
  selector: {matchLabels: {app: whoami}}
  template:
    metadata: {labels: {app: whoami}}
    spec: {containers: [{name: whoami, image: traefik/whoami, ports: [{name: web, containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: whoami}
spec: {type: NodePort, selector: {app: whoami}, ports: [{port: 8000, targetPort: web, nodePort: 30080}]}
`

// tutorial is the journey of the old tutorials: a workload by command and one by
// file, exposed on all nodes; replicas on all workers, whose pages come in turn
// through every node; endpoints and rules that follow when pods come and go.
func (u *user) tutorial(t *testing.T) {
	manifest := filepath.Join(u.dir, "whoami.yaml")
	if err := os.WriteFile(manifest, []byte(whoami), 0o644); err != nil {
		t.Fatal(err)
	}
	u.kubectl(t, "apply", "-f", manifest)
	u.kubectl(t, "create", "deployment", "nginx", "--image=nginx", "--replicas=2")
	u.kubectl(t, "expose", "deployment", "nginx", "--type=NodePort", "--port=80")
	u.answers(t, "30080", u.pods(t, "whoami", 2), u.nodes...)
	first := u.pods(t, "nginx", 2)
	u.onAllWorkers(t, "nginx")
	u.served(t, "nginx", first)

	u.kubectl(t, "scale", "deployment", "nginx", "--replicas=3")
	more := u.pods(t, "nginx", 3)
	u.served(t, "nginx", more)

	victim := slices.Sorted(maps.Keys(more))[0]
	u.kubectl(t, "delete", "pod", victim)
	others := u.pods(t, "nginx", 3)
	if _, there := others[victim]; there {
		t.Errorf("%s is there again: a Deployment makes pods of new names", victim)
	}
	u.served(t, "nginx", others)

	port := u.nodePort(t, "nginx")
	u.kubectl(t, "delete", "service/nginx", "deployment/nginx")
	u.kubectl(t, "delete", "-f", manifest)
	testnet.Eventually(t, patience, "nobody to answer at the node port of what is deleted", func() (bool, string) {
		pod, err := u.page(t, u.nodes[0], port)
		return err != nil && strings.Contains(err.Error(), "curl: 7"), fmt.Sprintf("%s %v", pod, err) // 7: refused
	})
}

// onAllWorkers checks that every worker has a pod of the app, and only workers.
func (u *user) onAllWorkers(t *testing.T, app string) {
	t.Helper()
	want := map[string]bool{}
	for _, n := range u.state(t).Snapshot.Nodes {
		if n.HasRole(topology.RoleWorker) {
			want[n.Name] = true
		}
	}
	got := map[string]bool{}
	for _, n := range strings.Fields(u.field(t, "{.items[*].spec.nodeName}", "pods", "-l", "app="+app)) {
		got[n] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("nodes with pods of %s (-want +got):\n%s", app, diff)
	}
}

// served checks all that can be seen of a service whose endpoints are these pods:
// its EndpointSlices, the pages through every node, the chains as they are
// explained, and that connections are shared out as the chains say.
func (u *user) served(t *testing.T, service string, pods map[string]string) {
	t.Helper()
	want := slices.Sorted(maps.Values(pods))
	testnet.Eventually(t, patience, "endpoints of "+service, func() (bool, string) {
		diff := cmp.Diff(want, u.endpoints(t, service))
		return diff == "", diff
	})
	u.answers(t, u.nodePort(t, service), pods, u.nodes...)
	for _, node := range u.nodes {
		text := strings.Join(strings.Fields(u.do(t, "proxy", "explain", service, "--node", node)), " ")
		for name, addr := range pods {
			if !strings.Contains(text, addr+":80 (default/"+name) {
				t.Errorf("what is explained of %s on %s lacks %s at %s:\n%s", service, node, name, addr, text)
			}
		}
		if share := fmt.Sprintf("1/%d of the new connections", len(pods)); !strings.Contains(text, share) {
			t.Errorf("what is explained of %s on %s lacks %q:\n%s", service, node, share, text)
		}
	}
	for _, via := range []string{"clusterip", "nodeport"} {
		// One check in a hundred says of shares that are right that they are not.
		testnet.Eventually(t, patience, "connections to be shared out as the rules say", func() (bool, string) {
			out, code := u.slipway("proxy", "check", service, "--via", via)
			return code == 0, out
		})
	}
}

const oneMaster = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: NAME}
spec:
  components: full
  nodes:
    - {name: master, roles: [control-plane, etcd]}
    - {name: n1, roles: [worker]}
    - {name: n2, roles: [worker]}
`

// TestTutorialFull: the same journey where kubelet and containerd run the pods,
// and a container that is killed, which is started again in the same pod.
func TestTutorialFull(t *testing.T) {
	u := newUser(t, oneMaster)
	u.tutorial(t)

	u.kubectl(t, "create", "deployment", "web", "--image=nginx", "--replicas=2")
	u.kubectl(t, "expose", "deployment", "web", "--type=NodePort", "--port=80")
	pods := u.pods(t, "web", 2)
	u.served(t, "web", pods)
	id := strings.TrimPrefix(u.field(t, "{.items[0].status.containerStatuses[0].containerID}", "pods", "-l", "app=web"), "containerd://")
	node := u.field(t, "{.items[0].spec.nodeName}", "pods", "-l", "app=web")
	r, err := lab.OpenMachine(u.name, node).Client().Run(t.Context(), []string{"ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", id}, nil)
	if err != nil || r.Code != 0 {
		t.Fatalf("kill the container: %v %+v", err, r)
	}
	testnet.Eventually(t, patience, "the container to be started again", func() (bool, string) {
		now := u.field(t, "{.items[0].status.containerStatuses[0].restartCount} {.items[0].status.containerStatuses[0].ready}", "pods", "-l", "app=web")
		return now == "1 true", now
	})
	if diff := cmp.Diff(pods, u.pods(t, "web", 2)); diff != "" {
		t.Errorf("the pod is another one (-before +after):\n%s", diff)
	}
	u.served(t, "web", pods)
}
