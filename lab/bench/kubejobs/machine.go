package kubejobs

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"slipway/internal/netns"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
)

// bootID tells machines from each other, and nodes that are namespaces of one
// (random(4)).
const bootID = "/proc/sys/kernel/random/boot_id"

// observer looks at the machine that a pod is on.
type observer struct {
	machine Machine
	before  matrix.CPUTimes
	watch   load.Watch
}

// observe begins to look. The label is of the pod's counters.
func observe(node, label string, address netip.Addr) (*observer, error) {
	facts, err := matrix.ReadMachine()
	if err != nil {
		return nil, err
	}
	id, err := os.ReadFile(bootID)
	if err != nil {
		return nil, fmt.Errorf("tell this machine from others: %w", err)
	}
	o := &observer{machine: Machine{
		Node: node, ID: strings.TrimSpace(string(id)), Kernel: facts.Kernel, Arch: facts.Arch, CPU: facts.CPU, CPUs: facts.CPUs,
		Memory: facts.Memory, Load: facts.Load,
	}}
	o.machine.Device, o.machine.MTU = deviceOf(address)
	if o.machine.Device != "" { // what cannot be asked for here is left out
		if all, err := (load.Device{NS: netns.Own(), Name: o.machine.Device, Label: o.machine.Device}).Offloads(); err == nil {
			o.machine.Offload = all.String()
		}
	}
	o.watch = load.Watch{Spaces: []load.Place{{NS: netns.Own(), Label: label}}}
	o.before, err = matrix.ReadCPUTimes()
	return o, err
}

// now is the machine, and how it was used since the beginning.
func (o *observer) now() (Machine, error) {
	times, err := matrix.ReadCPUTimes()
	m := o.machine
	m.Steal, m.Idle = times.Since(o.before)
	return m, err
}

// deviceOf is the device that has an address, with its MTU.
func deviceOf(a netip.Addr) (string, int) {
	all, err := net.Interfaces()
	if err != nil {
		return "", 0
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, x := range addrs {
			if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr() == a {
				return i.Name, i.MTU
			}
		}
	}
	return "", 0
}

// both is what a measurement cost at its two ends: once if they are on one machine.
func both(client, server load.Cost, oneMachine bool) load.Cost {
	sum := client
	sum.Conntrack, sum.Drops, sum.DropsByReason = nil, nil, nil // of the pod's namespace alone: not the datapath's
	sum.Protocols = map[string]map[string]int64{}
	for _, c := range []load.Cost{client, server} {
		for label, counters := range c.Protocols {
			sum.Protocols[label] = counters
		}
	}
	if !oneMachine {
		sum.CPU += server.CPU
		sum.SoftIRQ += server.SoftIRQ
		sum.ContextSwitches += server.ContextSwitches
	}
	return sum
}
