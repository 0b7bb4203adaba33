// Package capture records the packets of any set of a lab's devices in one
// sequence, as they come: into one pcapng file with an interface for each
// device, and as lines for reading.
//
// [Select] finds the places that names and patterns mean, [Compile] turns a
// filter in tcpdump's syntax into one that the kernel runs on devices with and
// without frame headers, and [Run] captures until a count, a time or its context
// ends it.
package capture
