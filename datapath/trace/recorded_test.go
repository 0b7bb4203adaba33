package trace_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"slipway/datapath"
	"slipway/datapath/trace"
)

// A recording that went through a file answers as the network did, and owns up
// to what it does not hold.
func TestRecordedAnswersAsTheNetworkDid(t *testing.T) {
	gone := fmt.Errorf("tun0 has no other end: %w", trace.ErrNoPeer)
	raw, err := json.Marshal(&trace.Recorded{
		Places: map[string]trace.Place{"ns1": {Label: "node01", Node: "node01", Namespace: "ns1"}},
		States: map[string]*datapath.NetState{"ns1": {Namespace: "ns1", Inode: 7}},
		Peers: map[string]trace.PeerEnd{
			trace.PeerKey("ns1", "eth0"): trace.EndOf("fab", "node01-eth0", nil),
			trace.PeerKey("ns1", "tun0"): trace.EndOf("", "", gone),
			trace.PeerKey("ns1", "bad"):  trace.EndOf("", "", errors.New("netlink: refused")),
		},
		Unread: map[string]string{"ns3": "no such network namespace"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var r trace.Recorded
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	var n trace.Network = &r
	if st, err := n.State("ns1"); err != nil || st.Inode != 7 {
		t.Errorf("state of ns1: %+v, %v", st, err)
	}
	if _, err := n.State("ns2"); !errors.Is(err, trace.ErrNotRecorded) {
		t.Errorf("state of a namespace that was not read: %v", err)
	}
	if _, err := n.State("ns3"); err == nil || !strings.Contains(err.Error(), "no such network namespace") {
		t.Errorf("state of a namespace that could not be read: %v", err)
	}
	if ns, dev, err := n.Peer("ns1", "eth0"); ns != "fab" || dev != "node01-eth0" || err != nil {
		t.Errorf("peer of eth0: %s %s %v", ns, dev, err)
	}
	if _, _, err := n.Peer("ns1", "tun0"); !errors.Is(err, trace.ErrNoPeer) || err.Error() != gone.Error() {
		t.Errorf("peer of tun0: %v", err)
	}
	if _, _, err := n.Peer("ns1", "bad"); err == nil || errors.Is(err, trace.ErrNoPeer) || errors.Is(err, trace.ErrNotRecorded) {
		t.Errorf("peer that could not be found out: %v", err)
	}
	if _, _, err := n.Peer("ns1", "eth9"); !errors.Is(err, trace.ErrNotRecorded) {
		t.Errorf("peer that nobody followed: %v", err)
	}
	if p := n.Place("ns1"); p.Label != "node01" {
		t.Errorf("place of ns1: %+v", p)
	}
	if p := n.Place("other"); p.Label != "other" || p.Namespace != "other" {
		t.Errorf("place that nobody knows: %+v", p)
	}
}
