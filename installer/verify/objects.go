package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// world is what was made, as it is then.
type world struct {
	nodes []node
	dns   string
}

// node is one with its server and its clients. What keeps it from being asked, or
// from asking, is in trouble.
type node struct {
	name      string
	address   netip.Addr
	trouble   string // the node's own: it is not ready
	server    pod
	client    pod
	onNode    pod // with the node's network; only where nothing else runs there
	clusterIP string
	nodePort  int
}

type pod struct {
	name, address string
	trouble       string // why it does not run
}

// label is of the index of a node whose server a service leads to.
const label = "slipway/verify-node"

// nodes asks for the cluster's.
func (v *verification) nodes(ctx context.Context) ([]node, error) {
	var list corev1.NodeList
	if err := v.get(ctx, &list, "nodes"); err != nil {
		return nil, err
	}
	var out []node
	for _, n := range list.Items {
		x := node{name: n.Name}
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP && ip.Is4() && !x.address.IsValid() {
				x.address = ip
			}
		}
		i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
		switch {
		case i < 0 || n.Status.Conditions[i].Status != corev1.ConditionTrue:
			x.trouble = "the node is not ready"
		case !x.address.IsValid():
			x.trouble = "the node has no IPv4 address"
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		return nil, errors.New("the cluster has no nodes")
	}
	return out, nil
}

func (v *verification) get(ctx context.Context, into any, args ...string) error {
	raw, err := v.Kubectl(ctx, nil, append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("read what kubectl says of %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// arrive makes the objects and waits until servers and clients run and services
// lead to them. What does not come about is for the report.
func (v *verification) arrive(ctx context.Context, nodes []node) (*world, error) {
	w := &world{nodes: nodes, dns: v.DNS}
	text, err := v.objects(nodes)
	if err != nil {
		return nil, err
	}
	v.made = true
	if _, err := v.Kubectl(ctx, text, "apply", "-f", "-"); err != nil {
		return nil, err
	}
	if w.dns == "" {
		var svc corev1.Service
		if err := v.get(ctx, &svc, "-n", "kube-system", "service", "kube-dns"); err == nil {
			w.dns = svc.Spec.ClusterIP
		}
	}
	for end := time.Now().Add(readyWithin); ; {
		missing, err := v.look(ctx, w)
		if err != nil {
			return nil, err
		}
		if missing == 0 || time.Now().After(end) {
			return w, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(again):
		}
	}
}

// look reads how far everything is, and returns how much is missing.
func (v *verification) look(ctx context.Context, w *world) (missing int, err error) {
	var list struct{ Items []json.RawMessage }
	if err := v.get(ctx, &list, "-n", v.namespace, "pods,services,endpointslices"); err != nil {
		return 0, err
	}
	pods, leads := map[string]pod{}, map[string]bool{}
	services := map[string]corev1.Service{}
	for _, raw := range list.Items {
		var kind metav1.TypeMeta
		var p corev1.Pod
		var s corev1.Service
		var e discoveryv1.EndpointSlice
		if err := json.Unmarshal(raw, &kind); err != nil {
			return 0, err
		}
		switch kind.Kind {
		case "Pod":
			err = json.Unmarshal(raw, &p)
			pods[p.Name] = pod{name: p.Name, address: p.Status.PodIP, trouble: troubleOf(&p)}
		case "Service":
			err = json.Unmarshal(raw, &s)
			services[s.Name] = s
		case "EndpointSlice":
			err = json.Unmarshal(raw, &e)
			leads[e.Labels[discoveryv1.LabelServiceName]] = len(e.Endpoints) > 0
		}
		if err != nil {
			return 0, fmt.Errorf("read a %s: %w", kind.Kind, err)
		}
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.trouble != "" {
			continue
		}
		n.server, n.client, n.onNode = pods[serverName(i)], pods[clientName(i)], pods[onNodeName(i)]
		s := services[serverName(i)]
		n.clusterIP = s.Spec.ClusterIP
		for _, p := range s.Spec.Ports {
			n.nodePort = int(p.NodePort)
		}
		if n.server.trouble != "" || n.client.trouble != "" || n.onNode.trouble != "" || !leads[serverName(i)] {
			missing++
		}
	}
	return missing, nil
}

// troubleOf is why a pod does not run; empty if it does.
func troubleOf(p *corev1.Pod) string {
	if p.Status.Phase == corev1.PodRunning && p.Status.PodIP != "" {
		return ""
	}
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			return "the pod does not run: " + strings.TrimSpace(w.Reason+" "+w.Message)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Status == corev1.ConditionFalse && c.Message != "" {
			return "the pod does not run: " + c.Message
		}
	}
	return fmt.Sprintf("the pod does not run: it is %s", p.Status.Phase)
}

func serverName(i int) string { return "to-" + strconv.Itoa(i) }
func clientName(i int) string { return "from-" + strconv.Itoa(i) }
func onNodeName(i int) string { return "node-" + strconv.Itoa(i) }

const headless = "all"

// objects is everything that is made, in one manifest.
func (v *verification) objects(nodes []node) ([]byte, error) {
	mark := map[string]string{markLabel: "true"}
	namespace := &corev1.Namespace{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		// Pods with the node's network are refused elsewhere (Pod Security Standards).
		ObjectMeta: metav1.ObjectMeta{Name: v.namespace, Labels: map[string]string{markLabel: "true", "pod-security.kubernetes.io/enforce": "privileged"}},
	}
	// An account of its own: the one that every namespace gets comes a moment later.
	account := &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: v.meta("verify", mark)}
	out := []runtime.Object{namespace, account, v.service(headless, corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: mark})}
	for i, n := range nodes {
		if n.trouble != "" {
			continue
		}
		own := map[string]string{label: strconv.Itoa(i)}
		out = append(out,
			v.service(serverName(i), corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: own}),
			v.pod(serverName(i), n.name, map[string]string{label: strconv.Itoa(i), markLabel: "true"}, false),
			v.pod(clientName(i), n.name, nil, false))
		if v.Node == nil {
			out = append(out, v.pod(onNodeName(i), n.name, nil, true))
		}
	}
	var text []byte
	for _, obj := range out {
		raw, err := json.Marshal(obj)
		if err != nil {
			return nil, fmt.Errorf("write %T: %w", obj, err)
		}
		text = append(append(text, raw...), "\n---\n"...)
	}
	return text, nil
}

func (v *verification) meta(name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: v.namespace, Labels: labels}
}

func (v *verification) service(name string, spec corev1.ServiceSpec) *corev1.Service {
	spec.Ports = []corev1.ServicePort{{Name: "http", Port: servedPort}}
	return &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: v.meta(name, nil), Spec: spec}
}

// pod is a server, or a client, which is one that nobody asks. It says by itself
// where it runs: no scheduler has to be well.
func (v *verification) pod(name, node string, labels map[string]string, onNode bool) *corev1.Pod {
	token, grace := false, int64(1)
	c := corev1.Container{
		Name: "echo", Image: v.Image, ImagePullPolicy: corev1.PullIfNotPresent,
		Command: []string{echoInImage, strconv.Itoa(servedPort)}, Env: []corev1.EnvVar{{Name: "POD_NAME", Value: name}},
		Ports: []corev1.ContainerPort{{ContainerPort: servedPort}},
	}
	if onNode { // a port of the node's may be taken: it listens where nobody does
		c.Command, c.Ports = []string{echoInImage, "127.0.0.1:" + strconv.Itoa(onNodePort)}, nil
	}
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: v.meta(name, labels),
		Spec: corev1.PodSpec{
			NodeName: node, Hostname: name, Subdomain: headless, HostNetwork: onNode, Containers: []corev1.Container{c},
			ServiceAccountName: "verify", AutomountServiceAccountToken: &token, TerminationGracePeriodSeconds: &grace,
			RestartPolicy: corev1.RestartPolicyAlways, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
}

// onNodePort is one that nothing well-known has.
const onNodePort = 28999
