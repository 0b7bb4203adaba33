package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/lab/services"
)

// proxySpec is the default cluster.
const proxySpec = "  network: {mode: flannel-vxlan}\n"

// proxyObjects are a client and three servers on two nodes, with a service of
// each kind in front of them; only far-c is behind the Local ones.
var proxyObjects = proxyPods() +
	serviceYAML("web", "selector: {app: web}, type: NodePort, ports: [{port: 80, nodePort: 30080}]") +
	serviceYAML("local", "selector: {pod: far-c}, type: NodePort, externalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30081}]") +
	serviceYAML("inside", "selector: {pod: far-c}, internalTrafficPolicy: Local, ports: [{port: 80}]") +
	serviceYAML("sticky", "selector: {app: web}, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 77}}, ports: [{port: 80}]") +
	serviceYAML("datagrams", "selector: {app: web}, ports: [{port: 7, protocol: UDP}]") +
	serviceYAML("empty", "selector: {app: nobody}, ports: [{port: 80}]") +
	serviceYAML("headless", "selector: {app: web}, clusterIP: None, ports: [{port: 80}]") +
	serviceYAML("elsewhere", "type: ExternalName, externalName: example.org") +
	serviceYAML("two", "selector: {app: web}, ports: [{name: http, port: 80}, {name: other, port: 81, targetPort: 80}]")

func proxyPods() string {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %s, pod: %s}}\nspec: {nodeName: %s, containers: [{name: c, image: \"echo:1\", ports: [%s]}]}\n---\n"
	const ports = "{containerPort: 80}, {containerPort: 7, protocol: UDP}"
	out := fmt.Sprintf(pod, "client", "client", "client", "node01", "")
	for _, p := range [][2]string{{"near-a", "node01"}, {"far-b", "node02"}, {"far-c", "node02"}} {
		out += fmt.Sprintf(pod, p[0], "web", p[0], p[1], ports)
	}
	return out
}

// TestProxy shows, explains and checks services of every kind in one lab.
func TestProxy(t *testing.T) {
	l := up(t, "proxy", proxySpec, proxyObjects)
	for _, c := range []struct {
		name string
		fn   func(*testing.T, *testLab)
	}{
		{"show", proxyShow},
		{"names", proxyNames},
		{"cluster IP", proxyFair},
		{"node port", proxyNodePort},
		{"local", proxyLocal},
		{"affinity", proxyAffinity},
		{"datagrams", proxyDatagrams},
		{"empty", proxyEmpty},
		{"wrong rules", proxyWrong}, // last: it leaves them
	} {
		t.Run(c.name, func(t *testing.T) {
			defer l.in(t)()
			c.fn(t, l)
		})
	}
}

// TestProxyNFTables does the same where kube-proxy's rules are nftables'.
func TestProxyNFTables(t *testing.T) {
	testnet.Need(t, testnet.NFT)
	l := up(t, "proxynft", proxySpec+"  proxy: {mode: nftables}\n", proxyObjects)
	for _, c := range []struct {
		name string
		fn   func(*testing.T, *testLab)
	}{
		{"show", proxyShowNFT},
		{"names", proxyNames},
		{"cluster IP", proxyFair},
		{"node port", proxyNodePort},
		{"local", proxyLocal},
		{"affinity", proxyAffinity},
		{"datagrams", proxyDatagrams},
		{"empty", proxyEmpty},
		{"wrong rules", proxyWrongNFT}, // last: it leaves them
	} {
		t.Run(c.name, func(t *testing.T) {
			defer l.in(t)()
			c.fn(t, l)
		})
	}
}

// proxyShowNFT wants each endpoint in the JSON form, with its chance.
func proxyShowNFT(t *testing.T, l *testLab) {
	var v services.View
	if err := json.Unmarshal([]byte(must(t, "proxy", "show", "web", "-L", l.name, "--node", "node02", "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	if v.Node != "node02" || v.Mode != "nftables" || len(v.Ports) != 1 || v.Others == nil || v.Others.Compared != 3 || len(v.Others.Different) != 0 {
		t.Fatalf("view %+v", v)
	}
	p := v.Ports[0]
	if len(p.Entries) != 2 || p.Entries[0].In != "service-ips" || p.Entries[1].In != "service-nodeports" || len(p.Chains) != 2 {
		t.Errorf("entries %+v, %d chains", p.Entries, len(p.Chains))
	}
	c := p.Chain(p.Entries[0].Rule.Target)
	if c == nil || len(c.Rules) != 3 {
		t.Fatalf("the cluster IP's chain: %+v", c)
	}
	for _, r := range c.Rules {
		if r.Does != "dnat" || r.Endpoint == nil || r.Own == nil || *r.Own != 1.0/3 {
			t.Errorf("choice %+v", r)
		}
	}
	if local := must(t, "proxy", "show", "local", "-L", l.name, "--node", "node02"); !strings.Contains(local, "Different on node01") {
		t.Errorf("policy Local has other rules on node01:\n%s", local)
	}
}

// proxyWrongNFT replaces the rule that shares out by one that prefers an
// endpoint, and then by one that leads to none.
func proxyWrongNFT(t *testing.T, l *testLab) {
	out := must(t, "exec", "node01", "-L", l.name, "--", "nft", "list", "chains", "ip")
	chain := regexp.MustCompile(`service-\S+-default/web/tcp/`).FindString(out)
	if chain == "" {
		t.Fatalf("no chain of service web in\n%s", out)
	}
	a, b := l.at("near-a").addr, l.at("far-b").addr
	replace := func(pairs string) {
		t.Helper()
		must(t, "exec", "node01", "-L", l.name, "--", "nft", "flush chain ip kube-proxy "+chain+"; add rule ip kube-proxy "+chain+
			" meta l4proto tcp dnat ip addr . port to numgen random mod 4 map { "+pairs+" }")
	}
	replace(fmt.Sprintf("0 : %s . 80 , 1 : %s . 80 , 2 : %s . 80 , 3 : %s . 80", a, a, a, b))
	r, _ := checkService(t, l, "web", "--from", "client", "--count", "400")
	if r.OK || !strings.Contains(strings.Join(r.Findings, "\n"), "do not give each of the 3 endpoints 1/3 of the connections: they give 3/4 to") {
		t.Errorf("with 3/4 and 1/4: ok is %v, findings %q", r.OK, r.Findings)
	}
	if r.ChiSquare == nil || r.ChiSquare.P < 1e-6 {
		t.Errorf("connections follow even wrong rules, but the test says %+v", r.ChiSquare)
	}
	if out := must(t, "proxy", "show", "web", "-L", l.name); !strings.Contains(out, "Different on node01") {
		t.Errorf("show does not see that node01 differs:\n%s", out)
	}
	if s := slipway(t, "status", "-L", l.name); s.Code == 0 || !strings.Contains(s.Out, "nft replace rule ip kube-proxy "+chain) {
		t.Errorf("status does not see the replaced rule: exit code %d\n%s%s", s.Code, s.Out, s.Err)
	}
	replace(fmt.Sprintf("0 : %s . 8080 , 1 : %s . 80 , 2 : %s . 80 , 3 : %s . 80", a, a, a, b))
	if r, _ = checkService(t, l, "web", "--from", "client", "--count", "100"); r.OK || !strings.Contains(strings.Join(r.Findings, "\n"), "is no endpoint of the service") {
		t.Errorf("with a DNAT to a wrong port: ok is %v, findings %q", r.OK, r.Findings)
	}
}

// checkService runs `proxy check` and reads its result.
func checkService(t *testing.T, l *testLab, args ...string) (services.Result, said) {
	t.Helper()
	s := slipway(t, append([]string{"proxy", "check", "-L", l.name, "-o", "json"}, args...)...)
	var r services.Result
	if err := json.Unmarshal([]byte(s.Out), &r); err != nil {
		t.Fatalf("%s: %v\nstdout: %s\nstderr: %s", s.Argv, err, s.Out, s.Err)
	}
	if (s.Code == 0) != r.OK || s.Code > 1 {
		t.Errorf("%s: exit code %d, but ok is %v", s.Argv, s.Code, r.OK)
	}
	return r, s
}

// passes wants a check without findings. A fair spread fails the chi-square test
// once in a hundred times, so that a second run decides.
func passes(t *testing.T, l *testLab, args ...string) services.Result {
	t.Helper()
	r, _ := checkService(t, l, args...)
	if !r.OK {
		r, _ = checkService(t, l, args...)
	}
	if !r.OK {
		t.Errorf("proxy check %v, twice: %q", args, r.Findings)
	}
	return r
}

// got is how many connections each pod's address answered, by pod.
func got(r services.Result) map[string]int {
	out := map[string]int{}
	for _, e := range r.Endpoints {
		out[strings.TrimPrefix(e.Pod, "default/")] = e.Connections
	}
	return out
}

func proxyFair(t *testing.T, l *testLab) {
	for _, from := range []string{"client", "node01", "node02", "near-a"} {
		r := passes(t, l, "web", "--from", from, "--count", "600")
		if r.Answered != 600 || len(got(r)) != 3 {
			t.Errorf("from %s: %d of 600 answered, by %v", from, r.Answered, got(r))
		}
		for _, e := range r.Endpoints {
			if e.Probability < 0.333333 || e.Probability > 0.333334 {
				t.Errorf("from %s: the rules give %s %f, want 1/3", from, e.Pod, e.Probability)
			}
		}
		if r.ChiSquare == nil || r.ChiSquare.Freedom != 2 {
			t.Errorf("from %s: test %+v, want one with 2 degrees of freedom", from, r.ChiSquare)
		}
	}
}

func proxyNodePort(t *testing.T, l *testLab) {
	r := passes(t, l, "web", "--via", "nodeport", "--node", "node01", "--count", "300")
	if r.From != "external" || r.Rules.Node != "node01" || r.To.Port() != 30080 {
		t.Errorf("from %s to %s by the rules of %s", r.From, r.To, r.Rules.Node)
	}
	for _, s := range r.Sources { // masqueraded: an address of node01
		if s.Address == l.at("external").addr {
			t.Errorf("%d connections kept the client's address through a node port of policy Cluster", s.Connections)
		}
	}
	// A pod that asks another node's port: that node decides.
	if r := passes(t, l, "web", "--via", "nodeport", "--node", "node02", "--from", "client", "--count", "100"); r.Rules.Node != "node02" {
		t.Errorf("from client to node02's port the rules of %s are said to decide", r.Rules.Node)
	}
}

// proxyLocal: only the endpoint on the node answers, the source is kept, and
// where there is none everything is dropped.
func proxyLocal(t *testing.T, l *testLab) {
	r := passes(t, l, "local", "--via", "nodeport", "--count", "50")
	if d := cmp.Diff(map[string]int{"far-c": 50}, got(r)); d != "" {
		t.Errorf("node port (-want +got)\n%s", d)
	}
	if len(r.Sources) != 1 || r.Sources[0].Address != l.at("external").addr {
		t.Errorf("sources %v, want only %s", r.Sources, l.at("external").addr)
	}
	r = passes(t, l, "local", "--via", "nodeport", "--node", "node01", "--count", "50")
	if r.Answered != 0 || r.Rules.Dropped != 1 || len(r.Wanted) != 0 {
		t.Errorf("node01 has no endpoint: %d answered, dropped with probability %f, wanted %v", r.Answered, r.Rules.Dropped, r.Wanted)
	}
	if d := cmp.Diff(map[string]int{"far-c": 50}, got(passes(t, l, "inside", "--from", "far-b", "--count", "50"))); d != "" {
		t.Errorf("internalTrafficPolicy Local (-want +got)\n%s", d)
	}
	if r := passes(t, l, "inside", "--from", "client", "--count", "50"); r.Answered != 0 || r.Rules.Dropped != 1 {
		t.Errorf("client's node has no endpoint: %d answered, dropped with probability %f", r.Answered, r.Rules.Dropped)
	}
}

func proxyAffinity(t *testing.T, l *testLab) {
	r := passes(t, l, "sticky", "--count", "200")
	reached := 0
	for _, n := range got(r) {
		if n > 0 {
			reached++
		}
	}
	if reached != 1 || r.Answered != 200 || r.Rules.AffinitySeconds != 77 || r.ChiSquare != nil {
		t.Errorf("%d answered, by %v, remembered for %d s, test %v; want one endpoint, 77 s and no test", r.Answered, got(r), r.Rules.AffinitySeconds, r.ChiSquare)
	}
}

// proxyDatagrams: the echo does not say who sent it; connection tracking does.
func proxyDatagrams(t *testing.T, l *testLab) {
	r := passes(t, l, "datagrams", "--count", "300")
	sum := 0
	for _, n := range got(r) {
		sum += n
	}
	if r.Answered != 300 || sum != 300 || len(got(r)) != 3 {
		t.Errorf("%d of 300 answered, by %v", r.Answered, got(r))
	}
}

func proxyEmpty(t *testing.T, l *testLab) {
	r := passes(t, l, "empty")
	if r.Answered != 0 || r.Rules.Refused != 1 || len(r.Failures) != 1 || r.Failures[0].Reason != "refused" {
		t.Errorf("%d answered, refused with probability %f, failures %v", r.Answered, r.Rules.Refused, r.Failures)
	}
	out := must(t, "proxy", "explain", "empty", "-L", l.name)
	if !strings.Contains(out, "rejects it: the client hears at once") {
		t.Errorf("explain empty:\n%s", out)
	}
}

// proxyShow holds the JSON form against the rules, read by another program.
func proxyShow(t *testing.T, l *testLab) {
	var v services.View
	if err := json.Unmarshal([]byte(must(t, "proxy", "show", "web", "-L", l.name, "--node", "node02", "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	if v.Node != "node02" || len(v.Ports) != 1 || v.Others == nil || v.Others.Compared != 3 || len(v.Others.Different) != 0 {
		t.Fatalf("view %+v", v)
	}
	text, err := run.Cmd{NS: l.at("node02").ns, Name: "iptables-legacy-save", Args: []string{"-t", "nat"}}.Output(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	chains := 0
	for _, c := range v.Ports[0].Chains {
		for _, r := range c.Rules {
			if !bytes.Contains(text, []byte(r.Text+"\n")) {
				t.Errorf("the kernel has no rule %q", r.Text)
			}
		}
		if n := bytes.Count(text, []byte("-A "+c.Name+" ")); n != len(c.Rules) {
			t.Errorf("%s has %d rules, %d are shown", c.Name, n, len(c.Rules))
		}
		chains++
	}
	if chains != 5 { // KUBE-SVC, KUBE-EXT and three KUBE-SEP
		t.Errorf("%d chains, want 5", chains)
	}
	local := must(t, "proxy", "show", "local", "-L", l.name, "--node", "node02")
	if !strings.Contains(local, "Different on node01") {
		t.Errorf("policy Local has other rules on node01:\n%s", local)
	}
}

// proxyNames: names that mean no rules end with an explanation.
func proxyNames(t *testing.T, l *testLab) {
	ip := l.service("web").ClusterIP.String()
	for _, name := range []string{"web", "default/web", "web.default", "web.default.svc.cluster.local", ip, "web:80", ip + ":30080"} {
		if out := must(t, "proxy", "show", name, "-L", l.name); !strings.Contains(out, "default/web, port 80/tcp") {
			t.Errorf("proxy show %s:\n%s", name, out)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"show", "webb"}, 2, `no service "webb"; there are default/web`},
		{[]string{"show", "web:443"}, 2, `no port of default/web "443"; there are 80/tcp`},
		{[]string{"show", "headless"}, 1, "is headless (clusterIP: None): kube-proxy has no rules for it"},
		{[]string{"explain", "elsewhere"}, 1, "CNAME to example.org"},
		{[]string{"check", "two"}, 2, "say which port of default/two; there are http (80/tcp), other (81/tcp)"},
		{[]string{"check", "inside", "--via", "nodeport"}, 2, "default/inside has no node port"},
		{[]string{"check", "web", "--from", "external"}, 2, "has no route there"},
		{[]string{"show", "web", "--node", "external"}, 2, "no such node"},
	} {
		s := slipway(t, append([]string{"proxy", "-L", l.name}, c.args...)...)
		if s.Code != c.code || !strings.Contains(s.Err, c.want) {
			t.Errorf("%s: exit code %d, want %d; stderr %q, want %q", s.Argv, s.Code, c.code, s.Err, c.want)
		}
	}
}

// proxyWrong edits the rules on the client's node as the old tutorials have
// them, so that the first endpoint gets 1/2: connections follow these rules, but
// the rules are not what the service asks for. Then it lets some fall through,
// and last it leads to an endpoint that is none.
func proxyWrong(t *testing.T, l *testLab) {
	first := regexp.MustCompile(`--probability 0\.33333\d*`)
	edit(t, l, "node01", func(rule string) string { return first.ReplaceAllString(rule, "--probability 0.5") })
	r, _ := checkService(t, l, "web", "--from", "client", "--count", "400")
	if r.OK || !strings.Contains(strings.Join(r.Findings, "\n"), "do not give each of the 3 endpoints 1/3 of the connections: they give 1/2 to") {
		t.Errorf("with 1/2, 1/2 and the rest: ok is %v, findings %q", r.OK, r.Findings)
	}
	if r.ChiSquare == nil || r.ChiSquare.P < 1e-6 {
		t.Errorf("connections follow even wrong rules, but the test says %+v", r.ChiSquare)
	}
	if out := must(t, "proxy", "explain", "web", "-L", l.name, "--node", "node01"); !strings.Contains(out, "shares are NOT equal") {
		t.Errorf("explain says of unequal rules:\n%s", out)
	}
	if out := must(t, "proxy", "show", "web", "-L", l.name); !strings.Contains(out, "Different on node01") {
		t.Errorf("show does not see that node01 differs:\n%s", out)
	}
	far := l.at("far-b").addr.String() + ":80"
	edit(t, l, "node01", func(rule string) string {
		return strings.ReplaceAll(rule, "--to-destination "+far, "--to-destination "+far+"80")
	})
	if r, _ = checkService(t, l, "web", "--from", "client", "--count", "100"); r.OK || !strings.Contains(strings.Join(r.Findings, "\n"), "is no endpoint of the service") {
		t.Errorf("with a DNAT to a wrong port: ok is %v, findings %q", r.OK, r.Findings)
	}
}

// edit rewrites the rules of a node, those of service web.
func edit(t *testing.T, l *testLab, node string, change func(string) string) {
	t.Helper()
	ns := l.at(node).ns
	out, err := run.Cmd{NS: ns, Name: "iptables-legacy-save", Args: []string{"-t", "nat"}}.Output(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	edited := false
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, `"default/web`) {
			changed := change(line)
			edited = edited || changed != line
			line = changed
		}
		b.WriteString(line)
	}
	if !edited {
		t.Fatal("no rule was changed")
	}
	env := append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "lock"))
	if _, err := (run.Cmd{NS: ns, Name: "iptables-legacy-restore", Env: env, Stdin: strings.NewReader(b.String())}).Output(context.Background()); err != nil {
		t.Fatal(err)
	}
}
