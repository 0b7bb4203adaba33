package bgp

import (
	"net/netip"
	"time"
)

// EventKind says which part of an Event is filled in.
type EventKind string

// The kinds of events.
const (
	EventConfigured EventKind = "configured" // one for each configuration line, in order; Error if it failed
	EventPeer       EventKind = "peer"       // a session changed its state
	EventRoute      EventKind = "route"      // a learnt route went into or out of the kernel
	EventSync       EventKind = "sync"       // the counts, after whatever changed them
	EventError      EventKind = "error"      // something that the speaker will try again
)

// Event is one line of a speaker's output.
type Event struct {
	Kind  EventKind   `json:"event"`
	Peer  *PeerStatus `json:"peer,omitempty"`
	Route *Route      `json:"route,omitempty"`
	*Sync
	Error string `json:"error,omitempty"`
}

// Sync counts what a speaker has.
type Sync struct {
	Established int `json:"established"` // sessions that are up
	Peers       int `json:"peers"`       // peers that are configured
	Routes      int `json:"routes"`      // learnt routes in the kernel
	// Unresolved routes were learnt but the kernel does not have them, for
	// want of a way to their next hop.
	Unresolved int `json:"unresolved"`
	// Settled: every peer but external ones is established and has sent its
	// End-of-RIB.
	Settled bool `json:"settled"`
}

// State is a state of the BGP finite state machine (RFC 4271 §8.2.2).
type State string

// The states of a session. There is no Connect: gobgp dials while Active.
const (
	Idle        State = "idle"
	Active      State = "active"
	OpenSent    State = "opensent"
	OpenConfirm State = "openconfirm"
	Established State = "established"
	Removed     State = "removed" // no longer configured
)

// PeerStatus is one session.
type PeerStatus struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	State   State      `json:"state"`
	Since   time.Time  `json:"since"`
	// External: not the lab's own, and nothing waits for it.
	External bool `json:"external,omitempty"`
}

// Route is one learnt route as the kernel has it, or had it if Removed.
type Route struct {
	Prefix  netip.Prefix `json:"prefix"`
	NextHop netip.Addr   `json:"nextHop"` // of the BGP path; invalid if it was not ours
	Via     netip.Addr   `json:"via"`     // the kernel's gateway
	Dev     string       `json:"dev"`
	Onlink  bool         `json:"onlink,omitempty"`
	Removed bool         `json:"removed,omitempty"`
}
