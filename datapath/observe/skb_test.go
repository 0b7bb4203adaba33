package observe

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
)

// recording is a stream of events with what is needed to read it.
type recording struct {
	Places map[uint64]trace.Place
	Sender trace.Place
	Ports  Ports
	Sent   datapath.Packet
	Got    bool
	Err    string
	Lost   int
	Events []skbtrace.Event
}

func (r *recording) world() World {
	w := World{Places: r.Places, Sender: r.Sender, Ports: r.Ports, Sent: r.Sent, Lost: r.Lost, Answer: Answer{Got: r.Got}}
	if r.Err != "" {
		w.Answer.Err = errors.New(r.Err)
	}
	return w
}

func load(t testing.TB, name string) *recording {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var r recording
	if err := json.NewDecoder(z).Decode(&r); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return &r
}

func recordings(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json.gz")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".json.gz")
	}
	return files
}

// hashed are names that are made of hashes: they say nothing to a reader.
var hashed = regexp.MustCompile(`(veth|cali)[0-9a-f]+|(nginx)-deployment-[a-z0-9-]+`)

// path writes hops without times, ports and hashes: where, what, and what the
// packet looks like then.
func path(hops []trace.Hop) []string {
	out := make([]string, len(hops))
	for i, h := range hops {
		s := fmt.Sprintf("%s/%s %s", strings.TrimPrefix(h.Place, "default/"), h.Device, h.Stage)
		if h.Action != trace.Pass {
			s += " " + string(h.Action)
		}
		s += fmt.Sprintf(": %s>%s ttl %d", h.Packet.Src, h.Packet.Dst, h.Packet.TTL)
		if o := h.Packet.Outer; o != nil {
			s += fmt.Sprintf(" in %s %s>%s", o.Type, o.Src, o.Dst)
		}
		out[i] = hashed.ReplaceAllString(s, "$1$2")
	}
	return out
}

func wantPath(t *testing.T, what string, hops []trace.Hop, want string) {
	t.Helper()
	var lines []string
	for _, l := range strings.Split(strings.TrimSpace(want), "\n") {
		lines = append(lines, strings.TrimSpace(l))
	}
	if diff := cmp.Diff(lines, path(hops)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// From a pod through a service to a pod of another node: the service's address
// becomes the pod's in the node's prerouting hook, which comes before the bridge
// hands the packet up since bridged packets pass iptables there, and is put back
// in the answer behind everything else. Each router takes one off the TTL.
func TestServiceOverVXLAN(t *testing.T) {
	r := load(t, "vxlan-service")
	o := FromSKB(r.Events, nil, r.world())
	to := o.Request[len(o.Request)-1].Packet.Dst.String()
	if to != "10.244.2.3" {
		t.Fatalf("the recording is of another endpoint: %s", to)
	}
	wantPath(t, "request", o.Request, `
		client/eth0 output: 10.244.1.2>10.96.0.11 ttl 64
		client/eth0 postrouting: 10.244.1.2>10.96.0.11 ttl 64
		client/eth0 egress: 10.244.1.2>10.96.0.11 ttl 64
		node1/veth ingress: 10.244.1.2>10.96.0.11 ttl 64
		node1/cni0 prerouting dnat: 10.244.1.2>10.244.2.3 ttl 64
		node1/cni0 ingress: 10.244.1.2>10.244.2.3 ttl 64
		node1/cni0 forward: 10.244.1.2>10.244.2.3 ttl 63
		node1/flannel.1 postrouting: 10.244.1.2>10.244.2.3 ttl 63
		node1/flannel.1 egress: 10.244.1.2>10.244.2.3 ttl 63
		node1/flannel.1 encap encap: 10.244.1.2>10.244.2.3 ttl 63 in vxlan 172.16.8.101>172.16.8.102
		node1/eth0 output: 10.244.1.2>10.244.2.3 ttl 63 in vxlan 172.16.8.101>172.16.8.102
		node1/eth0 postrouting: 10.244.1.2>10.244.2.3 ttl 63 in vxlan 172.16.8.101>172.16.8.102
		node1/eth0 egress: 10.244.1.2>10.244.2.3 ttl 63 in vxlan 172.16.8.101>172.16.8.102
		fabric/node1-eth0 wire: 10.244.1.2>10.244.2.3 ttl 63 in vxlan 172.16.8.101>172.16.8.102
		fabric/node2-eth0 wire: 10.244.1.2>10.244.2.3 ttl 63 in vxlan 172.16.8.101>172.16.8.102
		node2/eth0 ingress: 10.244.1.2>10.244.2.3 ttl 63 in vxlan 172.16.8.101>172.16.8.102
		node2/eth0 prerouting: 10.244.1.2>10.244.2.3 ttl 63 in vxlan 172.16.8.101>172.16.8.102
		node2/eth0 input: 10.244.1.2>10.244.2.3 ttl 63 in vxlan 172.16.8.101>172.16.8.102
		node2/flannel.1 decap decap: 10.244.1.2>10.244.2.3 ttl 63
		node2/flannel.1 ingress: 10.244.1.2>10.244.2.3 ttl 63
		node2/flannel.1 prerouting: 10.244.1.2>10.244.2.3 ttl 63
		node2/flannel.1 forward: 10.244.1.2>10.244.2.3 ttl 62
		node2/cni0 postrouting: 10.244.1.2>10.244.2.3 ttl 62
		node2/cni0 egress: 10.244.1.2>10.244.2.3 ttl 62
		node2/veth egress: 10.244.1.2>10.244.2.3 ttl 62
		nginx/eth0 ingress: 10.244.1.2>10.244.2.3 ttl 62
		nginx/eth0 prerouting: 10.244.1.2>10.244.2.3 ttl 62
		nginx/eth0 input: 10.244.1.2>10.244.2.3 ttl 62
		nginx/eth0 deliver deliver: 10.244.1.2>10.244.2.3 ttl 62`)
	wantPath(t, "end of the reply", o.Reply[len(o.Reply)-7:], `
		node1/cni0 postrouting snat: 10.96.0.11>10.244.1.2 ttl 62
		node1/cni0 egress: 10.96.0.11>10.244.1.2 ttl 62
		node1/veth egress: 10.96.0.11>10.244.1.2 ttl 62
		client/eth0 ingress: 10.96.0.11>10.244.1.2 ttl 62
		client/eth0 prerouting: 10.96.0.11>10.244.1.2 ttl 62
		client/eth0 input: 10.96.0.11>10.244.1.2 ttl 62
		client/eth0 deliver deliver: 10.96.0.11>10.244.1.2 ttl 62`)
	if o.Verdict != trace.Delivered || o.Cause != nil || len(o.Copies) != 0 {
		t.Errorf("verdict %s, cause %v, %d copies", o.Verdict, o.Cause, len(o.Copies))
	}
	for i, h := range o.Reply {
		if h.Seq != len(o.Request)+i+1 || h.SinceNs < 0 || h.TookNs < 0 {
			t.Errorf("reply hop %d has number %d, came %d ns after the one before and took %d ns", i, h.Seq, h.SinceNs, h.TookNs)
		}
	}
}

// The UDP backend is a process: behind the TUN another packet is made, which
// keeps the inner one's identification. It takes one off the TTL as well, on
// both sides (flannel pkg/backend/udp/proxy_amd64.c), so that two nodes take four.
func TestUserspaceTunnel(t *testing.T) {
	r := load(t, "flannel-udp")
	o := FromSKB(r.Events, nil, r.world())
	wantPath(t, "request", o.Request[6:24], `
		node1/cni0 forward: 10.244.1.2>10.244.2.3 ttl 63
		node1/flannel0 postrouting: 10.244.1.2>10.244.2.3 ttl 63
		node1/flannel0 egress: 10.244.1.2>10.244.2.3 ttl 63
		node1/flannel0 userspace encap: 10.244.1.2>10.244.2.3 ttl 62 in udp 172.16.8.101>172.16.8.102
		node1/eth0 output: 10.244.1.2>10.244.2.3 ttl 62 in udp 172.16.8.101>172.16.8.102
		node1/eth0 postrouting: 10.244.1.2>10.244.2.3 ttl 62 in udp 172.16.8.101>172.16.8.102
		node1/eth0 egress: 10.244.1.2>10.244.2.3 ttl 62 in udp 172.16.8.101>172.16.8.102
		fabric/node1-eth0 wire: 10.244.1.2>10.244.2.3 ttl 62 in udp 172.16.8.101>172.16.8.102
		fabric/node2-eth0 wire: 10.244.1.2>10.244.2.3 ttl 62 in udp 172.16.8.101>172.16.8.102
		node2/eth0 ingress: 10.244.1.2>10.244.2.3 ttl 62 in udp 172.16.8.101>172.16.8.102
		node2/eth0 prerouting: 10.244.1.2>10.244.2.3 ttl 62 in udp 172.16.8.101>172.16.8.102
		node2/eth0 input: 10.244.1.2>10.244.2.3 ttl 62 in udp 172.16.8.101>172.16.8.102
		node2/flannel0 userspace decap: 10.244.1.2>10.244.2.3 ttl 61
		node2/flannel0 ingress: 10.244.1.2>10.244.2.3 ttl 61
		node2/flannel0 prerouting: 10.244.1.2>10.244.2.3 ttl 61
		node2/flannel0 forward: 10.244.1.2>10.244.2.3 ttl 60
		node2/cni0 postrouting: 10.244.1.2>10.244.2.3 ttl 60
		node2/cni0 egress: 10.244.1.2>10.244.2.3 ttl 60`)
	if o.Verdict != trace.Delivered {
		t.Errorf("verdict %s, %+v", o.Verdict, o.Cause)
	}
}

// The eBPF tunnel works in tc, between the stack and the devices: tunl0 sends
// nothing itself, and the carrying packet passes no hook.
func TestIPIPInTC(t *testing.T) {
	r := load(t, "calico-ipip")
	o := FromSKB(r.Events, nil, r.world())
	wantPath(t, "request", o.Request[5:16], `
		node1/cali forward: 10.244.0.65>10.244.0.130 ttl 63
		node1/tunl0 postrouting: 10.244.0.65>10.244.0.130 ttl 63
		node1/tunl0 encap encap: 10.244.0.65>10.244.0.130 ttl 63 in ipip 172.16.8.101>172.16.8.102
		node1/eth0 egress: 10.244.0.65>10.244.0.130 ttl 63 in ipip 172.16.8.101>172.16.8.102
		fabric/node1-eth0 wire: 10.244.0.65>10.244.0.130 ttl 63 in ipip 172.16.8.101>172.16.8.102
		fabric/node2-eth0 wire: 10.244.0.65>10.244.0.130 ttl 63 in ipip 172.16.8.101>172.16.8.102
		node2/eth0 ingress: 10.244.0.65>10.244.0.130 ttl 63 in ipip 172.16.8.101>172.16.8.102
		node2/tunl0 decap decap: 10.244.0.65>10.244.0.130 ttl 63
		node2/tunl0 ingress: 10.244.0.65>10.244.0.130 ttl 63
		node2/tunl0 prerouting: 10.244.0.65>10.244.0.130 ttl 63
		node2/tunl0 forward: 10.244.0.65>10.244.0.130 ttl 62`)
	if o.Verdict != trace.Delivered {
		t.Errorf("verdict %s, %+v", o.Verdict, o.Cause)
	}
}

// Where only routes are programmed, nodes see the pods' packets as they are.
func TestPlainRoutes(t *testing.T) {
	for _, name := range []string{"flannel-host-gw", "calico-bgp"} {
		r := load(t, name)
		o := FromSKB(r.Events, nil, r.world())
		if o.Verdict != trace.Delivered {
			t.Errorf("%s: verdict %s, %+v", name, o.Verdict, o.Cause)
		}
		for _, h := range append(o.Request, o.Reply...) {
			if h.Packet.Outer != nil || h.Stage == trace.Encap || h.Stage == trace.Decap {
				t.Errorf("%s: a tunnel at hop %d: %s", name, h.Seq, h.At())
			}
		}
		last := o.Request[len(o.Request)-1]
		if last.Stage != trace.Deliver || last.Packet.TTL != 62 {
			t.Errorf("%s: after two routers the request ends at %s with TTL %d", name, last.At(), last.Packet.TTL)
		}
	}
}

// Two pods of one bridge: the node only switches, yet its hooks see the packet,
// and no router takes anything off the TTL.
func TestSameBridge(t *testing.T) {
	r := load(t, "same-node")
	o := FromSKB(r.Events, nil, r.world())
	wantPath(t, "request", o.Request[3:9], `
		node1/veth ingress: 10.244.1.2>10.244.1.3 ttl 64
		node1/cni0 prerouting: 10.244.1.2>10.244.1.3 ttl 64
		node1/cni0 forward: 10.244.1.2>10.244.1.3 ttl 64
		node1/cni0 postrouting: 10.244.1.2>10.244.1.3 ttl 64
		node1/veth egress: 10.244.1.2>10.244.1.3 ttl 64
		nginx/eth0 ingress: 10.244.1.2>10.244.1.3 ttl 64`)
}

// From outside to a node port: the packet is marked and sent to a pod in
// prerouting, and masqueraded behind the node for that mark in postrouting.
func TestNodePort(t *testing.T) {
	r := load(t, "vxlan-nodeport")
	o := FromSKB(r.Events, nil, r.world())
	wantPath(t, "request", o.Request[5:9], `
		node1/eth0 ingress: 172.16.8.254>172.16.8.101 ttl 64
		node1/eth0 prerouting dnat: 172.16.8.254>10.244.2.3 ttl 64
		node1/eth0 forward: 172.16.8.254>10.244.2.3 ttl 63
		node1/flannel.1 postrouting snat: 10.244.1.0>10.244.2.3 ttl 63`)
	for i, want := range map[int]uint32{5: 0, 6: 0x4000, 7: 0x4000, 8: 0} {
		if got := o.Request[i].Packet.Mark; got != want {
			t.Errorf("mark %#x at %s, not %#x", got, o.Request[i].At(), want)
		}
	}
	if o.Verdict != trace.Delivered {
		t.Errorf("verdict %s, %+v", o.Verdict, o.Cause)
	}
}
