package trace

import (
	"errors"
	"fmt"

	"slipway/datapath"
)

// Recorded is a network as it was read: what a trace saw of it, and no more. It
// is a [Network], and plain data.
type Recorded struct {
	Places map[string]Place              `json:"places"` // by namespace
	States map[string]*datapath.NetState `json:"states"` // by namespace
	Peers  map[string]PeerEnd            `json:"peers"`  // by PeerKey
	// Passed are namespaces that were read in part: see [Sketcher].
	Passed map[string]*datapath.NetState `json:"passed,omitempty"`
	// Unread are the namespaces that could not be read, with why.
	Unread map[string]string `json:"unread,omitempty"`
	// Notes are what a reader must know of the network, such as relayed wires.
	Notes []string `json:"notes,omitempty"`
}

// PeerEnd is the other end of a device.
type PeerEnd struct {
	Namespace string `json:"namespace,omitempty"`
	Device    string `json:"device,omitempty"`
	// None says why there is no other end in reach, Error why it could not be
	// found out.
	None  string `json:"none,omitempty"`
	Error string `json:"error,omitempty"`
}

// ErrNotRecorded says that a recording does not hold what was asked for: the
// trace that it was made for did not come there.
var ErrNotRecorded = errors.New("not in the recording")

// PeerKey is the key of a device in [Recorded.Peers].
func PeerKey(namespace, device string) string { return namespace + "/" + device }

// Place implements [Network].
func (r *Recorded) Place(namespace string) Place {
	if p, ok := r.Places[namespace]; ok {
		return p
	}
	return Place{Label: namespace, Namespace: namespace}
}

// State implements [Network]; [ErrNotRecorded] for a namespace that was not read.
func (r *Recorded) State(namespace string) (*datapath.NetState, error) {
	if st := r.States[namespace]; st != nil {
		return st, nil
	}
	label := r.Place(namespace).Label
	if why := r.Unread[namespace]; why != "" {
		return nil, fmt.Errorf("state of %s: could not be read when it was recorded: %s", label, why)
	}
	return nil, fmt.Errorf("state of %s: %w", label, ErrNotRecorded)
}

// Sketch implements [Sketcher].
func (r *Recorded) Sketch(namespace string) (*datapath.NetState, error) {
	if st := r.Passed[namespace]; st != nil && r.States[namespace] == nil {
		return st, nil
	}
	return r.State(namespace)
}

// Peer implements [Network]; [ErrNotRecorded] for a device that nobody followed.
func (r *Recorded) Peer(namespace, device string) (peerNamespace, peerDevice string, err error) {
	end, ok := r.Peers[PeerKey(namespace, device)]
	switch {
	case !ok:
		return "", "", fmt.Errorf("peer of %s in %s: %w", device, r.Place(namespace).Label, ErrNotRecorded)
	case end.None != "":
		return "", "", &noPeer{end.None}
	case end.Error != "":
		return "", "", errors.New(end.Error)
	}
	return end.Namespace, end.Device, nil
}

// EndOf is what a call of Peer returned, to be recorded.
func EndOf(namespace, device string, err error) PeerEnd {
	switch {
	case errors.Is(err, ErrNoPeer):
		return PeerEnd{None: err.Error()}
	case err != nil:
		return PeerEnd{Error: err.Error()}
	}
	return PeerEnd{Namespace: namespace, Device: device}
}

// noPeer is an ErrNoPeer with the words that it had when it was recorded.
type noPeer struct{ text string }

func (e *noPeer) Error() string { return e.text }
func (e *noPeer) Unwrap() error { return ErrNoPeer }
