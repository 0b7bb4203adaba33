package realproxy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A log comes in pieces; the lines are kube-proxy v1.36.3's own.
func TestLogTellsSyncs(t *testing.T) {
	type end struct {
		Took   time.Duration
		Failed bool
	}
	var got []end
	l := &log{done: func(took time.Duration, failed bool) { got = append(got, end{took, failed}) }}
	const text = `I1121 05:55:36.617056   31485 proxier.go:668] "Syncing iptables rules" ipFamily="IPv4" fullSync=true
E1121 06:11:45.184128   14512 proxier.go:1406] "Failed to execute iptables-restore" err=<
	exit status 2: iptables-restore v1.8.9 (legacy): host/network not found
 > ipFamily="IPv4"
I1121 06:11:45.184203   14512 proxier.go:673] "Sync failed" ipFamily="IPv4" retryingTime="30s"
I1121 06:11:45.184234   14512 proxier.go:662] "SyncProxyRules complete" ipFamily="IPv4" elapsed="118.344016ms"
I1121 06:12:15.184234   14512 proxier.go:662] "SyncProxyRules complete" ipFamily="IPv4" elapsed="1.5s"
`
	for i := 0; i < len(text); i += 100 {
		if _, err := l.Write([]byte(text[i:min(i+100, len(text))])); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]end{{118344016 * time.Nanosecond, true}, {1500 * time.Millisecond, false}}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
