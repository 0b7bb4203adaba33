// Package shape gives the ports of an underlay segment the rate, delay and loss
// that the cluster file asks for.
//
// A packet from node to node crosses two ports: up from the sender into the
// fabric's bridge, and down from the bridge to the receiver. So that a figure in
// the file is the figure between two nodes, each property has its place:
//
//   - delay and loss act once, on the way down (fabric to node): delay is the
//     one-way delay between two nodes, and a ping takes twice as long;
//   - rate acts on both ways, as a cable's does: on the fabric's end of the port
//     for the way down ([ApplyRateLoss]), on the node's end for the way up
//     ([ApplyUplinkRate]).
//
// The netem qdisc does all of it where the kernel has it. Where not, tbf limits
// the rate, an eBPF program loses packets and a [Relay] between two TAPs, which
// then stand in for the port's veth pair, delays them. [Report] says which ran.
package shape
