package hosts

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"slipway/datapath/trace"
	"slipway/internal/testnet"
)

// tracePods are a client and who it talks to, on two nodes.
const tracePods = `
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: host2, terminationGracePeriodSeconds: 0, containers: [{name: c, image: "slipway.local/echo:v1", command: [/echo, "80"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec: {nodeName: host3, terminationGracePeriodSeconds: 0, containers: [{name: c, image: "slipway.local/echo:v1", command: [/echo, "80"], ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: server}, ports: [{port: 8080, targetPort: 80}]}
`

// traces follows packets through the machines of an installed cluster: predicted
// from what all machines say of themselves, and observed on each.
func (r *Rig) traces(t *testing.T, file string) {
	m := r.Machines[0]
	m.Must(kubectl + "apply -f - <<'end'" + tracePods + "end")
	defer m.Must(kubectl + "delete --wait pod/client pod/server service/web")
	testnet.Eventually(t, patience, "the pods answer", func() (bool, string) {
		out, _ := m.Sh(kubectl + "get pods client server --no-headers; " + kubectl + "get endpointslices -l kubernetes.io/service-name=web -o jsonpath='{.items[*].endpoints[*].conditions.ready}'")
		return strings.Count(out, "1/1") == 2 && strings.HasSuffix(out, "true"), out
	})
	before := r.lent()
	t.Run("from pod to pod", func(t *testing.T) {
		tr := r.trace(t, 0, file, "client", "server:80")
		r.wayOf(t, tr, "default/client", "host2", "host3", "default/server")
	})
	t.Run("from pod to service", func(t *testing.T) {
		bundle := r.Home + "/bundle"
		tr := r.trace(t, 0, file, "client", "web:8080", "--record", bundle)
		r.wayOf(t, tr, "default/client", "host2", "host3", "default/server")
		if !slices.ContainsFunc(tr.Observed, func(h trace.Hop) bool {
			return h.Node == "host2" && h.Action == trace.DNAT && strings.Contains(h.Rule, "default/web")
		}) {
			t.Errorf("no rule of the service's is named: %+v", tr.Observed)
		}
		if info, err := os.Stat(bundle + "/packets.pcapng"); err != nil || info.Size() < 1000 {
			t.Errorf("packets: %v", err)
		}
		if o := r.Slipway("trace", "--replay", bundle); o.Code != 0 || !strings.Contains(o.Stdout, "default/server") {
			t.Errorf("%v", o)
		}
	})
	t.Run("a rule that drops", func(t *testing.T) {
		ip, at := strings.TrimSpace(m.Must(kubectl+"get pod server -o jsonpath={.status.podIP}")), r.Machine("host3")
		rule := "FORWARD -d " + ip + "/32 -p tcp -m comment --comment in-the-way -j DROP"
		at.Must("iptables -w 60 -I " + rule)
		defer at.Must("iptables -w 60 -D " + rule)
		tr := r.trace(t, 1, file, "client", "web:8080")
		c := tr.ObservedCause
		if tr.Verdict != trace.Dropped || c == nil || c.Node != "host3" || !strings.Contains(c.Rule, "in-the-way") || c.Kernel == "" {
			t.Errorf("%s, %+v", tr.Verdict, c)
		}
	})
	t.Run("killed, and cut off", func(t *testing.T) {
		for name, end := range map[string]func(kill func()){
			"kill -9": func(kill func()) { kill() },
			"a cut":   func(kill func()) { r.endSessions(); kill() },
		} {
			cmd := r.Command(binary, "trace", "-f", file, "client", "server:80", "--count", "1000")
			r.Begin(cmd)
			testnet.Eventually(t, patience, "agents observe", func() (bool, string) {
				n := 0
				for _, m := range r.Machines {
					if _, code := m.Sh("pgrep -f '^[^ ]* host-agent observe'"); code == 0 {
						n++
					}
				}
				return n == len(r.Machines), name
			})
			end(func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait() // it was killed
			testnet.Eventually(t, patience, "nothing is left after "+name, func() (bool, string) {
				now := r.lent()
				return now == before, now
			})
		}
	})
	t.Run("a host's agents are killed", func(t *testing.T) { r.agentsDie(t, file) })
	if now := r.lent(); now != before {
		t.Errorf("before:\n%s\nafterwards:\n%s", before, now)
	}
}

// agentsDie kills what observes on host3, again and again: packets are sent and
// followed on the other hosts, and traces say what was not seen.
func (r *Rig) agentsDie(t *testing.T, file string) {
	const packets = 20
	cmd := r.Command(binary, "trace", "-f", file, "client", "server:80", "--count", strconv.Itoa(packets), "-o", "json")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	r.Begin(cmd)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the code says it
	}()
	killed := 0
	testnet.Eventually(t, patience, "all packets were sent", func() (bool, string) {
		select {
		case <-ended:
			return true, ""
		default:
		}
		if _, code := r.Machine("host3").Sh("pkill -KILL -f '^[^ ]* host-agent observe'"); code == 0 {
			killed++
		}
		return false, said.String()
	})
	var list struct{ Items []*trace.Trace }
	if err := json.Unmarshal(out.Bytes(), &list); err != nil || len(list.Items) != packets {
		t.Fatalf("exit code %d, %d packets, %v: %s", cmd.ProcessState.ExitCode(), len(list.Items), err, said.String())
	}
	unseen := 0
	for _, tr := range list.Items {
		if tr.Verdict != trace.Delivered {
			t.Errorf("a packet that arrives is %s: %v", tr.Verdict, tr.Notes)
		}
		if slices.ContainsFunc(tr.Notes, func(n string) bool { return strings.HasPrefix(n, "nothing is known of what happened on host3: ") }) {
			unseen++
		}
	}
	t.Logf("%d agents were killed, and %d of %d packets were not seen on host3", killed, unseen, packets)
	if killed == 0 || unseen == 0 {
		t.Errorf("no trace says what was not seen: %v", list.Items[0].Notes)
	}
}

func (r *Rig) endSessions() {
	for _, m := range r.Machines {
		m.Must(endSessions)
	}
}

// lent is what traces have machines remember: files, processes, and where rules'
// traces go to.
func (r *Rig) lent() string {
	var b strings.Builder
	for _, m := range r.Machines {
		out, _ := m.Sh("find /opt/slipway /run/slipway-lent 2>/dev/null | sort; pgrep -af '^[^ ]* host-agent|^timeout [0-9]* cat'; nft list tables; cat /proc/sys/net/netfilter/nf_log/2")
		b.WriteString(m.Name() + "\n" + out)
	}
	return b.String()
}

// trace is one as JSON, by its exit code.
func (r *Rig) trace(t *testing.T, code int, file string, args ...string) *trace.Trace {
	t.Helper()
	r.Use(t)
	o := r.Slipway(append([]string{"trace", "-f", file, "-o", "json"}, args...)...)
	tr := &trace.Trace{}
	if err := json.Unmarshal([]byte(o.Stdout), tr); err != nil || o.Code != code {
		t.Fatalf("%v: %v", err, o)
	}
	if tr.Observer != "bpf" || tr.Agree == nil || !*tr.Agree || len(tr.Disagreements) > 0 {
		t.Errorf("by %q, %v, %+v", tr.Observer, tr.Agree, tr.Disagreements)
	}
	return tr
}

// wayOf checks where a packet was seen, and that no time was made up: hosts have
// clocks of their own.
func (r *Rig) wayOf(t *testing.T, tr *trace.Trace, places ...string) {
	t.Helper()
	var way []string
	clock := ""
	for _, h := range tr.Observed {
		if len(way) == 0 || way[len(way)-1] != h.Place {
			way = append(way, h.Place)
		}
		if h.Clock == "" || (h.Clock != clock && h.SinceNs != 0) || (h.Node != h.Clock) {
			t.Errorf("by the clock of %q, %d ns after the hop before by that of %q: %+v", h.Clock, h.SinceNs, clock, h)
		}
		clock = h.Clock
	}
	if tr.Verdict != trace.Delivered || !slices.Equal(way, places) || len(tr.Reply.Observed) == 0 {
		t.Errorf("%s by %v", tr.Verdict, way)
	}
	if len(tr.Clocks) != len(r.Machines) || tr.Clocks[0].Host != places[1] {
		t.Errorf("clocks: %+v", tr.Clocks)
	}
}
