package interop

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"slipway/datapath/lease"
	"slipway/internal/testnet"
	"slipway/topology"
)

// kubeBed is a bed whose registry is a real API.
type kubeBed struct {
	*bed
	api    *process
	client kubernetes.Interface
}

// Tokens of the API's users: one may everything, one what an agent may.
const (
	adminToken = "admin-token-for-tests"
	agentToken = "agent-token-for-tests"
)

func newKubeBed(t *testing.T, mode topology.ModeName) *kubeBed {
	t.Helper()
	b := &kubeBed{bed: newBed(t, mode)}
	kube := kubernetesProgram(t, "kube-apiserver")
	b.startEtcd()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	m := b.ctl
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	for name, content := range map[string][]byte{
		"sa.key": text, "tokens.csv": []byte(adminToken + ",admin,admin,system:masters\n" + agentToken + ",agent,agent,\"slipway:agents\"\n"),
		"agent.conf": kubeconfig(b.url(), agentToken),
	} {
		if err := os.WriteFile(m.path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.startAPI(kube)
	b.client, err = kubernetes.NewForConfig(&rest.Config{
		Host: b.url(), BearerToken: adminToken, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, Dial: m.dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.awaitAPI()
	b.allowAgents()
	return b
}

func (b *kubeBed) url() string { return fmt.Sprintf("https://%s:6443", b.ctl.addr) }

// startAPI starts the apiserver, which makes a certificate for itself.
func (b *kubeBed) startAPI(program string) {
	m := b.ctl
	b.api = m.start("apiserver", nil, program, "--etcd-servers=http://"+m.addr.String()+":2379", "--advertise-address="+m.addr.String(),
		"--secure-port=6443", "--cert-dir="+m.path("certs"), "--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file="+m.path("sa.key"),
		"--service-account-key-file="+m.path("sa.key"), "--token-auth-file="+m.path("tokens.csv"), "--authorization-mode=Node,RBAC")
}

func (b *kubeBed) awaitAPI() {
	b.t.Helper()
	testnet.Eventually(b.t, patience, "the API to be ready", func() (bool, string) {
		if b.api.ended() {
			b.t.Fatal("the API ended")
		}
		ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
		defer cancel()
		out, err := b.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, fmt.Sprintf("%v %s", err, out)
	})
}

// allowAgents gives them the rights that flannel's own role has.
func (b *kubeBed) allowAgents() {
	b.t.Helper()
	_, err := b.client.RbacV1().ClusterRoles().Create(b.t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "agents"},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch"}},
		},
	}, metav1.CreateOptions{})
	if err == nil {
		_, err = b.client.RbacV1().ClusterRoleBindings().Create(b.t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "agents"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "agents"},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "slipway:agents"}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func kubeconfig(server, token string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server, token)
}

// registry is the agents' part of the configuration.
func (b *kubeBed) registry() string {
	return fmt.Sprintf("{kube: {kubeconfig: %s}}", b.ctl.path("agent.conf"))
}

// register makes a Node object, as the installer and the kubelet do.
func (b *kubeBed) register(m *machine, blocks ...string) {
	b.t.Helper()
	// flanneld 0.28.4 panics of a Node without annotations, which no kubelet makes.
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.name, Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}}
	if m.subnet.IsValid() {
		n.Spec.PodCIDR, n.Spec.PodCIDRs = m.subnet.String(), []string{m.subnet.String()}
	}
	if len(blocks) > 0 {
		n.Annotations[lease.BlocksAnnotation] = strings.Join(blocks, ",")
	}
	n, err := b.client.CoreV1().Nodes().Create(b.t.Context(), n, metav1.CreateOptions{})
	if err == nil {
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: m.name}, {Type: corev1.NodeInternalIP, Address: m.addr.String()}}
		_, err = b.client.CoreV1().Nodes().UpdateStatus(b.t.Context(), n, metav1.UpdateOptions{})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// anotherVTEP makes flanneld start as if it had never run on the node, so that it
// makes up another MAC.
func (b *kubeBed) anotherVTEP(m *machine, flanneld *process) {
	b.t.Helper()
	data := func() string {
		n, err := b.client.CoreV1().Nodes().Get(b.t.Context(), m.name, metav1.GetOptions{})
		if err != nil {
			b.t.Fatal(err)
		}
		return n.Annotations[lease.BackendDataAnnotation]
	}
	before := data()
	flanneld.end(b.t, syscall.SIGKILL)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{lease.BackendDataAnnotation: nil, lease.ManagedAnnotation: nil}}})
	if err == nil {
		_, err = b.client.CoreV1().Nodes().Patch(b.t.Context(), m.name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		b.t.Fatal(err)
	}
	m.output("ip", "link", "delete", "flannel.1")
	b.startFlanneld(m)
	testnet.Eventually(b.t, patience, "flanneld to say another MAC", func() (bool, string) {
		now := data()
		return now != "" && now != before, now
	})
}

// startFlanneld starts the real one on a node whose Node object has its subnet.
func (b *kubeBed) startFlanneld(m *machine) *process {
	b.t.Helper()
	conf := fmt.Sprintf(`{"Network": %q, "Backend": {"Type": %q}}`, pods16, strings.TrimPrefix(string(b.mode), "flannel-"))
	if err := os.WriteFile(m.path("net-conf.json"), []byte(conf), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(m.path("flannel.conf"), kubeconfig(b.url(), agentToken), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return m.start("flanneld", []string{"NODE_NAME=" + m.name}, program(b.t, "flannel", "flanneld"), "--kube-subnet-mgr",
		"--kubeconfig-file", m.path("flannel.conf"), "--net-config-path", m.path("net-conf.json"), "--iface", "eth0",
		"--subnet-file", m.path("subnet.env"), "--ip-masq=false", "--iptables-forward-rules=false", "--healthz-port=0")
}

var flannelModes = []topology.ModeName{topology.FlannelVXLAN, topology.FlannelHostGW, topology.FlannelUDP}

// TestKubeBesideFlanneld: nodes of ours and one of flanneld's, with the real API.
func TestKubeBesideFlanneld(t *testing.T) {
	for _, mode := range flannelModes {
		t.Run(string(mode), func(t *testing.T) {
			testnet.Need(t, testnet.VXLAN, testnet.TUN, testnet.Flanneld)
			b := newKubeBed(t, mode)
			ours, theirs := b.node("ours", 11, "10.244.1.0/24"), b.node("theirs", 12, "10.244.2.0/24")
			b.register(ours)
			b.register(theirs)
			ours.startAgent(b.registry())
			ours.run("c1", "first")
			real := b.startFlanneld(theirs)
			theirs.plug()
			b.talk("ours", "theirs")
			if mode == topology.FlannelVXLAN {
				b.anotherVTEP(theirs, real)
				b.talk("ours", "theirs")
			}
			// One more joins, and goes.
			third := b.node("third", 13, "10.244.3.0/24")
			b.register(third)
			third.startAgent(b.registry())
			third.run("c2", "second")
			b.talk("ours", "theirs", "third")
			if err := b.client.CoreV1().Nodes().Delete(t.Context(), "theirs", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			for _, m := range []*machine{ours, third} {
				b.noRoute(m, theirs.subnet)
			}
			b.talk("ours", "third")
		})
	}
}

// noRoute waits until a node has no route to a subnet.
func (b *bed) noRoute(m *machine, subnet netip.Prefix) {
	b.t.Helper()
	h := testnet.Handle(b.t, m.ns)
	testnet.Eventually(b.t, patience, fmt.Sprintf("%s to forget %s", m.name, subnet), func() (bool, string) {
		routes, err := h.RouteList(nil, 2)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, r := range routes {
			if r.Dst != nil && r.Dst.String() == subnet.String() {
				return false, r.String()
			}
		}
		return true, ""
	})
}
