package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"slipway/lab"
	"slipway/lab/echo"
	"slipway/topology"
)

// world is a cluster file that changes from step to step.
type world struct {
	segment  string // further attributes of the segment
	node03   bool
	replicas int
	extra    bool // a second service
}

func (w world) spec() string {
	s := networkSpec(topology.FlannelVXLAN, "") + "  underlay:\n    segments: [{name: rack1, subnet: 192.168.1.0/24" + w.segment + "}]\n" + `  nodes:
    - {name: node01, roles: [control-plane, etcd, worker]}
    - {name: node02, roles: [worker]}
`
	if w.node03 {
		s += "    - {name: node03, roles: [worker]}\n"
	}
	return s
}

func (w world) objects() string {
	s := podYAML("client", "node01", nil) + podYAML("keeper", "node02", []string{"app: keeper"}, "80/TCP") +
		serviceYAML("keeper", fmt.Sprintf("type: NodePort, selector: {app: keeper}, ports: [{port: 80, nodePort: %d}]", clusterNodePort)) +
		fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: echo:1, ports: [{containerPort: 80}]}]}
---
`, w.replicas) + serviceYAML("web", "selector: {app: web}, ports: [{port: 80}]")
	if w.extra {
		s += serviceYAML("extra", "selector: {app: web}, ports: [{port: 81, targetPort: 80}]")
	}
	return s
}

// again runs up with the file as it is now.
func (l *testLab) again(spec, objects string) lab.Result {
	l.t.Helper()
	l.write(spec, objects)
	var res lab.Result
	decodeJSON(l.t, l.slipway("up", "-f", l.file(), "-o", "json"), &res)
	l.read()
	return res
}

func decodeJSON(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("output is no JSON: %v\n%s", err, text)
	}
}

// TestReconcile changes the file step by step and lets up follow. All the while
// one TCP connection between two pods that are not concerned stays open.
func TestReconcile(t *testing.T) {
	w := world{replicas: 2}
	l := up(t, "rec", w.spec(), w.objects())
	kept := keep(t, l.at("client"), l.clusterIP("keeper"))
	addresses := podsByName(l)
	step := func(name string, change func(w *world), check func(t *testing.T, l *testLab)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			defer l.in(t)()
			change(&w)
			l.again(w.spec(), w.objects())
			for pod, was := range addresses {
				if now, there := podsByName(l)[pod]; there && now != was {
					t.Errorf("%s: pod %s moved from %s to %s", name, pod, was, now)
				}
			}
			kept.check(t)
			check(t, l)
			if res := l.again(w.spec(), w.objects()); len(res.Changes) > 0 {
				t.Errorf("%s: up of the same file changed %+v, want nothing", name, res.Changes)
			}
			wantHealthy(t, l)
		})
	}
	step("same", func(*world) {}, webAnswers(2))
	step("add a node", func(w *world) { w.node03 = true }, nodeJoined)
	step("add pods", func(w *world) { w.replicas = 4 }, webAnswers(4))
	step("add a service", func(w *world) { w.extra = true }, func(t *testing.T, l *testLab) {
		answered(t, l.at("client"), "service extra", l.clusterIP("extra"), l.webs())
	})
	step("delay", func(w *world) { w.segment = ", delay: 20ms" }, delayed(40*time.Millisecond))
	step("loss", func(w *world) { w.segment = ", loss: 20%" }, lossy(true))
	step("rate", func(w *world) { w.segment = ", rate: 20Mbit" }, limited)
	step("no shaping", func(w *world) { w.segment = "" }, lossy(false))
	step("mtu", func(w *world) { w.segment = ", mtu: 9000" }, carries(9000-topology.OverheadVXLAN))
	step("mtu back", func(w *world) { w.segment = "" }, carries(1500-topology.OverheadVXLAN))
	step("remove a service", func(w *world) { w.extra = false }, func(t *testing.T, l *testLab) {
		for _, s := range l.st.Snapshot.Services {
			if s.Name == "extra" {
				t.Error("service extra is still there")
			}
		}
	})
	step("remove a node", func(w *world) { w.node03 = false }, nodeLeft)
	step("remove pods", func(w *world) { w.replicas = 2 }, webAnswers(2))
}

func podsByName(l *testLab) map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for _, p := range l.st.Snapshot.Pods {
		out[p.Key()] = p.Address
	}
	return out
}

// webs are the pods of the Deployment.
func (l *testLab) webs() []*place {
	var out []*place
	for _, p := range l.pods() {
		if p.pod.Owner == "Deployment/web" {
			out = append(out, p)
		}
	}
	return out
}

func webAnswers(replicas int) func(*testing.T, *testLab) {
	return func(t *testing.T, l *testLab) {
		webs := l.webs()
		if len(webs) != replicas {
			t.Errorf("Deployment web has %d pods (%s), want %d", len(webs), names(webs), replicas)
		}
		for _, p := range webs {
			answered(t, l.at("client"), p.name, netip.AddrPortFrom(p.addr, webPort), []*place{p})
		}
		answered(t, l.at("client"), "service web", l.clusterIP("web"), webs)
		answered(t, l.at("node01"), "service web", l.clusterIP("web"), webs)
	}
}

func nodeJoined(t *testing.T, l *testLab) {
	node := l.at("node03")
	pings(t, l.pods(), []*place{node})
	pings(t, []*place{node}, l.pods())
	answered(t, l.at("external"), "node port of node03", netip.AddrPortFrom(node.addr, clusterNodePort), []*place{l.at("keeper")})
}

// nodeLeft looks for what others may still know of a node that is gone, and
// wants its pods to be elsewhere.
func nodeLeft(t *testing.T, l *testLab) {
	webAnswers(4)(t, l)
	if l.all["node03"] != nil {
		t.Error("node03 is still there")
	}
	for _, n := range l.nodes() {
		text := portrait(t, n)
		for _, of := range []string{"192.168.1.12", "10.244.2."} { // node03's address and subnet
			if strings.Contains(withoutARP(text), of) {
				t.Errorf("%s still knows %s of node03, which is gone:\n%s", n.name, of, text)
			}
		}
	}
}

// withoutARP leaves out neighbours that the kernel learnt by itself and forgets
// in its own time; those that flannel writes are permanent.
func withoutARP(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 0 || !strings.Contains(line, " dev eth0 ") || net.ParseIP(f[0]) == nil {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// delayed wants a ping between nodes to take at least that long.
func delayed(least time.Duration) func(*testing.T, *testLab) {
	return func(t *testing.T, l *testLab) {
		begin := time.Now()
		out, err := l.at("client").ping(l.at("keeper").addr)
		if took := time.Since(begin); err != nil || took < least {
			t.Errorf("ping client → keeper took %s, want at least %s (%v)\n%s", took, least, err, out)
		}
	}
}

// lossy sends 60 pings through two ports each way. With a fifth lost at each
// crossing of the segment, all come back with a probability of 0.64^60 = 2e-12.
func lossy(want bool) func(*testing.T, *testLab) {
	const pings = 60
	return func(t *testing.T, l *testLab) {
		out, err := l.at("client").ping(l.at("keeper").addr, "-c", strconv.Itoa(pings), "-i", "0.01", "-W", "3")
		all := strings.Contains(out, fmt.Sprintf(" %d received", pings))
		if err != nil || all == want {
			t.Errorf("%d pings client → keeper: want some lost: %v, and some not (%v)\n%s", pings, want, err, out)
		}
	}
}

// limited posts 1 MB: at 20 Mbit/s that takes 0.42 s, of which half may go
// through at once from queues and buckets.
func limited(t *testing.T, l *testLab) {
	const least = 200 * time.Millisecond
	begin := time.Now()
	transfer(t, l.at("client"), l.at("keeper"))
	if took := time.Since(begin); took < least {
		t.Errorf("1 MB over a segment of 20 Mbit/s took %s, want at least %s", took, least)
	}
}

func carries(mtu int) func(*testing.T, *testLab) {
	return func(t *testing.T, l *testLab) {
		if out, err := l.at("client").ping(l.at("keeper").addr, "-M", "do", "-s", strconv.Itoa(mtu-pingHeaders)); err != nil {
			t.Errorf("unfragmented packet of %d bytes client → keeper: %v\n%s", mtu, err, out)
		}
		if out, err := l.at("client").ping(l.at("keeper").addr, "-M", "do", "-s", strconv.Itoa(mtu+1-pingHeaders)); err == nil {
			t.Errorf("unfragmented packet of %d bytes client → keeper passes, the MTU should be %d\n%s", mtu+1, mtu, out)
		}
		transfer(t, l.at("client"), l.at("keeper"))
	}
}

// keptOpen is one HTTP connection that is asked now and then.
type keptOpen struct {
	c     net.Conn
	r     *bufio.Reader
	first netip.AddrPort // as the server saw the client
}

// keep opens the connection; it is closed when the test ends.
func keep(t *testing.T, from *place, to netip.AddrPort) *keptOpen {
	t.Helper()
	c, err := from.dial("tcp4", to, answerPatience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	k := &keptOpen{c: c, r: bufio.NewReader(c)}
	k.check(t)
	return k
}

// check asks once more over the same connection.
func (k *keptOpen) check(t *testing.T) {
	t.Helper()
	a, err := k.ask()
	if err != nil {
		t.Fatalf("the TCP connection client → service keeper that was open all the time: %v", err)
	}
	if !k.first.IsValid() {
		k.first = a.Source
	}
	if a.Source != k.first {
		t.Errorf("the open connection's source was %s and is %s", k.first, a.Source)
	}
}

func (k *keptOpen) ask() (a echo.Answer, err error) {
	if err := k.c.SetDeadline(time.Now().Add(3 * answerPatience)); err != nil {
		return a, err
	}
	if _, err := io.WriteString(k.c, "GET / HTTP/1.1\r\nHost: keeper\r\nAccept: application/json\r\n\r\n"); err != nil {
		return a, err
	}
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(body, &a)
}

func wantHealthy(t *testing.T, l *testLab) {
	t.Helper()
	if s := slipway(t, "status", "-L", l.name); s.Code != 0 {
		t.Errorf("%s: exit code %d, want 0\n%s%s", s.Argv, s.Code, s.Out, s.Err)
	}
}
