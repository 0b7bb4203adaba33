package components

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/e2e/program"
	"slipway/installer/components"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/kubeapi"
)

// user is somebody who has a lab with real components, and knows nothing but the
// program's commands.
type user struct {
	*world
	nodes []string // by name
}

// newUser brings up the lab of a cluster file, of light nodes or full ones.
func newUser(t *testing.T, file string) *user {
	t.Helper()
	need := map[string]testnet.Capability{"kubernetes": testnet.Kubernetes, "etcd": testnet.Kubernetes}
	if strings.Contains(file, "components: full") {
		for _, c := range []string{"containerd", "runc", "cni-plugins", "coredns", "echo", "pause"} {
			need[c] = testnet.Containerd
		}
	}
	for name, c := range need {
		if _, err := components.Lookup(t.Context(), name); err != nil {
			testnet.Lacks(t, c, err)
		}
	}
	program.Room(t, named(file, "lab"))
	u := &user{world: newWorld(t)}
	u.file = filepath.Join(u.dir, "cluster.yaml")
	if err := os.WriteFile(u.file, named(file, u.name), 0o644); err != nil {
		t.Fatal(err)
	}
	u.do(t, "up", "-f", u.file)
	var err error
	if u.api, err = kubeapi.Client(u.name); err != nil {
		t.Fatal(err)
	}
	for _, n := range u.state(t).Snapshot.Nodes {
		u.nodes = append(u.nodes, n.Name)
	}
	return u
}

// do runs a command of the program that has to succeed.
func (u *user) do(t *testing.T, args ...string) string {
	t.Helper()
	out, code := u.slipway(args...)
	if code != 0 {
		t.Fatalf("slipway %s: %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

func (u *user) state(t *testing.T) *lab.State {
	t.Helper()
	st, err := lab.ReadState(u.name)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// kubectl runs a command that has to succeed in the end: what the API server does
// not answer while it is away is asked again.
func (u *user) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	var out string
	testnet.Eventually(t, patience, "kubectl "+strings.Join(args, " "), func() (bool, string) {
		var code int
		out, code = u.slipway(append([]string{"kubectl"}, args...)...)
		return code == 0 || strings.Contains(out, "already exists"), out
	})
	return strings.TrimSpace(out)
}

// pods are the names of the ready pods of an app, once there are so many and no
// others, with their addresses.
func (u *user) pods(t *testing.T, app string, count int) map[string]string {
	t.Helper()
	var out map[string]string
	u.ask(t, fmt.Sprintf("%d pods of %s", count, app), func() error {
		list, err := u.api.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
		if err != nil {
			return err
		}
		out = map[string]string{}
		for _, p := range list.Items {
			if ready(p) {
				out[p.Name] = p.Status.PodIP
			}
		}
		if len(out) != count || len(list.Items) != count {
			return fmt.Errorf("%d of %d are ready", len(out), len(list.Items))
		}
		return nil
	})
	return out
}

// ask asks the API until it has what is asked for: it may be away for a while.
func (u *user) ask(t *testing.T, what string, f func() error) {
	t.Helper()
	testnet.Eventually(t, patience, what, func() (bool, string) {
		err := f()
		return err == nil || apierrors.IsAlreadyExists(err), fmt.Sprint(err)
	})
}

// field is a field of objects, by kubectl's JSONPath.
func (u *user) field(t *testing.T, path string, objects ...string) string {
	t.Helper()
	return u.kubectl(t, append(append([]string{"get"}, objects...), "-o", "jsonpath="+path)...)
}

// nodePort is the number that a service was given.
func (u *user) nodePort(t *testing.T, service string) string {
	t.Helper()
	return u.field(t, "{.spec.ports[0].nodePort}", "service", service)
}

// page fetches a service's page through the node port of a node, as somebody
// outside, and returns whose it is.
func (u *user) page(t *testing.T, node, port string) (pod string, err error) {
	t.Helper()
	n, ok := u.state(t).Snapshot.NodeByName(node)
	if !ok {
		t.Fatalf("no node %s", node)
	}
	out, code := u.slipway("exec", lab.ExternalName, "--", "curl", "-sS", "-m", "2", fmt.Sprintf("http://%s:%s/", n.Address, port))
	if code != 0 {
		return "", fmt.Errorf("curl: %d: %s", code, strings.TrimSpace(out))
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "pod:"); ok {
			return strings.TrimSpace(name), nil
		}
	}
	return "", fmt.Errorf("no pod's page: %s", out)
}

// answers waits until the pods, each of them and no others, answer through the
// node port of every one of the nodes.
func (u *user) answers(t *testing.T, port string, pods map[string]string, nodes ...string) {
	t.Helper()
	for _, n := range nodes {
		got := map[string]bool{}
		testnet.Eventually(t, patience, fmt.Sprintf("pages of %d pods through %s:%s", len(pods), n, port), func() (bool, string) {
			pod, err := u.page(t, n, port)
			if err != nil {
				return false, err.Error()
			}
			if _, ok := pods[pod]; !ok {
				clear(got)
				return false, "a page of " + pod
			}
			got[pod] = true
			return len(got) == len(pods), fmt.Sprintf("%d of them so far", len(got))
		})
	}
}

// endpoints are a service's addresses as its EndpointSlices have them.
func (u *user) endpoints(t *testing.T, service string) []string {
	t.Helper()
	out := strings.Fields(u.field(t, "{.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}", "endpointslices", "-l", "kubernetes.io/service-name="+service))
	slices.Sort(out)
	return out
}

// anew shows that everything works, from the API to the packet: a new workload is
// made, placed and plugged in, its service gets endpoints, and the rules of every
// node lead there.
func (u *user) anew(t *testing.T) {
	t.Helper()
	worlds++ // a number that nobody has had
	labels := map[string]string{"app": fmt.Sprintf("anew%d", worlds)}
	meta := metav1.ObjectMeta{Name: labels["app"], Labels: labels}
	ctx, deployments, services := t.Context(), u.api.AppsV1().Deployments("default"), u.api.CoreV1().Services("default")
	u.ask(t, "a new deployment", func() error {
		_, err := deployments.Create(ctx, &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}}},
		}}, metav1.CreateOptions{})
		return err
	})
	u.ask(t, "a new service", func() error {
		_, err := services.Create(ctx, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, Selector: labels, Ports: []corev1.ServicePort{{Port: 80}},
		}}, metav1.CreateOptions{})
		return err
	})
	pods := u.pods(t, meta.Name, 1)
	var port string
	u.ask(t, "the new service's node port", func() error {
		s, err := services.Get(ctx, meta.Name, metav1.GetOptions{})
		if err == nil {
			port = strconv.Itoa(int(s.Spec.Ports[0].NodePort))
		}
		return err
	})
	u.answers(t, port, pods, u.nodes...)
	u.ask(t, "the new ones to be deleted", func() error {
		return errors.Join(gone(deployments.Delete(ctx, meta.Name, metav1.DeleteOptions{})), gone(services.Delete(ctx, meta.Name, metav1.DeleteOptions{})))
	})
}

// gone takes it for good that something is not there.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
