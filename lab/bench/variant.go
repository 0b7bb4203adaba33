package bench

import (
	"fmt"
	"slices"
	"strings"

	"slipway/lab/bench/matrix"
	"slipway/topology"
)

// Variant is one way to run the pod network: a column of the report.
type Variant struct {
	Mode topology.ModeName
	// UDP is the implementation of flannel-udp; empty in the other modes.
	UDP topology.UDPImplementation
	// MTU of pods in bytes; zero is what the mode leaves of the underlay's.
	MTU int
	// NoOffloads: TSO, GSO and GRO are off at every device of the lab.
	NoOffloads bool
}

// Suffixes of variants that serve as controls.
const (
	mtuSuffix        = "+mtu"
	noOffloadsSuffix = "+no-offloads"
)

// Name is the variant's in the report: "flannel-udp/ebpf", "flannel-host-gw+mtu1450".
func (v Variant) Name() string {
	name := string(v.Mode)
	if v.UDP != "" {
		name += "/" + string(v.UDP)
	}
	if v.MTU > 0 {
		name += mtuSuffix + fmt.Sprint(v.MTU)
	}
	if v.NoOffloads {
		name += noOffloadsSuffix
	}
	return name
}

// podMTU is the largest packet of the variant's pods in bytes.
func (v Variant) podMTU() int {
	if v.MTU > 0 {
		return v.MTU
	}
	return underlayMTU - v.Mode.Overhead()
}

// underlayMTU is a segment's, in bytes, unless a cluster file says otherwise.
const underlayMTU = 1500

// has reports whether the variant has a path: host-gw needs all nodes in one
// segment.
func (v Variant) has(path string) bool {
	switch path {
	case matrix.OtherRack:
		return v.Mode != topology.FlannelHostGW
	default:
		return slices.Contains(podPaths, path)
	}
}

var udpImplementations = []topology.UDPImplementation{topology.UDPSimple, topology.UDPBatched, topology.UDPeBPF}

// Variants are all that there are, apart from those that serve as controls.
func Variants() []Variant {
	var out []Variant
	for _, m := range topology.ModeNames() {
		if m != topology.FlannelUDP {
			out = append(out, Variant{Mode: m})
			continue
		}
		for _, u := range udpImplementations {
			out = append(out, Variant{Mode: m, UDP: u})
		}
	}
	return out
}

// ModeVariants are the modes, flannel-udp as it is by default.
func ModeVariants() []Variant {
	return slices.DeleteFunc(Variants(), func(v Variant) bool { return v.UDP != "" && v.UDP != topology.UDPBatched })
}

// ParseVariant reads "flannel-vxlan", "flannel-udp" (which is its default
// implementation) or "flannel-udp/ebpf".
func ParseVariant(name string) (Variant, error) {
	for _, v := range slices.Concat(Variants(), ModeVariants()) {
		if name == v.Name() || name == string(v.Mode) && v.UDP != topology.UDPSimple && v.UDP != topology.UDPeBPF {
			return v, nil
		}
	}
	var names []string
	for _, v := range Variants() {
		names = append(names, v.Name())
	}
	return Variant{}, fmt.Errorf("%q is not one of %s", name, strings.Join(names, ", "))
}

// withControls adds to each variant one with the smallest MTU of all, unless it
// has that, and one without offloads.
func withControls(vs []Variant) []Variant {
	smallest := underlayMTU
	for _, v := range vs {
		smallest = min(smallest, v.podMTU())
	}
	out := slices.Clone(vs)
	for _, v := range vs {
		if v.podMTU() != smallest {
			equal := v
			equal.MTU = smallest
			out = append(out, equal)
		}
	}
	for _, v := range vs {
		v.NoOffloads = true
		out = append(out, v)
	}
	return out
}
