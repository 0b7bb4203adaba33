package balance

import (
	"slices"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/internal/testnet"
)

// BenchmarkVIP measures how long clients of the VIP have no answer when the
// machine that holds it fails, each way several times (-benchtime=7x).
func BenchmarkVIP(b *testing.B) {
	for _, software := range []string{"nginx", "haproxy"} {
		b.Run(software, func(b *testing.B) {
			r, _ := newExternal(b, "software: "+software)
			serveAs(b, r, "master01")
			serveAs(b, r, "master02")
			lb1 := r.Nodes["lb01"]
			c := newClient(b, r, "node01")
			c.patience = 200 * time.Millisecond
			tr := keepAsking(b, c, "/who")
			for _, fault := range []struct {
				name       string
				fail, mend func(b *testing.B)
			}{
				{"power", func(*testing.B) { r.PowerOff(lb1) }, func(*testing.B) { r.PowerOn(lb1) }},
				{"balancer", shell(lb1, "systemctl stop api-balancer"), shell(lb1, "systemctl start api-balancer")},
				{"keepalived", shell(lb1, "systemctl stop api-vip"), shell(lb1, "systemctl start api-vip")},
			} {
				b.Run(fault.name, func(b *testing.B) {
					var away, back []time.Duration
					for b.Loop() {
						waitForHolder(b, r, "lb01")
						tr.begin(b)
						fault.fail(b)
						waitForHolder(b, r, "lb02")
						tr.answered(b, 20)
						_, _, stall := tr.since()
						away = append(away, stall)
						fault.mend(b)
						waitForHolder(b, r, "lb01")
						tr.answered(b, 20)
						_, _, stall = tr.since()
						back = append(back, stall)
					}
					spread(b, "away", away)
					spread(b, "back", back)
				})
			}
		})
	}
}

// BenchmarkNodeLocal measures how long clients of a node's own balancer have no
// answer when an API server is killed, real ones one after the other.
func BenchmarkNodeLocal(b *testing.B) {
	testnet.Need(b, testnet.Root, testnet.NGINX, testnet.HAProxy, testnet.Curl)
	for _, software := range []string{"nginx", "haproxy"} {
		b.Run(software, func(b *testing.B) {
			r := newLocal(b, software)
			c := newClient(b, r, "node01")
			c.patience = 200 * time.Millisecond
			tr := keepAsking(b, c, object)
			masters := []string{"master01", "master02", "master03"}
			var stalls []time.Duration
			var lost, good int
			i := 0
			for b.Loop() {
				m := r.Nodes[masters[i%len(masters)]]
				i++
				tr.begin(b)
				must(b, m, "kill -9 "+mainPID(b, m, "kube-apiserver"))
				tr.answered(b, 50)
				waitReady(b, m)
				answers, failed, stall := tr.since()
				stalls, lost, good = append(stalls, stall), lost+len(failed), good+answers
			}
			spread(b, "stall", stalls)
			b.ReportMetric(float64(lost)/float64(b.N), "lost/op")
			b.ReportMetric(float64(good)/float64(b.N), "answered/op")
		})
	}
}

func shell(n *rig.Node, script string) func(*testing.B) {
	return func(b *testing.B) { must(b, n, script) }
}

func spread(b *testing.B, what string, d []time.Duration) {
	slices.Sort(d)
	for name, v := range map[string]time.Duration{"min": d[0], "median": d[len(d)/2], "max": d[len(d)-1]} {
		b.ReportMetric(float64(v.Milliseconds()), what+"-"+name+"-ms")
	}
}
