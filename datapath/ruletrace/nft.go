package ruletrace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// nftState is what is known of nftables' own tables, and of the packet whose
// rules are being told.
type nftState struct {
	handles map[chainID][]uint64 // of a chain's rules, in order
	hooks   map[chainID]string   // of base chains
	trace   uint32               // number of the packet's passage through a hook
	packet  rawHit               // what was told of it so far
}

type chainID struct{ table, chain string }

func (s *space) drainTraces(all []Hit) ([]Hit, error) {
	for {
		messages, err := s.traces.receive()
		if errors.Is(err, unix.ENOBUFS) {
			s.lost++
			continue
		}
		if err != nil || messages == nil {
			return all, err
		}
		for _, m := range messages {
			if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_TRACE {
				continue
			}
			attrs, err := attributes(m.Data)
			if err != nil {
				return all, fmt.Errorf("rule trace: %w", err)
			}
			if text(attrs[unix.NFTA_TRACE_TABLE]) == tableName {
				continue
			}
			h, ok, err := s.decodeTrace(attrs)
			if err != nil {
				return all, err
			}
			if ok {
				all = append(all, s.complete(h))
			}
		}
	}
}

var traceKinds = map[uint32]string{
	unix.NFT_TRACETYPE_RULE: "rule", unix.NFT_TRACETYPE_RETURN: "return", unix.NFT_TRACETYPE_POLICY: "policy",
}

// decodeTrace reads one step of a packet through nftables; ok is false for the end
// of a base chain, where its policy comes next. The packet and its devices are
// told with the first step in a hook only (nft_trace_notify,
// net/netfilter/nf_tables_trace.c).
func (s *space) decodeTrace(attrs map[uint16][]byte) (h rawHit, ok bool, err error) {
	n := &s.nft
	if id := number(attrs[unix.NFTA_TRACE_ID]); id != n.trace {
		n.trace, n.packet = id, rawHit{}
	}
	if header := attrs[unix.NFTA_TRACE_NETWORK_HEADER]; header != nil {
		n.packet.Data = append(bytes.Clone(header), attrs[unix.NFTA_TRACE_TRANSPORT_HEADER]...)
		n.packet.in, n.packet.out = number(attrs[unix.NFTA_TRACE_IIF]), number(attrs[unix.NFTA_TRACE_OIF])
	}
	at := chainID{text(attrs[unix.NFTA_TRACE_TABLE]), text(attrs[unix.NFTA_TRACE_CHAIN])}
	if err := s.learnChain(at); err != nil {
		return h, false, err
	}
	hook, base := n.hooks[at]
	if base {
		n.packet.Hook = hook
	}
	h = n.packet
	h.Table, h.Chain, h.Mark = at.table, at.chain, number(attrs[unix.NFTA_TRACE_MARK])
	h.Kind = traceKinds[number(attrs[unix.NFTA_TRACE_TYPE])]
	if handle := attrs[unix.NFTA_TRACE_RULE_HANDLE]; len(handle) == 8 {
		h.Number = slices.Index(n.handles[at], binary.BigEndian.Uint64(handle)) + 1
		return h, true, nil
	}
	h.Number = len(n.handles[at]) + 1 // behind the last rule, as legacy tables count
	if h.Kind == "policy" {
		return h, true, nil
	}
	h.Kind = "return" // the kernel calls the end of a chain a rule too
	return h, !base, nil
}

// learnChain reads a chain's rules and its hook when it is first heard of.
func (s *space) learnChain(at chainID) error {
	n := &s.nft
	if _, ok := n.handles[at]; ok {
		return nil
	}
	if n.handles == nil {
		n.handles, n.hooks = map[chainID][]uint64{}, map[chainID]string{}
	}
	n.handles[at] = []uint64{}
	err := s.list(unix.NFT_MSG_GETRULE, []*nl.RtAttr{name(unix.NFTA_RULE_TABLE, at.table), name(unix.NFTA_RULE_CHAIN, at.chain)}, func(a map[uint16][]byte) error {
		if b := a[unix.NFTA_RULE_HANDLE]; len(b) == 8 && text(a[unix.NFTA_RULE_CHAIN]) == at.chain && text(a[unix.NFTA_RULE_TABLE]) == at.table {
			n.handles[at] = append(n.handles[at], binary.BigEndian.Uint64(b))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list rules of %s %s: %w", at.table, at.chain, err)
	}
	err = s.list(unix.NFT_MSG_GETCHAIN, nil, func(a map[uint16][]byte) error {
		if text(a[unix.NFTA_CHAIN_TABLE]) != at.table || text(a[unix.NFTA_CHAIN_NAME]) != at.chain || a[unix.NFTA_CHAIN_HOOK] == nil {
			return nil
		}
		hook, err := nestedAttributes(a[unix.NFTA_CHAIN_HOOK])
		if i := number(hook[unix.NFTA_HOOK_HOOKNUM]); err == nil && int(i) < len(hooks) {
			n.hooks[at] = hooks[i]
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	return nil
}

// list asks nftables for all objects of a kind in IPv4 tables.
func (s *space) list(kind uint16, attrs []*nl.RtAttr, each func(map[uint16][]byte) error) error {
	req := message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP, unix.NFPROTO_IPV4, 0, attrs...)
	var answers [][]byte
	if err := s.ns.Do(func() error {
		var err error
		answers, err = req.Execute(unix.NETLINK_NETFILTER, 0)
		return err
	}); err != nil {
		return err
	}
	for _, b := range answers {
		a, err := attributes(b)
		if err != nil {
			return err
		}
		if err := each(a); err != nil {
			return err
		}
	}
	return nil
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
