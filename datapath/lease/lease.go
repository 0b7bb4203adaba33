package lease

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/topology"
)

// Lease is what a node says of itself in a registry.
type Lease struct {
	// Node is its name; empty in etcd, which knows nodes by their addresses.
	Node string
	// Address is where other nodes reach it.
	Address netip.Addr
	// Subnet is that of its pods in the flannel modes.
	Subnet netip.Prefix
	// Blocks are those of its pods in the calico modes.
	Blocks []netip.Prefix
	// Backend is flannel's name of the mode, "vxlan"; empty in the calico modes.
	Backend string
	// VNI and VTEPMAC are those of its VTEP; zero but for the vxlan backend.
	VNI     int
	VTEPMAC string
}

// Equal reports whether two leases say the same.
func (l Lease) Equal(o Lease) bool {
	return l.Node == o.Node && l.Address == o.Address && l.Subnet == o.Subnet && slices.Equal(l.Blocks, o.Blocks) &&
		l.Backend == o.Backend && l.VNI == o.VNI && strings.EqualFold(l.VTEPMAC, o.VTEPMAC)
}

// Errors of a registry that has nothing for a node yet.
var (
	// ErrUnplanned: nobody has given the node a subnet or a block so far.
	ErrUnplanned = errors.New("the node has no lease yet")
	// ErrNoConfig: there is no network configuration in etcd.
	ErrNoConfig = errors.New("etcd holds no network configuration")
	// ErrFull: no subnet is free.
	ErrFull = errors.New("no subnet is free")
)

// Backend is flannel's name of a mode; empty for the calico modes.
func Backend(m topology.ModeName) string {
	if name, ok := strings.CutPrefix(string(m), "flannel-"); ok {
		return name
	}
	return ""
}

// backendOf is a lease's backend as it is written; flanneld's udp writes none
// (flannel pkg/backend/udp/udp_amd64.go, RegisterNetwork).
func backendOf(written string) string {
	if written == "" {
		return "udp"
	}
	return written
}

// vxlanData is what the vxlan backend adds to a lease (flannel
// pkg/backend/vxlan/vxlan.go, vxlanLeaseAttrs).
type vxlanData struct {
	VNI     int
	VtepMAC string
}

// backendData is a lease's in flannel's form; nil but for vxlan.
func (l Lease) backendData() (json.RawMessage, error) {
	if l.VTEPMAC == "" {
		return nil, nil
	}
	return json.Marshal(vxlanData{l.VNI, l.VTEPMAC})
}

// setBackendData reads flannel's form.
func (l *Lease) setBackendData(raw []byte) error {
	if l.Backend != "vxlan" || len(raw) == 0 {
		return nil
	}
	var d vxlanData
	if err := json.Unmarshal(raw, &d); err != nil {
		return fmt.Errorf("backend data of %s: %w", l.Subnet, err)
	}
	l.VNI, l.VTEPMAC = d.VNI, d.VtepMAC
	return nil
}

// sorted puts leases into a stable order.
func sorted(leases []Lease) []Lease {
	slices.SortFunc(leases, func(a, b Lease) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.Address.Compare(b.Address), a.Subnet.Addr().Compare(b.Subnet.Addr()))
	})
	return leases
}
