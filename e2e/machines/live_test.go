package machines

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/internal/netns"
	"slipway/lab"
	"slipway/topology"
)

// pod is one as an API has it.
func pod(name, node, ip string) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}}}
	p.Spec.NodeName, p.Status.PodIP = node, ip
	p.Spec.Containers = []corev1.Container{{Name: "web", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}
	return p
}

// said makes the lab follow what the API is supposed to say.
func (w *world) said(name string, live *lab.Live) {
	w.t.Helper()
	if _, err := lab.Change(w.t.Context(), name, nil, func(st *lab.State) error { st.Live = live; return nil }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) status(name string) *lab.Health {
	w.t.Helper()
	h, err := lab.Status(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func (w *world) snapshot(name string) *topology.Snapshot {
	w.t.Helper()
	st, err := lab.ReadState(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return st.Snapshot
}

// The pods that an API names are plugged into a light lab's nodes and answer; its
// services are known with their addresses, and the rules for them are the real
// kube-proxy's, which the lab leaves alone.
func TestLightLabFollowsTheAPI(t *testing.T) {
	for _, mode := range []topology.ModeName{topology.FlannelVXLAN, topology.CalicoIPIP} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			name := w.name()
			c := cluster(t, name, topology.ComponentsLight, mode)
			w.up(c)
			own := `iptables -w -t nat -N KUBE-SERVICES && iptables -w -t nat -A PREROUTING -j KUBE-SERVICES && iptables -w -t nat -A KUBE-SERVICES -d 10.96.7.7 -j RETURN
ip addr add 192.168.233.250/32 dev eth0`
			w.sh(name, "node01", own)
			w.sh(name, "node01", "nft add table ip kube-proxy")
			svc := corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
			svc.Spec.ClusterIP, svc.Spec.Selector, svc.Spec.Ports = "10.96.7.7", map[string]string{"app": "web"}, []corev1.ServicePort{{Port: 80}}
			w.said(name, &lab.Live{Objects: &topology.Objects{Pods: []corev1.Pod{pod("a", "node01", ""), pod("b", "node02", "")}, Services: []corev1.Service{svc}}})
			s := w.snapshot(name)
			if len(s.Pods) != 2 || len(s.Services) != 1 || s.Services[0].ClusterIP != netip.MustParseAddr("10.96.7.7") {
				t.Fatalf("pods %v, services %v", s.Pods, s.Services)
			}
			for _, p := range s.Pods {
				for _, node := range []string{"node01", "node02"} {
					w.sh(name, node, fmt.Sprintf("curl -sS --retry 3 --retry-connrefused -m5 http://%s/", p.Address))
				}
			}
			if h := w.status(name); !h.OK() {
				t.Errorf("%+v", h)
			}
			// What the API says of the pods' addresses changes nothing: they have them.
			addressed := []corev1.Pod{pod("a", "node01", s.Pods[0].Address.String()), pod("b", "node02", s.Pods[1].Address.String())}
			slice := discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}, AddressType: discoveryv1.AddressTypeIPv4}
			port, tcp, unnamed := int32(80), corev1.ProtocolTCP, ""
			slice.Ports = []discoveryv1.EndpointPort{{Name: &unnamed, Port: &port, Protocol: &tcp}}
			slice.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{s.Pods[1].Address.String()}}}
			w.said(name, &lab.Live{Objects: &topology.Objects{Pods: addressed, Services: []corev1.Service{svc}, EndpointSlices: []discoveryv1.EndpointSlice{slice}}})
			s = w.snapshot(name)
			if e := s.Services[0].Ports[0].Endpoints; len(e) != 1 || e[0].Pod != "default/b" {
				t.Errorf("endpoints %v", e)
			}
			if res := w.up(c); len(res.Changes) > 0 {
				t.Errorf("up changed %v", res.Changes)
			}
			got := w.sh(name, "node01", "iptables-save -t nat; ip addr show dev eth0; nft list tables")
			for _, want := range []string{"table ip kube-proxy", "-A PREROUTING -j KUBE-SERVICES", "-A KUBE-SERVICES -d 10.96.7.7/32 -j RETURN", "192.168.233.250/32"} {
				if !strings.Contains(got, want) {
					t.Errorf("the node has no more %q:\n%s", want, got)
				}
			}
			if n := strings.Count(got, "KUBE-"); n != 3 {
				t.Errorf("KUBE- chains that nobody asked for:\n%s", got)
			}
			w.said(name, &lab.Live{Objects: &topology.Objects{Pods: addressed[1:]}})
			if names, _ := netns.Names("slipway-" + name + "-default."); len(names) != 1 {
				t.Errorf("pods: %v", names)
			}
			w.down(name)
			w.wantNothingLeft(name)
		})
	}
}

// sandbox makes in a node what a container runtime makes for a pod, and returns
// the way to it on the machine.
func (w *world) sandbox(name, node, id, address string) string {
	w.t.Helper()
	w.sh(name, node, fmt.Sprintf(`ip netns add %[1]s && ip link add v%[1]s type veth peer name eth0 netns %[1]s &&
ip -n %[1]s addr add %[2]s/24 dev eth0 && ip -n %[1]s link set eth0 up && ip link set v%[1]s up`, id, address))
	pids := inits(w.t, name, node)
	if len(pids) != 1 {
		w.t.Fatalf("first processes of %s: %v", node, pids)
	}
	return fmt.Sprintf("/proc/%d/root/run/netns/%s", pids[0], id)
}

// The pods of a full lab, which a container runtime plugs in, are found under the
// names that pods of a lab have, for as long as they are there.
func TestSandboxesHaveNames(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	c := cluster(t, name, topology.ComponentsFull, topology.FlannelVXLAN)
	w.up(c)
	if got := w.sh(name, "node01", "ip -o link; iptables-save"); strings.Contains(got, "flannel") || strings.Contains(got, "FLANNEL") {
		t.Errorf("the lab has programmed the node, which is the agent's to do:\n%s", got)
	}
	live := &lab.Live{
		Objects:   &topology.Objects{Pods: []corev1.Pod{pod("a", "node01", "10.244.1.5"), pod("b", "node02", "10.244.2.5"), pod("new", "node02", "")}},
		Sandboxes: map[string]string{"default/a": w.sandbox(name, "node01", "cni1", "10.244.1.5"), "default/b": w.sandbox(name, "node02", "cni2", "10.244.2.5")},
	}
	w.said(name, live)
	if s := w.snapshot(name); len(s.Pods) != 2 || s.Pods[0].Address.String() != "10.244.1.5" {
		t.Errorf("pods %v", s.Pods)
	}
	// Nobody is missed but the agents, who would have programmed the nodes.
	if h := w.status(name); len(h.Missing)+len(h.Off) > 0 || len(h.Drift) == 0 {
		t.Errorf("missing %v, off %v, %d differences", h.Missing, h.Off, len(h.Drift))
	}
	wantSame(t, netns.Path(lab.NSOfPod(name, "default/a")), live.Sandboxes["default/a"])
	// Another sandbox under the old name.
	w.sh(name, "node01", "ip netns del cni1")
	live.Sandboxes["default/a"] = w.sandbox(name, "node01", "cni3", "10.244.1.6")
	live.Objects.Pods[0].Status.PodIP = "10.244.1.6"
	w.said(name, live)
	wantSame(t, netns.Path(lab.NSOfPod(name, "default/a")), live.Sandboxes["default/a"])
	// The pod is gone: nothing holds its namespace, and its wire goes with it.
	w.sh(name, "node01", "ip netns del cni3")
	live.Objects.Pods = live.Objects.Pods[1:]
	delete(live.Sandboxes, "default/a")
	w.said(name, live)
	if _, err := os.Stat(netns.Path(lab.NSOfPod(name, "default/a"))); err == nil {
		t.Error("the name of a pod that is gone is left")
	}
	eventually(t, "end of the pod's wire", func() (bool, string) {
		links := w.sh(name, "node01", "ip -o link")
		return !strings.Contains(links, "vcni3"), links
	})
	// After a power cut the sandboxes are no more; up does not stumble over them.
	st, err := lab.ReadState(name)
	if err != nil {
		t.Fatal(err)
	}
	cut(t, st)
	w.up(c)
	w.down(name)
	w.wantNothingLeft(name)
}

func wantSame(t *testing.T, a, b string) {
	t.Helper()
	x, e1 := os.Stat(a)
	y, e2 := os.Stat(b)
	if e1 != nil || e2 != nil || !os.SameFile(x, y) {
		t.Errorf("%s is not %s (%v, %v)", a, b, e1, e2)
	}
}
