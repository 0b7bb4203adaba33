// Package bgp runs the BGP speakers of the calico modes: one process per node,
// in the node's own network namespace, as a real node has its own bird.
//
// gobgp's dialler has no hook to choose a namespace, so the speaker cannot live
// in the daemon. [Start] runs the same binary again inside the node's namespace,
// where it calls [RunSpeaker]. The two talk over the child's standard input
// (one JSON object per line: a [datapath.Speaker], or {"shutdown":true}) and
// standard output (one [Event] per line).
//
// Routes outlive the speaker that learnt them: when its input ends, because the
// daemon died or let go, the speaker leaves without a word and its routes stay,
// and its peers keep theirs for the restart time (RFC 4724). Only a shutdown
// withdraws.
package bgp

import "time"

// The timers of every session.
const (
	// HoldTime and Keepalive are what RFC 4271 §10 suggests.
	HoldTime  = 90 * time.Second
	Keepalive = 30 * time.Second
	// IdleHold is how long a peer that was lost rests before the next attempt.
	// gobgp rests 5 s (holdtimeIdle) unless told otherwise, see sessions.hasten.
	IdleHold = time.Second
	// RestartTime is how long peers keep the routes of a speaker that went
	// without a NOTIFICATION: the default of bird's "graceful restart time".
	RestartTime = 120 * time.Second
	// SweepAfter bounds how long routes of an earlier speaker may stay although
	// nobody announced them again: the Selection_Deferral_Timer of RFC 4724
	// §4.1. They go earlier when every peer has sent its End-of-RIB.
	SweepAfter = 30 * time.Second
)

// port is where speakers listen (RFC 4271 §8.2.1).
const port = 179
