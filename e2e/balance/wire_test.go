package balance

import (
	"bytes"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/internal/testnet"
)

// wire watches a node's end of the segment, by tshark.
type wire struct {
	cmd *exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer
}

// Write takes lines of tshark's.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

// watch begins to look for VRRP and ARP; it returns when the first is seen.
func watch(t testing.TB, r *rig.Rig, port string) *wire {
	t.Helper()
	testnet.Need(t, testnet.TShark)
	w := &wire{}
	w.cmd = exec.Command("tshark", "-n", "-l", "-Q", "-i", port, "-f", "ip proto 112 or arp", "-T", "fields", "-E", "occurrence=f",
		"-e", "ip.src", "-e", "ip.dst", "-e", "ip.proto", "-e", "ip.ttl", "-e", "vrrp.version", "-e", "vrrp.virt_rtr_id", "-e", "vrrp.prio", "-e", "vrrp.ip_addr",
		"-e", "arp.isgratuitous", "-e", "arp.src.proto_ipv4", "-e", "arp.src.hw_mac")
	w.cmd.Stdout = w
	if err := r.Fabric.NS.Do(w.cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	testnet.Eventually(t, 30*time.Second, "something is on the wire", func() (bool, string) { return len(w.lines()) > 0, "" })
	return w
}

func (w *wire) end() {
	_ = w.cmd.Process.Signal(syscall.SIGINT)
	_ = w.cmd.Wait()
}

// lines are the packets so far, each its fields.
func (w *wire) lines() [][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out [][]string
	for line := range strings.Lines(w.out.String()) {
		if strings.HasSuffix(line, "\n") {
			out = append(out, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
		}
	}
	return out
}
