package hosts

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"slipway/datapath/trace"
	"slipway/installer"
	"slipway/internal/testnet"
	"slipway/lab/capture"
)

// chatter has host1 send datagrams to host2, to a port where nobody is, until stop.
func (r *Rig) chatter(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	script := fmt.Sprintf("for i in $(seq 50); do echo x >/dev/udp/%s/9999; sleep 0.02; done", r.Machines[1].Address)
	wg.Go(func() {
		for ctx.Err() == nil {
			_, _ = r.Machines[0].Run(ctx, installer.Command{Argv: []string{"bash", "-c", script}}) // refusals are errors
		}
	})
	return func() { cancel(); wg.Wait() }
}

// Real machines are captured on and traced through by SSH, by an agent that is
// sent, and gone afterwards, however it ends.
func TestCaptureAndTraceBySSH(t *testing.T) {
	r := Start(t, 2, 0)
	file := r.ClusterFile("flannel-vxlan")
	gone := func() {
		t.Helper()
		for _, m := range r.Machines {
			if out, code := m.Sh("! test -e /opt/slipway && ! pgrep -f host-agent"); code != 0 {
				t.Errorf("%s: something of the agent is left: %s", m.Name(), out)
			}
		}
	}
	stop := r.chatter(t)
	defer stop()

	t.Run("a capture that counts", func(t *testing.T) {
		o := r.SlipwayMust("capture", "-f", file, "host1", "host2", "--filter", "udp port 9999", "-c", "300", "-o", "json")
		var sum capture.Summary
		if err := json.Unmarshal([]byte(o.Stdout), &sum); err != nil {
			t.Fatalf("%v: %v", err, o)
		}
		if sum.Packets != 300 || sum.Ended != capture.AtCount || len(sum.Places) != 2 {
			t.Errorf("%d packets, ended: %s, %d places", sum.Packets, sum.Ended, len(sum.Places))
		}
		for _, p := range sum.Places {
			n := 0
			for _, d := range p.Devices {
				n += d.Packets
			}
			if n == 0 {
				t.Errorf("nothing was heard on %s", p.Place)
			}
		}
		gone()
	})
	t.Run("a capture that is interrupted", func(t *testing.T) {
		path := r.Home + "/out.pcapng"
		cmd := r.Command(binary, "capture", "-f", file, "host*", "--filter", "udp port 9999", "-w", path)
		var said strings.Builder
		cmd.Stderr = &said
		r.Begin(cmd)
		testnet.Eventually(t, longest, "packets come", func() (bool, string) {
			info, err := os.Stat(path)
			return err == nil && info.Size() > 5000, fmt.Sprint(err)
		})
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), "interrupted") {
			t.Errorf("%v: %s", err, said.String())
		}
		if out, err := exec.Command("tshark", "-r", path, "-T", "fields", "-e", "frame.interface_name").Output(); err != nil || !strings.Contains(string(out), "host1/") || !strings.Contains(string(out), "host2/") {
			t.Errorf("%v: the file has packets of %.200s", err, out)
		}
		gone()
	})
	t.Run("a trace", func(t *testing.T) {
		o := r.SlipwayMust("trace", "-f", file, "host1", "host2", "-o", "json")
		var tr trace.Trace
		if err := json.Unmarshal([]byte(o.Stdout), &tr); err != nil {
			t.Fatalf("%v: %v", err, o)
		}
		var way []string
		for _, h := range tr.Predicted {
			if len(way) == 0 || way[len(way)-1] != h.Place {
				way = append(way, h.Place)
			}
		}
		if tr.Agree == nil || !*tr.Agree || len(tr.Observed) == 0 {
			t.Errorf("observed by %q: %v, %v", tr.Observer, tr.Disagreements, tr.Notes)
		}
		if got := strings.Join(way, ", "); tr.Verdict != trace.Delivered || got != "host1, network "+network.String()+", host2" {
			t.Errorf("%s by %s", tr.Verdict, got)
		}
		gone()
	})
}
