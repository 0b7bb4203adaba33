package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/procs"
	"slipway/topology"
)

// benchPort is of the services and of the servers' own listeners.
const benchPort = 5300

// benchNamespace is that of the pods in the bench's own labs.
const benchNamespace = "default"

// benchPod is a pod of a bench, with a service in front of it that has the node
// port; path leads there from the client.
type benchPod struct {
	name, node, path string
	nodePort         int
}

// client is the pod that all paths begin at.
const client = "client"

// benchPods are the pods of the bench's own labs.
var benchPods = []benchPod{
	{client, "node01", matrix.Hairpin, 30530},
	{"near", "node01", matrix.SameNode, 30531},
	{"server", "node02", matrix.OtherNode, 30532},
	{"far", "node03", matrix.OtherRack, 30533},
}

// clusterOf writes the cluster file of a variant: two nodes in a rack, and a
// third in another one where the mode can do that.
func clusterOf(v Variant) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: %s\nkind: %s\nmetadata: {name: bench}\nspec:\n  network:\n    mode: %s\n", topology.APIVersion, topology.KindCluster, v.Mode)
	if v.UDP != "" {
		fmt.Fprintf(&b, "    udp: {implementation: %s}\n", v.UDP)
	}
	if v.MTU > 0 {
		fmt.Fprintf(&b, "    mtu: %d\n", v.MTU)
	}
	far := "rack2"
	if !v.has(matrix.OtherRack) {
		far = "rack1"
	}
	fmt.Fprintf(&b, `  underlay:
    segments: [{name: rack1, subnet: 192.168.1.0/24}, {name: rack2, subnet: 192.168.2.0/24}]
    routers: [{name: router, segments: [rack1, rack2]}]
  nodes:
    - {name: node01, segment: rack1, roles: [control-plane, worker]}
    - {name: node02, segment: rack1, roles: [worker]}
    - {name: node03, segment: %s, roles: [worker]}
  manifests: [objects.yaml]
`, far)
	return b.String()
}

// benchObjects are pods and their services.
func benchObjects(namespace string, pods []benchPod) string {
	var b strings.Builder
	for _, p := range pods {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[5]s, labels: {app: %[1]s}}
spec: {nodeName: %[2]s, containers: [{name: c, image: bench:1}]}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[5]s}
spec:
  type: NodePort
  selector: {app: %[1]s}
  ports:
    - {name: tcp, port: %[3]d, targetPort: %[3]d, nodePort: %[4]d}
    - {name: udp, port: %[3]d, targetPort: %[3]d, nodePort: %[4]d, protocol: UDP}
`, p.name, p.node, benchPort, p.nodePort, namespace)
	}
	return b.String()
}

// labBed is a lab with its namespaces open.
type labBed struct {
	variant   string
	lab       string
	namespace string // of the bench's pods
	pods      []benchPod
	snapshot  *topology.Snapshot
	open      map[string]*netns.NS // by the label of a node or pod
	devices   []load.Device
	passes    func(machine string, l netlink.Link) bool // over a device; nil: over none
	processes []int
	reasons   load.DropReasons // nil where the kernel gives none
}

// labName is short, as it is part of every namespace's name.
func labName(variant string) string {
	return fmt.Sprintf("bench-%d-%s", os.Getpid(), strings.NewReplacer("flannel-", "", "calico-", "", "/", "-", "+", "-").Replace(variant))
}

func newLabBed(variant string) *labBed {
	return &labBed{variant: variant, lab: labName(variant), namespace: benchNamespace, pods: benchPods, open: map[string]*netns.NS{}}
}

// up brings the lab up and opens it.
func (b *labBed) up(ctx context.Context, p program, v Variant) (err error) {
	dir, err := os.MkdirTemp("", "slipway-bench")
	if err != nil {
		return fmt.Errorf("make a directory for the cluster file: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "cluster.yaml")
	for path, text := range map[string]string{file: clusterOf(v), filepath.Join(dir, "objects.yaml"): benchObjects(b.namespace, b.pods)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write cluster file: %w", err)
		}
	}
	if _, err := p.up(ctx, file, b.lab, v.Mode); err != nil {
		return err
	}
	return b.look()
}

// fabric is the machine that holds a lab's segments.
const fabric = "fabric"

// look opens the namespaces and finds the devices and processes.
func (b *labBed) look() error {
	st, err := lab.ReadState(b.lab)
	if err != nil {
		return err
	}
	if err := b.openAll(st.Snapshot); err != nil {
		return err
	}
	all, err := procs.Marked(strings.TrimPrefix(lab.Mark(st), procs.MarkEnv+"="))
	for _, p := range all {
		b.processes = append(b.processes, p.PID)
	}
	return err
}

// openAll opens the namespaces of all machines and of the bench's pods.
func (b *labBed) openAll(snapshot *topology.Snapshot) (err error) {
	b.snapshot = snapshot
	names := map[string]string{}
	for _, n := range snapshot.Nodes {
		names[n.Name] = lab.NSOfMachine(b.lab, n.Name)
	}
	for _, r := range snapshot.Routers {
		names[r.Name] = lab.NSOfMachine(b.lab, r.Name)
	}
	for _, m := range []string{lab.ExternalName, fabric} {
		names[m] = lab.NSOfMachine(b.lab, m)
	}
	for _, p := range snapshot.Pods {
		if p.Namespace == b.namespace {
			names[p.Key()] = lab.NSOfPod(b.lab, p.Key())
		}
	}
	for label, name := range names {
		if b.open[label], err = netns.Open(name); err != nil {
			return err
		}
		if err := b.addDevices(label); err != nil {
			return err
		}
	}
	return nil
}

// addDevices lists the devices of a namespace, without loopback.
func (b *labBed) addDevices(label string) error {
	h, err := nl.At(b.open[label])
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := nl.Dump(h.LinkList)
	if err != nil {
		return fmt.Errorf("list devices of %s: %w", label, err)
	}
	for _, l := range links {
		if name := l.Attrs().Name; name != "lo" && (b.passes == nil || !b.passes(label, l)) {
			b.devices = append(b.devices, load.Device{NS: b.open[label], Name: name, Label: label + "/" + name})
		}
	}
	return nil
}

// setNoOffloads switches off what joins packets, at every device.
func (b *labBed) setNoOffloads() error {
	for _, d := range b.devices {
		if _, err := d.SetOffloads(load.NoOffloads()); err != nil {
			return fmt.Errorf("%s: %w", b.variant, err)
		}
	}
	return nil
}

// Name is the variant's.
func (b *labBed) Name() string { return b.variant }

// place is a pod or machine with its address.
func (b *labBed) place(label string, addr netip.Addr) load.Place {
	return load.Place{NS: b.open[label], Addr: addr, Label: label}
}

func (b *labBed) pod(name string) load.Place {
	for _, p := range b.snapshot.Pods {
		if p.Namespace == b.namespace && p.Name == name {
			return b.place(p.Key(), p.Address)
		}
	}
	return load.Place{}
}

// Ends are pods: the client on the first node, the server where the path leads.
// A NodePort is the client's own node's, so that what follows is the mode's way.
func (b *labBed) Ends(path, target string) (matrix.Ends, bool) {
	at := b.node(b.pods[0].node)
	for _, p := range b.pods {
		if p.path != path || path == matrix.Hairpin && target == matrix.Pod {
			continue
		}
		if path == matrix.OtherRack && b.node(p.node).Interface.Segment == at.Interface.Segment {
			continue
		}
		e := matrix.Ends{Client: b.pod(client), Server: b.pod(p.name)}
		e.Sender = load.Device{NS: e.Client.NS, Name: "eth0", Label: e.Client.Label + "/eth0"}
		switch target {
		case matrix.ClusterIP:
			e.Port, e.To = benchPort, netip.AddrPortFrom(b.clusterIP(p.name), benchPort)
		case matrix.NodePort:
			e.Port, e.To = benchPort, netip.AddrPortFrom(at.Address, uint16(p.nodePort))
		}
		return e, true
	}
	return matrix.Ends{}, false
}

func (b *labBed) node(name string) topology.NodeState {
	for _, n := range b.snapshot.Nodes {
		if n.Name == name {
			return n
		}
	}
	return topology.NodeState{}
}

func (b *labBed) clusterIP(service string) netip.Addr {
	for _, s := range b.snapshot.Services {
		if s.Namespace == b.namespace && s.Name == service {
			return s.ClusterIP
		}
	}
	return netip.Addr{}
}

// Watch looks at all machines and the bench's pods, their devices, and the lab's
// processes.
func (b *labBed) Watch() load.Watch {
	w := load.Watch{Devices: b.devices, Processes: b.processes, Reasons: b.reasons}
	for label, ns := range b.open {
		w.Spaces = append(w.Spaces, load.Place{NS: ns, Label: label})
	}
	return w
}

// shut closes the namespaces.
func (b *labBed) shut() {
	for _, ns := range b.open {
		if ns != nil {
			_ = ns.Close() // a read-only descriptor
		}
	}
}

// Close takes the lab down.
func (b *labBed) Close(ctx context.Context) error {
	b.shut()
	return takeDown(ctx, b.lab)
}
