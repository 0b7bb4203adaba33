package bgp_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"slipway/internal/testnet"
)

// BenchmarkConvergence starts a full mesh and reports the time from the first
// speaker's start until every node has every route, and the memory that a
// speaker then occupies.
func BenchmarkConvergence(b *testing.B) {
	for _, n := range []int{3, 20} { // 20 speakers have 380 neighbours
		b.Run(fmt.Sprintf("speakers=%d", n), func(b *testing.B) {
			testnet.Need(b, testnet.Root)
			// Once for all rounds: the kernel holds 1024 neighbours of all
			// namespaces together (net/ipv4/arp.c, gc_thresh3).
			nodes := mesh(b, n)
			var took time.Duration
			var rss, private float64
			for range b.N {
				begin := time.Now()
				for _, node := range nodes {
					node.start()
				}
				for _, node := range nodes {
					node.wait("full mesh", synced(n-1, n-1))
				}
				took += time.Since(begin)
				for _, node := range nodes {
					rss += memory(b, node.p.Pid(), "Rss")
					private += memory(b, node.p.Pid(), "Private_Clean", "Private_Dirty")
					node.stop()
				}
			}
			b.ReportMetric(took.Seconds()/float64(b.N), "s/convergence")
			b.ReportMetric(rss/float64(b.N*n), "MB-rss/speaker")
			b.ReportMetric(private/float64(b.N*n), "MB-private/speaker")
		})
	}
}

// memory adds up fields of /proc/PID/smaps_rollup, in MB.
func memory(b *testing.B, pid int, fields ...string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	must(b, err)
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		for _, f := range fields {
			if words := strings.Fields(line); words[0] == f+":" {
				kb, err := strconv.ParseFloat(words[1], 64)
				must(b, err)
				sum += kb / 1000
			}
		}
	}
	return sum
}
