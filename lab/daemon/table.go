package daemon

import (
	"maps"
	"sync"

	"slipway/datapath/bgp"
	"slipway/internal/ordered"
)

// procTable is what status reads of the running units, without their locks.
type procTable struct {
	mu       sync.Mutex
	tunnels  map[string]runningTunnel
	speakers map[string]*bgp.Keeper
}

type runningTunnel struct {
	device string
	stats  func() any
}

func (t *procTable) putTunnel(node, device string, stats func() any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tunnels == nil {
		t.tunnels = map[string]runningTunnel{}
	}
	t.tunnels[node] = runningTunnel{device: device, stats: stats}
}

func (t *procTable) dropTunnel(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.tunnels, node)
}

func (t *procTable) putSpeaker(node string, k *bgp.Keeper) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.speakers == nil {
		t.speakers = map[string]*bgp.Keeper{}
	}
	t.speakers[node] = k
}

func (t *procTable) dropSpeaker(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.speakers, node)
}

func (t *procTable) speakersNow() map[string]*bgp.Keeper {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.speakers)
}

func (t *procTable) tunnelStatus() []TunnelStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []TunnelStatus
	for _, node := range ordered.Keys(t.tunnels) {
		r := t.tunnels[node]
		out = append(out, TunnelStatus{Node: node, Device: r.device, Stats: r.stats()})
	}
	return out
}

func (t *procTable) speakerStates() map[string]SpeakerState {
	out := map[string]SpeakerState{}
	for node, k := range t.speakersNow() {
		out[node] = stateOf(k)
	}
	return out
}
