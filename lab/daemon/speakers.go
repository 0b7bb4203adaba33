package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"slipway/datapath"
	"slipway/datapath/bgp"
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
		did, err := s.speakers.set(ctx, without(want, gone))
		if diff = did; err != nil {
			return diff, err
		}
	}
	did, err := s.speakers.set(ctx, want)
	return append(diff, did...), err
}

// remade are the nodes whose speaker runs in a namespace that was made again.
func (s *server) remade(want map[string]speakerConfig) map[string]bool {
	out := map[string]bool{}
	for node, u := range s.speakers.have {
		if w, ok := want[node]; ok && (w.netns != u.cfg.netns || w.inode != u.cfg.inode) {
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

func (s *server) startSpeaker(node string, c speakerConfig) (*unit[speakerConfig], error) {
	ns, err := netns.Open(c.netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // the child is in the namespace by itself
	p, err := bgp.Start(s.ctx, ns, s.cfg.Speaker, nil, s.cfg.Log.With("node", node))
	if err != nil {
		return nil, err
	}
	if err := p.Configure(c.speaker); err != nil {
		return nil, fmt.Errorf("configure: %w", err)
	}
	s.running.putSpeaker(node, p)
	return &unit[speakerConfig]{
		cfg:  c,
		done: p.Done(),
		update: func(to speakerConfig) (bool, error) {
			if to.netns != c.netns || to.inode != c.inode {
				return false, nil
			}
			return true, p.Configure(to.speaker)
		},
		stop: func(ctx context.Context) error {
			s.running.dropSpeaker(node)
			return p.Stop(ctx)
		},
	}, nil
}

// waitSpeakers returns when every speaker has a session with each of the lab's
// own speakers that it peers with, and a route to each block that anybody announces.
func (s *server) waitSpeakers(ctx context.Context) error {
	s.mu.Lock()
	blocks := announced(s.want)
	procs := s.running.speakersNow()
	want := s.want
	s.mu.Unlock()
	for _, n := range want.Nodes {
		p := procs[n.Name]
		if n.Speaker == nil || p == nil {
			continue
		}
		own, routes := ownPeers(n.Speaker), blocks-len(n.Speaker.Announce)
		err := p.Wait(ctx, func(st bgp.Status) bool {
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
