package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/procs"
	"slipway/topology"
)

const (
	benchPort = 5300 // of the services and of the servers' own listeners
	// firstNodePort is the client's own service's; the others' follow.
	firstNodePort = 30530
)

// benchPods are the pods of a lab, each with a service in front of it.
var benchPods = []struct{ name, node, path string }{
	{"client", "node01", matrix.Hairpin},
	{"near", "node01", matrix.SameNode},
	{"server", "node02", matrix.OtherNode},
	{"far", "node03", matrix.OtherRack},
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

// benchObjects are the pods and their services.
func benchObjects() string {
	var b strings.Builder
	for i, p := range benchPods {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec: {nodeName: %[2]s, containers: [{name: c, image: bench:1}]}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  type: NodePort
  selector: {app: %[1]s}
  ports:
    - {name: tcp, port: %[3]d, targetPort: %[3]d, nodePort: %[4]d}
    - {name: udp, port: %[3]d, targetPort: %[3]d, nodePort: %[4]d, protocol: UDP}
`, p.name, p.node, benchPort, firstNodePort+i)
	}
	return b.String()
}

// labBed is a lab with its namespaces open.
type labBed struct {
	variant   string
	lab       string
	snapshot  *topology.Snapshot
	open      map[string]*netns.NS // by the label of a node or pod
	devices   []load.Device
	processes []int
	reasons   load.DropReasons // nil where the kernel gives none
}

// labName is short, as it is part of every namespace's name.
func labName(variant string) string {
	return fmt.Sprintf("bench-%d-%s", os.Getpid(), strings.NewReplacer("flannel-", "", "calico-", "", "/", "-", "+", "-").Replace(variant))
}

func newLabBed(variant string) *labBed {
	return &labBed{variant: variant, lab: labName(variant), open: map[string]*netns.NS{}}
}

// up brings the lab up and opens it.
func (b *labBed) up(ctx context.Context, p program, v Variant) (err error) {
	dir, err := os.MkdirTemp("", "slipway-bench")
	if err != nil {
		return fmt.Errorf("make a directory for the cluster file: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "cluster.yaml")
	for path, text := range map[string]string{file: clusterOf(v), filepath.Join(dir, "objects.yaml"): benchObjects()} {
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
	b.snapshot = st.Snapshot
	names := map[string]string{}
	for _, n := range st.Snapshot.Nodes {
		names[n.Name] = lab.NSOfMachine(b.lab, n.Name)
	}
	for _, r := range st.Snapshot.Routers {
		names[r.Name] = lab.NSOfMachine(b.lab, r.Name)
	}
	for _, m := range []string{lab.ExternalName, fabric} {
		names[m] = lab.NSOfMachine(b.lab, m)
	}
	for _, p := range st.Snapshot.Pods {
		names[p.Key()] = lab.NSOfPod(b.lab, p.Key())
	}
	for label, name := range names {
		if b.open[label], err = netns.Open(name); err != nil {
			return err
		}
		if err := b.addDevices(label); err != nil {
			return err
		}
	}
	all, err := procs.Marked(strings.TrimPrefix(lab.Mark(st), procs.MarkEnv+"="))
	for _, p := range all {
		b.processes = append(b.processes, p.PID)
	}
	return err
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
		if name := l.Attrs().Name; name != "lo" {
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
		if p.Key() == "default/"+name {
			return b.place(p.Key(), p.Address)
		}
	}
	return load.Place{}
}

// Ends are pods: the client on the first node, the server where the path leads.
// A NodePort is the client's own node's, so that what follows is the mode's way.
func (b *labBed) Ends(path, target string) (matrix.Ends, bool) {
	for i, p := range benchPods {
		if p.path != path || path == matrix.Hairpin && target == matrix.Pod || p.node == "node03" && !b.twoRacks() {
			continue
		}
		e := matrix.Ends{Client: b.pod("client"), Server: b.pod(p.name)}
		e.Sender = load.Device{NS: e.Client.NS, Name: "eth0", Label: e.Client.Label + "/eth0"}
		switch target {
		case matrix.ClusterIP:
			e.Port, e.To = benchPort, netip.AddrPortFrom(b.clusterIP(p.name), benchPort)
		case matrix.NodePort:
			e.Port, e.To = benchPort, netip.AddrPortFrom(b.snapshot.Nodes[0].Address, uint16(firstNodePort+i))
		}
		return e, true
	}
	return matrix.Ends{}, false
}

// twoRacks reports whether the third node is behind the router.
func (b *labBed) twoRacks() bool {
	return b.snapshot.Nodes[0].Interface.Segment != b.snapshot.Nodes[2].Interface.Segment
}

func (b *labBed) clusterIP(service string) netip.Addr {
	for _, s := range b.snapshot.Services {
		if s.Key() == "default/"+service {
			return s.ClusterIP
		}
	}
	return netip.Addr{}
}

// Watch looks at all machines and pods, their devices, and the lab's processes.
func (b *labBed) Watch() load.Watch {
	w := load.Watch{Devices: b.devices, Processes: b.processes, Reasons: b.reasons}
	for label, ns := range b.open {
		w.Spaces = append(w.Spaces, load.Place{NS: ns, Label: label})
	}
	return w
}

// Close takes the lab down.
func (b *labBed) Close(ctx context.Context) error {
	for _, ns := range b.open {
		if ns != nil {
			_ = ns.Close() // a read-only descriptor
		}
	}
	return takeDown(ctx, b.lab)
}
