package lab

import (
	"fmt"
	"path/filepath"
	"time"

	"slipway/datapath"
)

// Port is where a machine's leg is plugged into the fabric.
type Port struct {
	Machine string // node, router or external client
	NetNS   string
	Device  string // of the machine
	Segment string
	Name    string // device in the fabric
	// Delay of the segment, which a relay between two TAPs makes where the
	// kernel cannot.
	Delay time.Duration
}

// FabricNS is the namespace of a lab's fabric.
func FabricNS(lab string) string { return NSOfMachine(lab, fabricName) }

// Ports lists the fabric's ports as they are planned.
func Ports(st *State) ([]Port, error) {
	machines, err := machinesOf(st.Snapshot)
	if err != nil {
		return nil, err
	}
	var out []Port
	for _, m := range machines {
		for _, leg := range m.legs {
			p := Port{Machine: m.name, NetNS: NSOfMachine(st.Lab, m.name), Device: leg.Name, Segment: leg.Segment, Name: ifName(m.name, leg.Name)}
			if seg, ok := st.Snapshot.SegmentByName(leg.Segment); ok {
				p.Delay = time.Duration(seg.Delay)
			}
			out = append(out, p)
		}
	}
	return out, nil
}

// PlannedTunnels are the tunnels that a node has in the lab's mode; nil for
// those that it has not.
func PlannedTunnels(st *State, node string) (*datapath.UDPTunnel, *datapath.IPIPTunnel, error) {
	mode, err := modeOf(st.Snapshot.Network.Mode)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := mode.Plan(*st.Snapshot, node)
	if err != nil {
		return nil, nil, fmt.Errorf("plan node %s: %w", node, err)
	}
	return cfg.UDPTunnel, cfg.IPIP, nil
}

// RuleFiles are a namespace's iptables lock and the file that may keep a copy
// of its rules, which goes with the lab.
func RuleFiles(lab, machine string) (lock, saved string) {
	return xtablesLock(lab, machine), filepath.Join(filesOf(lab).dir, "saved-"+machine)
}
