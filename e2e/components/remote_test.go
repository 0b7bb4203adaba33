package components

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/datapath/trace"
	"slipway/installer"
	"slipway/installer/verify"
	"slipway/internal/digest"
	"slipway/lab"
	"slipway/lab/capture"
	"slipway/lab/remote"
	"slipway/lab/tracer"
)

// hosts are the lab's nodes as machines that know of nobody else: each sees its own
// processes, files and namespaces alone.
func (w *world) hosts() (out []installer.Host) {
	for _, n := range w.state().Snapshot.Nodes {
		out = append(out, lab.OpenMachine(w.name, n.Name))
	}
	return out
}

func (w *world) program() installer.Blob {
	w.t.Helper()
	sum, size, err := digest.File(binary)
	if err != nil {
		w.t.Fatal(err)
	}
	return installer.Blob{Sum: sum, Size: size, Path: binary}
}

// remoteTrace: what agents on the nodes see, each for itself, predicts the same ways
// as the lab, which sees everything; and those are the ways that packets take.
func (w *world) remoteTrace(t *testing.T) {
	pods := w.running("app=web", 2)
	w.seen(pods)
	svc, err := w.api.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	hosts := w.hosts()
	st, err := remote.State(t.Context(), w.state().Cluster, w.state().Allocation, verify.OnMasters(hosts[:1]))
	if err != nil {
		t.Fatal(err)
	}
	look := func() *trace.Recorded {
		t.Helper()
		seen, err := remote.Look(t.Context(), hosts, w.program())
		if err != nil {
			t.Fatal(err)
		}
		n, err := remote.Network(st, seen)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	network := look()
	a, b := "default/"+pods[0].Name, "default/"+pods[1].Name
	for _, way := range [][2]string{{a, b}, {b, a}, {a, "web:8080"}, {"node01", b}, {"node02", fmt.Sprintf("node01:%d", svc.Spec.Ports[0].NodePort)}, {a, "master01"}} {
		t.Run(way[0]+" to "+way[1], func(t *testing.T) {
			got, err := tracer.Predict(st, network, tracer.Request{From: way[0], To: way[1]})
			if err != nil {
				t.Fatal(err)
			}
			out, code := w.slipway("trace", "--lab", w.name, "-o", "json", way[0], way[1])
			var want trace.Trace
			if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &want); err != nil {
				t.Fatalf("%d %v\n%s", code, err, out)
			}
			if code != 0 || got.Trace.PredictedVerdict != trace.Delivered {
				t.Errorf("in the lab %d, remotely %s", code, got.Trace.PredictedVerdict)
			}
			if diff := cmp.Diff(ways(want.Branches), ways(got.Trace.Branches)); diff != "" {
				t.Errorf("the ways differ (-lab +remote):\n%s", diff)
			}
		})
	}
	t.Run("a fault on a host", func(t *testing.T) {
		node := pods[1].Spec.NodeName
		rule := []string{"FORWARD", "-d", pods[1].Status.PodIP, "-j", "DROP"}
		w.inNode(node, append([]string{"iptables", "-t", "mangle", "-A"}, rule...)...)
		defer w.inNode(node, append([]string{"iptables", "-t", "mangle", "-D"}, rule...)...)
		got, err := tracer.Predict(st, look(), tracer.Request{From: "master01", To: b})
		if err != nil {
			t.Fatal(err)
		}
		if c := got.Trace.PredictedCause; c == nil || c.Node != node || c.Table != "mangle" || got.Trace.Verdict != trace.Dropped {
			t.Errorf("%s, %+v", got.Trace.Verdict, c)
		}
	})
}

// ways are those that a packet may take, as the machines are concerned: what is
// between them the lab knows, and nobody else. Chances may be of equal branches in
// another order.
func ways(branches []trace.Branch) map[string]float64 {
	out := map[string]float64{}
	for _, b := range branches {
		var text strings.Builder
		for _, list := range [][]trace.Hop{b.Hops, b.Reply} {
			for _, h := range list {
				if h.Stage == trace.Wire || h.Stage == trace.BridgeStage && h.Device != "cni0" {
					continue
				}
				fmt.Fprintf(&text, "%s %s %s %s %s > %s %s\n", h.Place, h.Device, h.Stage, h.Action, h.Packet.Src, h.Packet.Dst, h.Rule)
			}
			text.WriteString("--\n")
		}
		out[fmt.Sprint(b.Verdict, " ", b.Endpoint, "\n", text.String())] += b.Probability
	}
	return out
}

// remoteCapture: agents in two nodes hear a ping, each in its own node and in a pod
// of it, and leave nothing.
func (w *world) remoteCapture(t *testing.T) {
	pod := w.running("app=web", 2)[0]
	w.seen([]corev1.Pod{pod})
	hosts := w.hosts()
	st, err := remote.State(t.Context(), w.state().Cluster, w.state().Allocation, verify.OnMasters(hosts[:1]))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"master01/flannel.1", pod.Spec.NodeName + "/cni0", "default/" + pod.Name}
	places, err := capture.Select(st, names)
	if err != nil {
		t.Fatal(err)
	}
	filter, err := capture.Compile(t.Context(), "icmp", capture.DefaultSnapLen)
	if err != nil {
		t.Fatal(err)
	}
	pinging, stop := context.WithCancel(t.Context())
	defer stop()
	var pings sync.WaitGroup
	pings.Go(func() {
		for pinging.Err() == nil {
			_, _ = lab.OpenMachine(w.name, "master01").Client().Run(pinging, []string{"ping", "-c", "1", "-W", "1", pod.Status.PodIP}, nil)
		}
	})
	var file bytes.Buffer
	sum, err := capture.RunOn(t.Context(), st, hosts, w.program(), capture.Options{Places: places, Filter: filter, Duration: 8 * time.Second, File: &file})
	stop()
	pings.Wait()
	if err != nil {
		t.Fatal(err)
	}
	heard := map[string]bool{}
	for _, p := range sum.Places {
		for _, d := range p.Devices {
			heard[p.Place+"/"+d.Device] = d.Packets > 0
		}
	}
	want := map[string]bool{"master01/flannel.1": true, pod.Spec.NodeName + "/cni0": true, "default/" + pod.Name + "/eth0": true, "default/" + pod.Name + "/lo": false}
	if diff := cmp.Diff(want, heard); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		if _, _, err := r.ReadPacketData(); err != nil {
			break
		}
	}
	if n != sum.Packets || n == 0 {
		t.Errorf("the file has %d packets of %d", n, sum.Packets)
	}
}
