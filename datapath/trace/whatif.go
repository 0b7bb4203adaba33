package trace

import (
	"errors"
	"fmt"
	"strings"

	"slipway/datapath"
	"slipway/topology"
)

// editForms are all that [ParseEdits] reads, as its errors list them.
const editForms = `forms (NODE is a node, a router, a pod, "external" or "fabric"; "*" or nothing where it is optional: every node):
  node NAME down
  link NODE DEVICE up|down
  segment NAME down
  mtu NODE DEVICE BYTES
  sysctl [NODE] KEY=VALUE
  add route [NODE] [blackhole|unreachable|prohibit] PREFIX [via ADDRESS] [dev DEVICE] [src ADDRESS] [metric N] [onlink]
  delete route [NODE] PREFIX
  delete neighbor [NODE] ADDRESS
  delete fdb [NODE] MAC
  delete endpoint POD|ADDRESS
  delete service NAME
  delete pod NAME
  rule [NODE] [-t TABLE] -I CHAIN [N] RULE | -A CHAIN RULE | -D CHAIN N|RULE | -P CHAIN ACCEPT|DROP`

// everyNode is the place of an edit that names no node.
const everyNode = "*"

// Edit is one change to a network that a prediction is to be made with. Only
// [ParseEdits] makes edits.
type Edit struct {
	text  string
	place string // label of the place that it changes, or everyNode
	note  string
	// objects changes the cluster's objects, which kube-proxy's rules are
	// planned from; nil if it does not touch any.
	objects func(*topology.Snapshot) error
	// state changes what one namespace holds; nil if it changes none by itself.
	state func(*editing) error
	// cut reports whether the far end of a wire is dead, so that the near end
	// loses its carrier; nil if the edit cuts no wire.
	cut func(far Place, device string) bool
	// gone reports whether the edit takes a place away as a whole; nil: never.
	gone func(Place) bool
	// check looks whether what the edit names exists; nil if it names nothing.
	check func(*topology.Snapshot) error
}

// EditError says what is wrong with edits: that they cannot be read, or that the
// cluster does not have what they name.
type EditError struct{ Err error }

// Error says it for each bad edit.
func (e *EditError) Error() string { return "what-if " + e.Err.Error() }

// Unwrap returns the cause.
func (e *EditError) Unwrap() error { return e.Err }

// String is the edit as it was written.
func (e Edit) String() string { return e.text }

// Note says what a prediction with the edit takes for granted; empty where
// nothing has to be said.
func (e Edit) Note() string { return e.note }

// ParseEdits reads edits, one in each text. They are written as an operator
// would type them:
//
//	node node02 down
//	link node01 flannel.1 down
//	segment rack1 down
//	mtu node01 eth0 1400
//	sysctl node01 net.ipv4.ip_forward=0
//	sysctl net.ipv4.conf.eth0.rp_filter=1
//	add route node01 10.244.2.0/24 via 192.168.1.2 dev eth0
//	add route blackhole 10.0.0.0/8
//	delete route node01 10.244.2.0/24
//	delete neighbor node01 10.244.2.0
//	delete fdb node01 02:17:6c:75:45:88
//	delete endpoint web-0
//	delete service default/nginx-svc
//	delete pod web-0
//	rule node01 -t filter -I FORWARD 1 -s 10.244.0.0/16 -j DROP
//
// Where the node is left out, or is "*", the edit changes every node. Rules are
// in iptables' syntax; without -t they are in table filter. Every text that
// cannot be read has its own part in the [*EditError], which says at which column
// what was expected.
func ParseEdits(text []string) ([]Edit, error) {
	var out []Edit
	var errs []error
	for i, t := range text {
		e, err := parseEdit(t)
		if err != nil {
			errs = append(errs, fmt.Errorf("edit %d %q: %w", i+1, t, err))
			continue
		}
		out = append(out, e)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &EditError{fmt.Errorf("%w\n%s", err, editForms)}
	}
	return out, nil
}

// editing is the copy of one namespace's state that edits change.
type editing struct {
	*datapath.NetState
	place   Place
	cluster *topology.Snapshot // before any edit
	// named: the edit names this very place, so that it is an error if it finds
	// nothing to change here.
	named bool
	// far finds the other end of a veth of this namespace.
	far func(device string) (Place, string, bool)
}

// missing is the error of an edit that finds nothing to change, nil for one
// that is meant for every node.
func (e *editing) missing(what string, have []string) error {
	if !e.named {
		return nil
	}
	if len(have) == 0 {
		return fmt.Errorf("%s has no %s, nor any other", e.place.Label, what)
	}
	return fmt.Errorf("%s has no %s; it has %s", e.place.Label, what, strings.Join(have, ", "))
}
