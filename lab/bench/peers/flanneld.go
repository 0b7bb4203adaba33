package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/lab"
	"slipway/topology"
)

// Registry is an etcd in the lab's external machine that holds the network as
// flannel keeps it (flannel pkg/subnet/etcd): PREFIX/config, and one key per
// lease.
type Registry struct {
	lab  *Lab
	ns   *netns.NS
	addr string
	http *http.Client
	etcd *Process
}

// registryPrefix is where flannel keeps its keys unless told otherwise
// (flannel main.go, --etcd-prefix).
const registryPrefix = "/coreos.com/network/"

// Lease is a subnet's lease as flannel writes it (flannel pkg/lease/lease.go,
// LeaseAttrs).
type Lease struct {
	PublicIP    netip.Addr
	BackendType string
	BackendData *VXLANData `json:",omitempty"`
}

// VXLANData is what a lease of the vxlan backend says besides (flannel
// pkg/backend/vxlan, vxlanLeaseAttrs).
type VXLANData struct {
	VNI     int
	VtepMAC string
}

// StartRegistry starts etcd and writes the network's configuration for a
// backend: "udp", "vxlan" or "host-gw".
func StartRegistry(ctx context.Context, l *Lab, etcd, backend string) (*Registry, error) {
	ns, t, err := l.At(lab.ExternalName)
	if err != nil {
		return nil, err
	}
	client, peer := "http://"+t.Address.String()+":2379", "http://127.0.0.1:2380"
	r := &Registry{lab: l, ns: ns, addr: client}
	r.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = ns.Do(func() (err error) {
			c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return c, err
	}}}
	// Nothing here outlives a crash of the machine: no fsync.
	r.etcd, err = l.Start(lab.ExternalName, "etcd.log", etcd, "--name", "peers", "--data-dir", filepath.Join(l.Dir(), "etcd"),
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "peers="+peer, "--unsafe-no-fsync", "--log-level", "warn")
	if err != nil {
		return nil, err
	}
	pods := l.State.Snapshot.Network.PodCIDR
	network := struct {
		Network   netip.Prefix
		SubnetLen int
		SubnetMin netip.Addr // flannel leaves out the first subnet by itself; Kubernetes does not
		Backend   struct{ Type string }
	}{Network: pods, SubnetLen: l.subnetLength(), SubnetMin: pods.Addr()}
	network.Backend.Type = backend
	return r, await(ctx, "etcd to take the network's configuration", func() (bool, error) {
		if err := r.etcd.Check(); err != nil {
			return false, err
		}
		return r.Put(ctx, "config", network) == nil, nil
	})
}

// subnetLength is how long the prefixes of the nodes' subnets are.
func (l *Lab) subnetLength() int {
	for _, n := range l.State.Snapshot.Nodes {
		if n.PodCIDR.IsValid() {
			return n.PodCIDR.Bits()
		}
	}
	return 0
}

// Put writes a value as JSON below flannel's prefix.
func (r *Registry) Put(ctx context.Context, key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return r.call(ctx, "put", map[string][]byte{"key": []byte(registryPrefix + key), "value": raw}, nil)
}

// PutLease writes a node's lease for other nodes to find.
func (r *Registry) PutLease(ctx context.Context, subnet netip.Prefix, l Lease) error {
	return r.Put(ctx, leaseKey(subnet), l)
}

// leaseKey is flannel's name of a subnet (flannel pkg/subnet/subnet.go, MakeSubnetKey).
func leaseKey(subnet netip.Prefix) string {
	return "subnets/" + strings.Replace(subnet.String(), "/", "-", 1)
}

// ErrNoLease reports that nobody has a subnet's lease.
var ErrNoLease = errors.New("no lease")

// Lease reads a subnet's lease.
func (r *Registry) Lease(ctx context.Context, subnet netip.Prefix) (Lease, error) {
	var l Lease
	var out struct{ Kvs []struct{ Value []byte } }
	err := r.call(ctx, "range", map[string][]byte{"key": []byte(registryPrefix + leaseKey(subnet))}, &out)
	if err != nil {
		return l, err
	}
	if len(out.Kvs) == 0 {
		return l, fmt.Errorf("subnet %s: %w", subnet, ErrNoLease)
	}
	if err := json.Unmarshal(out.Kvs[0].Value, &l); err != nil {
		return l, fmt.Errorf("lease of %s: %w", subnet, err)
	}
	return l, nil
}

// call asks etcd by its JSON gateway, where keys and values are base64
// (etcd.io/docs, "Why gRPC gateway"), as encoding/json has []byte.
func (r *Registry) call(ctx context.Context, what string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("etcd %s: %w", what, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.addr+"/v3/kv/"+what, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("etcd %s: %w", what, err)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return fmt.Errorf("etcd %s: %w", what, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd %s: %s: %s: %w", what, resp.Status, said, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(said, out); err != nil {
		return fmt.Errorf("etcd %s: read answer: %w", what, err)
	}
	return nil
}

// Strip takes our datapath off a node, but for what pods are plugged into: the
// tunnel's device, its programs, and the routes to other nodes' pods.
func Strip(l *Lab, node string) error {
	ns, _, err := l.At(node)
	if err != nil {
		return err
	}
	// The programs on eth0 outlive the device.
	if err := bpf.DetachUDP(ns, datapath.UDPTunnel{Device: "flannel0", Underlay: "eth0"}); err != nil {
		return fmt.Errorf("strip %s: %w", node, err)
	}
	h, err := nl.At(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, name := range []string{"flannel0", "flannel.1"} {
		link, err := h.LinkByName(name)
		if err == nil {
			err = h.LinkDel(link)
		}
		if err != nil && !nl.Missing(err) {
			return fmt.Errorf("strip %s of %s: %w", node, name, err)
		}
	}
	routes, err := nl.Dump(func() ([]netlink.Route, error) { return h.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("strip %s: %w", node, err)
	}
	for i := range routes {
		if !l.podRoute(routes[i]) {
			continue
		}
		if err := h.RouteDel(&routes[i]); err != nil && !nl.Missing(err) {
			return fmt.Errorf("strip %s of the route %s: %w", node, routes[i], err)
		}
	}
	return nil
}

// podRoute tells the mode's routes from the kernel's own.
func (l *Lab) podRoute(r netlink.Route) bool {
	if r.Dst == nil || int(r.Protocol) == int(datapath.ProtoKernel) {
		return false
	}
	a, ok := netip.AddrFromSlice(r.Dst.IP)
	return ok && l.State.Snapshot.Network.PodCIDR.Contains(a.Unmap())
}

// StartFlanneld starts flanneld on a node that has been stripped, with the
// subnet that the lab gave the node: as after a restart, it finds the file that
// it wrote before. Rules it leaves alone, ours are its own. It returns once
// flanneld has its lease and runs.
func StartFlanneld(ctx context.Context, r *Registry, flanneld, node string) (*Process, error) {
	n, ok := r.lab.State.Snapshot.NodeByName(node)
	if !ok {
		return nil, fmt.Errorf("start flanneld: no node %s", node)
	}
	subnetFile := filepath.Join(r.lab.Dir(), "subnet-"+node+".env")
	before := fmt.Sprintf("FLANNEL_NETWORK=%s\nFLANNEL_SUBNET=%s\n", r.lab.State.Snapshot.Network.PodCIDR, netip.PrefixFrom(n.PodCIDR.Addr().Next(), n.PodCIDR.Bits()))
	if err := os.WriteFile(subnetFile, []byte(before), 0o600); err != nil {
		return nil, fmt.Errorf("start flanneld: %w", err)
	}
	p, err := r.lab.Start(node, "flanneld-"+node+".log", flanneld, "--etcd-endpoints", r.addr, "--iface", n.Interface.Name,
		"--subnet-file", subnetFile, "--ip-masq=false", "--iptables-forward-rules=false", "--healthz-port=0")
	if err != nil {
		return nil, err
	}
	err = await(ctx, "flanneld on "+node, func() (bool, error) {
		if err := p.Check(); err != nil {
			return false, err
		}
		written, err := os.ReadFile(subnetFile)
		return bytes.Contains(written, []byte("FLANNEL_MTU=")), err
	})
	if err != nil {
		return nil, errors.Join(err, fmt.Errorf("it said last: %s", p.said()))
	}
	got, err := r.Lease(ctx, n.PodCIDR)
	if err != nil {
		return nil, err
	}
	if got.PublicIP != n.Interface.Prefix.Addr() {
		return nil, fmt.Errorf("flanneld on %s: the lease of %s is %s's", node, n.PodCIDR, got.PublicIP)
	}
	return p, nil
}

// Backend is flannel's name of a mode.
func Backend(m topology.ModeName) string { return strings.TrimPrefix(string(m), "flannel-") }

// flanneldMissing says what flanneld asks of the machine before it starts
// (flannel main.go: br_netfilter; pkg/trafficmngr: nft).
func flanneldMissing() []Missing {
	var out []Missing
	if _, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables"); err != nil {
		out = append(out, Missing{"the kernel module br_netfilter", "`modprobe br_netfilter`"})
	}
	if _, err := exec.LookPath("nft"); err != nil {
		out = append(out, Missing{"nft", "install the package nftables"})
	}
	return out
}
