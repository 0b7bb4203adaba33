package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"slipway/datapath"
	"slipway/datapath/bgp"
	"slipway/datapath/running"
	"slipway/internal/netns"
)

// speakerConfig is one node's BGP speaker.
type speakerConfig struct {
	netns   string
	inode   uint64
	speaker datapath.Speaker
}

func (s *server) setSpeakers(ctx context.Context, d Desired) (datapath.Diff, error) {
	want := map[string]speakerConfig{}
	for _, n := range d.Nodes {
		if n.Speaker != nil {
			want[n.Name] = speakerConfig{netns: n.NetNS, inode: n.Inode, speaker: *n.Speaker}
		}
	}
	var diff datapath.Diff
	if gone := s.remade(want); len(gone) > 0 {
		// The others' sessions with a namespace that is gone would stand until
		// the next keepalive finds nobody: end them now.
		did, err := s.speakers.Set(ctx, without(want, gone))
		if diff = did; err != nil {
			return diff, err
		}
	}
	did, err := s.speakers.Set(ctx, want)
	return append(diff, did...), err
}

// remade are the nodes whose speaker runs in a namespace that was made again.
func (s *server) remade(want map[string]speakerConfig) map[string]bool {
	out := map[string]bool{}
	for _, node := range s.speakers.Keys() {
		u := s.speakers.Get(node)
		if w, ok := want[node]; ok && (w.netns != u.Config.netns || w.inode != u.Config.inode) {
			out[node] = true
		}
	}
	return out
}

// without leaves nodes out, and the others' sessions with them.
func without(want map[string]speakerConfig, gone map[string]bool) map[string]speakerConfig {
	out := map[string]speakerConfig{}
	for node, c := range want {
		if gone[node] {
			continue
		}
		c.speaker.Peers = slices.DeleteFunc(slices.Clone(c.speaker.Peers), func(p datapath.Peer) bool { return gone[p.Name] })
		out[node] = c
	}
	return out
}

// speakersAtOnce is how many speakers are started or ended together. Starting
// one is work for a CPU and some waiting for its answer.
const speakersAtOnce = 8

// waitingFirst puts the speakers first that leave it to their peers to connect,
// so that whoever dials finds somebody there.
func waitingFirst(a, b speakerConfig) int { return cmp.Compare(dials(a), dials(b)) }

func dials(c speakerConfig) int {
	n := 0
	for _, p := range c.speaker.Peers {
		if !p.Passive {
			n++
		}
	}
	return n
}

func (s *server) startSpeaker(node string, c speakerConfig) (*running.Unit[speakerConfig], error) {
	k, err := s.keep(node, c)
	if err != nil {
		return nil, err
	}
	s.running.putSpeaker(node, k)
	return &running.Unit[speakerConfig]{
		Config: c,
		Update: func(to speakerConfig) (bool, error) {
			if to.netns != c.netns || to.inode != c.inode {
				return false, nil
			}
			return k.Take(to.speaker)
		},
		Stop: func(ctx context.Context) error {
			s.running.dropSpeaker(node)
			return k.Stop(ctx)
		},
	}, nil
}

// keep starts a node's speaker.
func (s *server) keep(node string, c speakerConfig) (*bgp.Keeper, error) {
	log := s.cfg.Log.With("node", node)
	return bgp.Keep(s.ctx, c.speaker, func() (*bgp.Process, error) {
		ns, err := netns.Open(c.netns)
		if err != nil {
			return nil, err
		}
		defer ns.Close() //nolint:errcheck // the child is in the namespace by itself
		return bgp.Start(s.ctx, ns, s.cfg.Speaker, nil, log)
	}, func(err error) { log.Error("BGP speaker ended by itself", "err", err) })
}

// stateOf sums up a speaker, whether one runs or not.
func stateOf(k *bgp.Keeper) SpeakerState {
	pid, restarts, st, lastEnd := k.State()
	s := SpeakerState{PID: pid, Restarts: restarts}
	if lastEnd != nil {
		s.LastEnd = lastEnd.Error()
	}
	s.Peers, s.Established, s.Routes, s.Synced, s.Detail = len(st.Peers), st.Sync.Established, st.Sync.Routes, st.Sync.Settled, st
	for _, peer := range st.Peers {
		if !peer.External && peer.State != bgp.Established {
			s.Down = append(s.Down, peer.Name)
		}
	}
	return s
}

// waitSpeakers returns when every speaker has a session with each of the lab's
// own speakers that it peers with, and a route to each block that anybody announces.
func (s *server) waitSpeakers(ctx context.Context) error {
	s.mu.Lock()
	blocks := announced(s.want)
	keepers := s.running.speakersNow()
	want := s.want
	s.mu.Unlock()
	for _, n := range want.Nodes {
		k := keepers[n.Name]
		if n.Speaker == nil || k == nil {
			continue
		}
		own, routes := ownPeers(n.Speaker), blocks-len(n.Speaker.Announce)
		err := k.Wait(ctx, func(st bgp.Status) bool {
			return established(st, own) == len(own) && st.Sync.Routes >= routes
		})
		if err != nil {
			return fmt.Errorf("wait for BGP on %s: %w", n.Name, err)
		}
	}
	return nil
}

// ownPeers are the addresses of a speaker's peers that are in the lab.
func ownPeers(s *datapath.Speaker) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, p := range s.Peers {
		if !p.External {
			out[p.Address] = true
		}
	}
	return out
}

// established counts the sessions with those peers that are up.
func established(st bgp.Status, with map[netip.Addr]bool) int {
	n := 0
	for _, p := range st.Peers {
		if with[p.Address] && p.State == bgp.Established {
			n++
		}
	}
	return n
}

// announced counts the prefixes that all speakers announce together.
func announced(d Desired) int {
	n := 0
	for _, node := range d.Nodes {
		if node.Speaker != nil {
			n += len(node.Speaker.Announce)
		}
	}
	return n
}
