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
	bases   map[chainID]baseHook // of base chains
	// packets is what was told so far of those on their way, by the number of
	// their passage: an answer to a rejected packet passes hooks inside its rule.
	packets map[uint32]rawHit
}

// mostPackets bounds what is kept of packets whose passages have ended.
const mostPackets = 1024

type chainID struct {
	family       uint8
	table, chain string
}

// baseHook is where a base chain is called.
type baseHook struct {
	hook     string
	priority int
}

// families are those whose chains IPv4 packets meet (linux
// include/uapi/linux/netfilter.h, NFPROTO_…).
var families = map[uint8]string{1: "inet", unix.NFPROTO_IPV4: "ip"}

// iptablesTables are those that iptables-nft makes, in family ip (iptables
// xtables/nft.c, xtables_ipv4): they are called as iptables calls them.
var iptablesTables = []string{"raw", "mangle", "nat", "filter", "security"}

// name is what the chain's table is called.
func (c chainID) name() string {
	family := families[c.family]
	if family == "ip" && slices.Contains(iptablesTables, c.table) {
		return c.table
	}
	return family + " " + c.table
}

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
			h, ok, err := s.decodeTrace(m.Data[0], attrs) // attributes has seen that the header is there
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
func (s *space) decodeTrace(family uint8, attrs map[uint16][]byte) (h rawHit, ok bool, err error) {
	n, id := &s.nft, number(attrs[unix.NFTA_TRACE_ID])
	if n.packets == nil || len(n.packets) > mostPackets {
		n.packets = map[uint32]rawHit{}
	}
	packet := n.packets[id]
	if header := attrs[unix.NFTA_TRACE_NETWORK_HEADER]; header != nil {
		packet = rawHit{in: number(attrs[unix.NFTA_TRACE_IIF]), out: number(attrs[unix.NFTA_TRACE_OIF])}
		packet.Data = append(bytes.Clone(header), attrs[unix.NFTA_TRACE_TRANSPORT_HEADER]...)
	}
	at := chainID{family, text(attrs[unix.NFTA_TRACE_TABLE]), text(attrs[unix.NFTA_TRACE_CHAIN])}
	if err := s.learnChain(at); err != nil {
		return h, false, err
	}
	in, base := n.bases[at]
	if base {
		packet.Hook, packet.Priority = in.hook, in.priority
	}
	n.packets[id] = packet
	h = packet
	h.NFT, h.Verdict = true, verdict(attrs[unix.NFTA_TRACE_VERDICT])
	h.Table, h.Chain, h.Mark = at.name(), at.chain, number(attrs[unix.NFTA_TRACE_MARK])
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

// verdicts are the kernel's codes (linux include/uapi/linux/netfilter.h, NF_…,
// and netfilter/nf_tables.h, enum nft_verdicts).
var verdicts = map[int32]string{0: "drop", 1: "accept", -1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return"}

// verdict spells what a rule led to; empty if it is not told.
func verdict(b []byte) string {
	attrs, err := nestedAttributes(b)
	if err != nil || attrs[unix.NFTA_VERDICT_CODE] == nil {
		return ""
	}
	out := verdicts[int32(number(attrs[unix.NFTA_VERDICT_CODE]))]
	if chain := text(attrs[unix.NFTA_VERDICT_CHAIN]); chain != "" {
		out += " " + chain
	}
	return out
}

// learnChain reads a chain's rules and its hook when it is first heard of.
func (s *space) learnChain(at chainID) error {
	n := &s.nft
	if _, ok := n.handles[at]; ok {
		return nil
	}
	if n.handles == nil {
		n.handles, n.bases = map[chainID][]uint64{}, map[chainID]baseHook{}
	}
	n.handles[at] = []uint64{}
	err := s.list(unix.NFT_MSG_GETRULE, at.family, []*nl.RtAttr{name(unix.NFTA_RULE_TABLE, at.table), name(unix.NFTA_RULE_CHAIN, at.chain)}, func(a map[uint16][]byte) error {
		if b := a[unix.NFTA_RULE_HANDLE]; len(b) == 8 && text(a[unix.NFTA_RULE_CHAIN]) == at.chain && text(a[unix.NFTA_RULE_TABLE]) == at.table {
			n.handles[at] = append(n.handles[at], binary.BigEndian.Uint64(b))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list rules of %s %s: %w", at.table, at.chain, err)
	}
	err = s.list(unix.NFT_MSG_GETCHAIN, at.family, nil, func(a map[uint16][]byte) error {
		if text(a[unix.NFTA_CHAIN_TABLE]) != at.table || text(a[unix.NFTA_CHAIN_NAME]) != at.chain || a[unix.NFTA_CHAIN_HOOK] == nil {
			return nil
		}
		hook, err := nestedAttributes(a[unix.NFTA_CHAIN_HOOK])
		if i := number(hook[unix.NFTA_HOOK_HOOKNUM]); err == nil && int(i) < len(hooks) {
			n.bases[at] = baseHook{hooks[i], int(int32(number(hook[unix.NFTA_HOOK_PRIORITY])))}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	return nil
}

// list asks nftables for all objects of a kind in a family's tables.
func (s *space) list(kind uint16, family uint8, attrs []*nl.RtAttr, each func(map[uint16][]byte) error) error {
	req := message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP, family, 0, attrs...)
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
