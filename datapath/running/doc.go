// Package running keeps what of a datapath has to run in user space equal to
// what is wanted: units that are started, changed while they run, started anew
// when they cannot change or ended by themselves, and stopped. The tunnels among
// them are here; the lab's daemon and the nodes' agent use it alike.
package running
