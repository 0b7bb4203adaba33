package cluster

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"slipway/installer"
	"slipway/topology"
)

// What a shell sends is a question that a server reads, in one piece.
func TestQuestion(t *testing.T) {
	const name = "kube-dns.kube-system.svc.cluster.local"
	q := question(name)
	var m dns.Msg
	if err := m.Unpack(q); err != nil {
		t.Fatal(err)
	}
	if len(m.Question) != 1 || m.Question[0] != (dns.Question{Name: name + ".", Qtype: dns.TypeA, Qclass: dns.ClassINET}) {
		t.Errorf("%v", m.Question)
	}
	if bytes.ContainsRune(q, '\n') {
		t.Error("a newline, at which bash would begin a second packet")
	}
	out, err := exec.Command("bash", "-c", `printf "`+octal(q)+`"`).Output()
	if err != nil || !bytes.Equal(out, q) {
		t.Errorf("%q of %q, %v", out, octal(q), err)
	}
}

func TestAnswerEnd(t *testing.T) {
	var m dns.Msg
	if err := m.Unpack(question("a.b")); err != nil {
		t.Fatal(err)
	}
	m.Response = true
	rr, err := dns.NewRR("a.b. 30 IN A 10.96.0.10")
	if err != nil {
		t.Fatal(err)
	}
	m.Answer = append(m.Answer, rr)
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got := hex.EncodeToString(wire)
	if !strings.HasSuffix(got, answerEnd(netip.MustParseAddr("10.96.0.10"))) || strings.HasSuffix(got, answerEnd(netip.MustParseAddr("10.96.0.11"))) {
		t.Error(got)
	}
}

// An archive of several images is imported once, and labels them all.
func TestImagesOfOneArchive(t *testing.T) {
	p := &planner{Inputs: Inputs{Images: map[string]installer.Blob{
		"docker.io/library/nginx:1.7.9": {Sum: "e"}, "slipway.local/echo:v1": {Sum: "e"}, "slipway.local/pause:v1": {Sum: "p"},
	}}}
	var ids []string
	for _, it := range p.imports() {
		ids = append(ids, it.ID()+" "+it.Want())
	}
	if got := strings.Join(ids, "; "); got != "image docker.io/library/nginx:1.7.9, slipway.local/echo:v1 e; image slipway.local/pause:v1 p" {
		t.Error(got)
	}
	if got := p.image("pause"); got != "slipway.local/pause:v1" {
		t.Error(got)
	}
	if got := p.image("coredns"); got != "" {
		t.Error(got)
	}
}

// Every node that carries pods reports itself, masters too.
func TestWhoRunsKubelet(t *testing.T) {
	for nodes, want := range map[string]string{
		"[{name: m, roles: [control-plane, etcd]}, {name: a}, {name: b}]":                                                            "m a b",
		"[{name: m, roles: [control-plane, etcd, worker]}, {name: a}]":                                                               "m a",
		"[{name: m, roles: [control-plane, etcd]}]":                                                                                  "m",
		"[{name: m, roles: [control-plane]}, {name: n, roles: [control-plane]}, {name: e, roles: [etcd]}]":                           "m n",
		"[{name: m, roles: [control-plane, etcd]}, {name: a}, {name: l, roles: [load-balancer]}, {name: k, roles: [load-balancer]}]": "m a",
	} {
		in := inputs(t, "apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\nspec: {components: full, nodes: "+nodes+"}\n")
		var got []string
		for _, n := range newPlanner(in).kubelets() {
			got = append(got, n.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", nodes, got, want)
		}
		in.Cluster.Spec.Components = topology.ComponentsLight
		if got := newPlanner(in).kubelets(); len(got) > 0 {
			t.Errorf("light: %v", got)
		}
	}
}

// A token is shown to nobody: not in what a learner is shown, and in no
// argument of a command, which other users of a machine could read.
func TestTokenIsSecret(t *testing.T) {
	in := inputs(t, full("{mode: flannel-vxlan}"))
	token, err := in.PKI.BootstrapToken()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	var holders int
	for _, ph := range plan.Phases {
		for _, st := range ph.Steps {
			for _, w := range st.Work {
				for _, it := range w.Items {
					if s, ok := it.(installer.Shower); ok {
						if path, text, secret := s.Shown(); strings.Contains(string(text), token.Secret) {
							holders++
							if f, ok := it.(installer.File); !secret || !ok || f.Mode != 0o600 {
								t.Errorf("%s shows the token", path)
							}
						}
					}
					if strings.Contains(it.ID()+it.Want(), token.Secret) {
						t.Errorf("%s names the token", it.ID())
					}
				}
			}
		}
	}
	if want := len(in.Snapshot.Nodes); holders != want {
		t.Errorf("%d hosts have the token, want the %d that join", holders, want)
	}
}
