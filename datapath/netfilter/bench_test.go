package netfilter

import (
	"fmt"
	"strings"
	"testing"

	"slipway/datapath/kubeproxy"
)

// manyServices is table nat as kube-proxy fills it for n services with three
// endpoints each: eleven rules a service.
func manyServices(n int) string {
	var heads, first, rules strings.Builder
	for i := range n {
		ip := fmt.Sprintf("10.96.%d.%d", i>>8, i&255)
		svc := fmt.Sprintf("KUBE-SVC-%016d", i)
		fmt.Fprintf(&heads, ":%s - [0:0]\n", svc)
		fmt.Fprintf(&first, "[0:0] -A KUBE-SERVICES -d %s/32 -p tcp -m comment --comment \"default/svc-%d:http cluster IP\" -m tcp --dport 80 -j %s\n", ip, i, svc)
		fmt.Fprintf(&rules, "[0:0] -A %s ! -s 10.244.0.0/16 -d %s/32 -p tcp -m comment --comment \"default/svc-%d:http cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ\n", svc, ip, i)
		for e, p := range []string{"-m statistic --mode random --probability 0.33333333349 ", "-m statistic --mode random --probability 0.50000000000 ", ""} {
			sep := fmt.Sprintf("KUBE-SEP-%014d%02d", i, e)
			pod := fmt.Sprintf("10.244.%d.%d", i>>6, (i&63)*4+e)
			fmt.Fprintf(&heads, ":%s - [0:0]\n", sep)
			fmt.Fprintf(&rules, "[0:0] -A %s -m comment --comment \"default/svc-%d:http -> %s:80\" %s-j %s\n", svc, i, pod, p, sep)
			fmt.Fprintf(&rules, "[0:0] -A %s -s %s/32 -m comment --comment \"default/svc-%d:http\" -j KUBE-MARK-MASQ\n", sep, pod, i)
			fmt.Fprintf(&rules, "[0:0] -A %s -p tcp -m comment --comment \"default/svc-%d:http\" -m tcp -j DNAT --to-destination %s:80\n", sep, i, pod)
		}
	}
	return "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-SERVICES - [0:0]\n" + heads.String() +
		"[0:0] -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n[0:0] -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n" + first.String() + rules.String() + "COMMIT\n"
}

const services = 5000

// lastService asks for the service whose rule stands last.
func lastService() Query {
	return Query{Hook: "prerouting", Table: "nat", State: "NEW", In: "cni0", Packet: syn("10.244.250.1:40000", fmt.Sprintf("10.96.%d.%d:80", (services-1)>>8, (services-1)&255))}
}

func TestLastOfManyServices(t *testing.T) {
	r, err := Parse(map[string]string{"nat": manyServices(services)})
	if err != nil {
		t.Fatal(err)
	}
	out := r.Eval(lastService())
	if len(out) != 3 || out[0].NAT == nil || out[0].Hits[1].Number != services {
		t.Errorf("%+v", out)
	}
}

func BenchmarkParse(b *testing.B) {
	text := manyServices(services)
	for b.Loop() {
		if _, err := Parse(map[string]string{"nat": text}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseSave(b *testing.B) {
	text := manyServices(services)
	for b.Loop() {
		if _, err := kubeproxy.ParseSave(text); err != nil {
			b.Fatal(err)
		}
	}
}

// The first packet in a new rule set, and one in a rule set that has seen others.
func BenchmarkEvalFirst(b *testing.B) {
	text := manyServices(services)
	for b.Loop() {
		b.StopTimer()
		r, err := Parse(map[string]string{"nat": text})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		r.Eval(lastService())
	}
}

func BenchmarkEvalNext(b *testing.B) {
	r, err := Parse(map[string]string{"nat": manyServices(services)})
	if err != nil {
		b.Fatal(err)
	}
	q := lastService()
	for b.Loop() {
		r.Eval(q)
	}
}
