package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// ConntrackQuery says which tracked connections are wanted: those that send
// from Src to Dst, or answer so. What is zero may be anything; an address may
// be given without its port, a port only with Proto.
type ConntrackQuery struct {
	Proto    string // tcp | udp | icmp | sctp; empty: any
	Src, Dst netip.AddrPort
	// ICMPID is the identifier of an echo, with Proto icmp.
	ICMPID uint16
}

// ctlNew and the following are ctnetlink's messages and attributes (linux
// include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const (
	ctSubsystem = 1 // NFNL_SUBSYS_CTNETLINK
	ctGet       = 1 // IPCTNL_MSG_CT_GET

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoInfo  = 4
	ctaTimeout    = 7
	ctaMark       = 8
	ctaFilter     = 25 // Linux 5.8; an older kernel ignores it

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaIPv4Src    = 1
	ctaIPv4Dst    = 2
	ctaProtoNum   = 1
	ctaSrcPort    = 2
	ctaDstPort    = 3
	ctaICMPID     = 4
	ctaICMPType   = 5
	ctaICMPCode   = 6

	ctaProtoInfoTCP = 1
	ctaTCPState     = 1

	ctaFilterOrig  = 1
	ctaFilterReply = 2

	statusAssured = 1 << 2 // IPS_ASSURED_BIT
)

// Which parts of a tuple a filter compares (linux net/netfilter/nf_internals.h,
// CTA_FILTER_F_…).
const (
	filterSrc     = 1 << 0
	filterDst     = 1 << 1
	filterProto   = 1 << 3
	filterSrcPort = 1 << 4
	filterDstPort = 1 << 5
	filterICMPID  = 1 << 8
)

// tracking are parts of rules that make the kernel track a namespace's
// connections: hooks are only there while such a rule is (nf_ct_netns_get in
// linux), in iptables' words and in nftables'.
var (
	tracking = []string{
		"-j MASQUERADE", "-j DNAT", "-m conntrack", "-m state", "-j SNAT", "-j REDIRECT", "-j NETMAP", "-j CONNMARK",
		"-j CT ", "-j NOTRACK", "-j SYNPROXY", "-m connmark", "-m connlimit", "-m connbytes", "-m connlabel", "-m helper", "-m cluster",
	}
	trackingNFT = []string{`"ct":`, `"masquerade":`, `"snat":`, `"dnat":`, `"redirect":`, `"ct helper":`}
)

// tracks reports whether connections are tracked, as far as the rules tell;
// without having read them, they may be.
func tracks(st *datapath.NetState, o CollectOptions, count int) bool {
	if o.SkipRules || count > 0 {
		return true
	}
	for _, word := range trackingNFT {
		if strings.Contains(st.NFTables, word) {
			return true
		}
	}
	for _, word := range tracking {
		for _, table := range st.RuleSave {
			if strings.Contains(table, word) {
				return true
			}
		}
	}
	return false
}

// conntrack reads how full the connection table is and the entries asked for.
func (c *collection) conntrack(o CollectOptions) error {
	v, ok, err := readSysctl("net/netfilter/nf_conntrack_count")
	if err != nil || !ok {
		return err
	}
	count, err := strconv.Atoi(v)
	if err != nil {
		return fmt.Errorf("sysctl net/netfilter/nf_conntrack_count: %w", err)
	}
	if !tracks(c.st, o, count) {
		return nil
	}
	limit, _ := strconv.Atoi(c.st.Sysctls["net/netfilter/nf_conntrack_max"]) // unlimited if not there
	c.st.Conntrack = &datapath.ConntrackState{Count: count, Max: limit}
	if count == 0 {
		return nil
	}
	for _, q := range o.Conntrack {
		entries, err := q.find()
		if err != nil {
			return fmt.Errorf("list connections: %w", err)
		}
		for _, e := range entries {
			c.st.Conntrack.Entries = withConnection(c.st.Conntrack.Entries, e)
		}
	}
	return nil
}

// find looks a whole tuple up, as the kernel does for a packet; for less it has
// the kernel look through all entries, once in each direction.
func (q ConntrackQuery) find() ([]datapath.ConntrackEntry, error) {
	if q.whole() {
		return q.lookup()
	}
	var out []datapath.ConntrackEntry
	for _, reply := range []bool{false, true} {
		messages, err := dump(unix.NETLINK_NETFILTER, ctSubsystem<<8|ctGet, nfHeader(), q.filter(reply)...)
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if e, ok := conntrackEntry(m); ok && q.matches(e, reply) {
				out = withConnection(out, e)
			}
		}
	}
	return out, nil
}

// withConnection adds a connection that is not there yet. From one dump to the next
// its time, state and mark may have changed: its tuples are what it is.
func withConnection(all []datapath.ConntrackEntry, e datapath.ConntrackEntry) []datapath.ConntrackEntry {
	for _, x := range all {
		if x.Proto == e.Proto && x.OrigSrc == e.OrigSrc && x.OrigDst == e.OrigDst && x.ReplySrc == e.ReplySrc && x.ReplyDst == e.ReplyDst {
			return all
		}
	}
	return append(all, e)
}

func (q ConntrackQuery) whole() bool {
	if !q.Src.Addr().Is4() || !q.Dst.Addr().Is4() {
		return false
	}
	switch q.Proto {
	case "tcp", "udp", "sctp":
		return q.Src.Port() != 0 && q.Dst.Port() != 0
	case "icmp":
		return q.ICMPID != 0
	}
	return false
}

// lookup finds the connection that a packet belongs to.
func (q ConntrackQuery) lookup() ([]datapath.ConntrackEntry, error) {
	var out []datapath.ConntrackEntry
	types := []byte{8} // echo request
	if q.Proto == "icmp" {
		types = []byte{8, 0} // and reply
	}
	for _, icmpType := range types {
		// The answer claims to be one of several (ctnetlink_fill_info): what
		// ends it is the acknowledgement.
		req := vnl.NewNetlinkRequest(ctSubsystem<<8|ctGet, unix.NLM_F_ACK)
		req.AddData(nfHeader())
		req.AddData(q.tuple(ctaTupleOrig, icmpType))
		messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if e, ok := conntrackEntry(m); ok {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

var protoNumbers = map[string]uint8{
	"icmp": unix.IPPROTO_ICMP, "tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP,
}

// tuple is the query as a tuple, with as much as it says.
func (q ConntrackQuery) tuple(kind int, icmpType byte) *vnl.RtAttr {
	t := vnl.NewRtAttr(unix.NLA_F_NESTED|kind, nil)
	if q.Src.Addr().Is4() || q.Dst.Addr().Is4() {
		ip := t.AddRtAttr(unix.NLA_F_NESTED|ctaTupleIP, nil)
		for attr, a := range map[int]netip.Addr{ctaIPv4Src: q.Src.Addr(), ctaIPv4Dst: q.Dst.Addr()} {
			if a.Is4() {
				ip.AddRtAttr(attr, a.AsSlice())
			}
		}
	}
	if q.Proto == "" {
		return t
	}
	p := t.AddRtAttr(unix.NLA_F_NESTED|ctaTupleProto, nil)
	p.AddRtAttr(ctaProtoNum, []byte{protoNumbers[q.Proto]})
	if q.Proto == "icmp" {
		if q.ICMPID != 0 {
			p.AddRtAttr(ctaICMPID, binary.BigEndian.AppendUint16(nil, q.ICMPID))
			p.AddRtAttr(ctaICMPType, []byte{icmpType})
			p.AddRtAttr(ctaICMPCode, []byte{0})
		}
		return t
	}
	if q.Src.Port() != 0 {
		p.AddRtAttr(ctaSrcPort, binary.BigEndian.AppendUint16(nil, q.Src.Port()))
	}
	if q.Dst.Port() != 0 {
		p.AddRtAttr(ctaDstPort, binary.BigEndian.AppendUint16(nil, q.Dst.Port()))
	}
	return t
}

// filter has the kernel pick entries in one direction; nil picks all.
func (q ConntrackQuery) filter(reply bool) []vnl.NetlinkRequestData {
	flags := uint32(0)
	for _, x := range []struct {
		set bool
		bit uint32
	}{
		{q.Src.Addr().Is4(), filterSrc}, {q.Dst.Addr().Is4(), filterDst}, {q.Proto != "", filterProto},
		{q.Proto != "" && q.Src.Port() != 0, filterSrcPort}, {q.Proto != "" && q.Dst.Port() != 0, filterDstPort},
		{q.Proto == "icmp" && q.ICMPID != 0, filterICMPID},
	} {
		if x.set {
			flags |= x.bit
		}
	}
	if flags == 0 {
		return nil
	}
	tuple, which := ctaTupleOrig, ctaFilterOrig
	if reply {
		tuple, which = ctaTupleReply, ctaFilterReply
	}
	f := vnl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	f.AddRtAttr(which, vnl.Uint32Attr(flags))
	return []vnl.NetlinkRequestData{q.tuple(tuple, 8), f}
}

// matches is the filter once more, for kernels that have none.
func (q ConntrackQuery) matches(e datapath.ConntrackEntry, reply bool) bool {
	src, dst := e.OrigSrc, e.OrigDst
	if reply {
		src, dst = e.ReplySrc, e.ReplyDst
	}
	fits := func(want, is netip.AddrPort) bool {
		return (!want.Addr().IsValid() || want.Addr() == is.Addr()) && (want.Port() == 0 || want.Port() == is.Port())
	}
	return fits(q.Src, src) && fits(q.Dst, dst) && (q.Proto == "" || q.Proto == e.Proto) &&
		(q.ICMPID == 0 || q.ICMPID == src.Port())
}

// conntrackEntry reads a message; false if it is not about IPv4.
func conntrackEntry(m []byte) (datapath.ConntrackEntry, bool) {
	var e datapath.ConntrackEntry
	if len(m) < nfHeaderLen || m[0] != unix.AF_INET {
		return e, false
	}
	for kind, v := range attributes(m[nfHeaderLen:]) {
		switch kind {
		case ctaTupleOrig:
			e.Proto, e.OrigSrc, e.OrigDst = tupleOf(v)
		case ctaTupleReply:
			_, e.ReplySrc, e.ReplyDst = tupleOf(v)
		case ctaStatus:
			e.Assured = be32(v)&statusAssured != 0
		case ctaTimeout:
			e.Timeout = int(be32(v))
		case ctaMark:
			e.Mark = be32(v)
		case ctaProtoInfo:
			e.State = tcpState(v)
		}
	}
	return e, e.Proto != ""
}

// tupleOf reads a tuple. Of an ICMP one, the ports are the identifier, as in
// the kernel's own tuples.
func tupleOf(b []byte) (proto string, src, dst netip.AddrPort) {
	var from, to netip.Addr
	var sport, dport uint16
	for kind, v := range attributes(b) {
		for k, x := range attributes(v) {
			switch {
			case kind == ctaTupleIP && k == ctaIPv4Src:
				from = ipv4(x)
			case kind == ctaTupleIP && k == ctaIPv4Dst:
				to = ipv4(x)
			case kind != ctaTupleProto:
			case k == ctaProtoNum:
				proto = ipProtocol(u8(x))
			case k == ctaSrcPort:
				sport = be16(x)
			case k == ctaDstPort:
				dport = be16(x)
			case k == ctaICMPID:
				sport, dport = be16(x), be16(x)
			}
		}
	}
	return proto, netip.AddrPortFrom(from, sport), netip.AddrPortFrom(to, dport)
}

// tcpStates are named by enum tcp_conntrack (linux
// include/uapi/linux/netfilter/nf_conntrack_tcp.h) as conntrack(8) does.
var tcpStates = []string{
	"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
}

func tcpState(info []byte) string {
	for kind, v := range attributes(info) {
		if kind != ctaProtoInfoTCP {
			continue
		}
		for k, x := range attributes(v) {
			if k == ctaTCPState && int(u8(x)) < len(tcpStates) {
				return tcpStates[u8(x)]
			}
		}
	}
	return ""
}
