// Package observe reports what really happened to a packet: it listens on
// AF_PACKET sockets in a set of network namespaces, recognises one packet in
// every device that it passes, and puts the sightings into the order in which
// the kernel made them. Nothing here predicts; what was not seen is not shown.
//
// The usual order is [Open], [Send] a probe, [Capture.Collect], [Path], and
// then [Render], [Hops] or [WritePcapng].
package observe
