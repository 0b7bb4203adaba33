package ruletrace

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// tableName is our table's, whose rules are not reported.
const tableName = "slipway-trace"

// tableOwner makes a table its socket's own: NFT_TABLE_F_OWNER, Linux 5.12
// (include/uapi/linux/netfilter/nf_tables.h).
const tableOwner = 2

// tablePriority is before table raw (-300) and behind defragmentation (-400;
// include/uapi/linux/netfilter_ipv4.h), so that ports are always there.
const tablePriority = -350

// chains are where packets come into a namespace's hooks, by the hook's number.
var chains = map[string]uint32{"prerouting": 0, "output": 3}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// message is one of a batch to nftables, or to a subsystem alone.
func message(kind uint16, flags int, family uint8, resource uint16, attrs ...*nl.RtAttr) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(int(kind), flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0, ResId: nl.Swap16(resource)})
	for _, a := range attrs {
		req.AddData(a)
	}
	return req
}

func nftables(kind uint16, attrs ...*nl.RtAttr) *nl.NetlinkRequest {
	return message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_CREATE, unix.NFPROTO_IPV4, 0, attrs...)
}

func attr(kind int, data []byte) *nl.RtAttr { return nl.NewRtAttr(kind, data) }

func nested(kind int, children ...*nl.RtAttr) *nl.RtAttr {
	a := nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil)
	for _, c := range children {
		a.AddChild(c)
	}
	return a
}

func name(kind int, s string) *nl.RtAttr { return attr(kind, nl.ZeroTerminated(s)) }

// newTable makes our table, which ends with the socket that makes it.
func newTable() []*nl.NetlinkRequest {
	table := nftables(unix.NFT_MSG_NEWTABLE, name(unix.NFTA_TABLE_NAME, tableName), attr(unix.NFTA_TABLE_FLAGS, be32(tableOwner)))
	table.Flags |= unix.NLM_F_EXCL
	out := []*nl.NetlinkRequest{table}
	priority := int32(tablePriority)
	for chain, hook := range chains {
		out = append(out, nftables(unix.NFT_MSG_NEWCHAIN,
			name(unix.NFTA_CHAIN_TABLE, tableName), name(unix.NFTA_CHAIN_NAME, chain), name(unix.NFTA_CHAIN_TYPE, "filter"),
			nested(unix.NFTA_CHAIN_HOOK, attr(unix.NFTA_HOOK_HOOKNUM, be32(hook)), attr(unix.NFTA_HOOK_PRIORITY, be32(uint32(priority))))))
	}
	return out
}

// newRules makes the flow's packets traced.
func newRules(f datapath.Flow, p datapath.Ports) []*nl.NetlinkRequest {
	var out []*nl.NetlinkRequest
	for chain := range chains {
		for _, matches := range rules(f, p) {
			rule := nftables(unix.NFT_MSG_NEWRULE, name(unix.NFTA_RULE_TABLE, tableName), name(unix.NFTA_RULE_CHAIN, chain), expressions(matches))
			rule.Flags |= unix.NLM_F_APPEND
			out = append(out, rule)
		}
	}
	return out
}

// register is the one that all our expressions use.
const register = unix.NFT_REG_1

func expressions(matches []match) *nl.RtAttr {
	list := nested(unix.NFTA_RULE_EXPRESSIONS)
	expr := func(kind string, data ...*nl.RtAttr) {
		list.AddChild(nested(unix.NFTA_LIST_ELEM, name(unix.NFTA_EXPR_NAME, kind), nested(unix.NFTA_EXPR_DATA, data...)))
	}
	for _, m := range matches {
		expr("payload",
			attr(unix.NFTA_PAYLOAD_DREG, be32(register)), attr(unix.NFTA_PAYLOAD_BASE, be32(m.base)),
			attr(unix.NFTA_PAYLOAD_OFFSET, be32(m.offset)), attr(unix.NFTA_PAYLOAD_LEN, be32(uint32(len(m.want)))))
		expr("cmp",
			attr(unix.NFTA_CMP_SREG, be32(register)), attr(unix.NFTA_CMP_OP, be32(unix.NFT_CMP_EQ)),
			nested(unix.NFTA_CMP_DATA, attr(unix.NFTA_DATA_VALUE, m.want)))
	}
	expr("immediate",
		attr(unix.NFTA_IMMEDIATE_DREG, be32(register)),
		nested(unix.NFTA_IMMEDIATE_DATA, attr(unix.NFTA_DATA_VALUE, []byte{1})))
	expr("meta", attr(unix.NFTA_META_KEY, be32(unix.NFT_META_NFTRACE)), attr(unix.NFTA_META_SREG, be32(register)))
	return list
}

// Numbers of the NFLOG subsystem (include/uapi/linux/netfilter/nfnetlink_log.h),
// which the system's Go package does not have.
const (
	logPacket       = 0 // NFULNL_MSG_PACKET
	logConfig       = 1 // NFULNL_MSG_CONFIG
	logCommand      = 1 // NFULA_CFG_CMD
	logMode         = 2 // NFULA_CFG_MODE
	logThreshold    = 5 // NFULA_CFG_QTHRESH
	logCommandBind  = 1 // NFULNL_CFG_CMD_BIND
	logCopyPacket   = 2 // NFULNL_COPY_PACKET
	logPacketHeader = 1 // NFULA_PACKET_HDR
	logMark         = 2 // NFULA_MARK
	logIn           = 4 // NFULA_IFINDEX_INDEV
	logOut          = 5 // NFULA_IFINDEX_OUTDEV
	logPayload      = 9 // NFULA_PAYLOAD
	logPrefix       = 10
)

// logGroup is the one that rule traces go to (nfulnl_log_packet takes
// default_loginfo for them, net/netfilter/nfnetlink_log.c).
const logGroup = 0

// snapLen is how much of a packet a hit holds, as Hit.Data says.
const snapLen = 192

// bindLog asks for what is logged to our group, each packet at once.
func bindLog() []*nl.NetlinkRequest {
	config := func(a *nl.RtAttr) *nl.NetlinkRequest {
		return message(unix.NFNL_SUBSYS_ULOG<<8|logConfig, unix.NLM_F_ACK, unix.AF_UNSPEC, logGroup, a)
	}
	return []*nl.NetlinkRequest{
		config(attr(logCommand, []byte{logCommandBind})),
		config(attr(logMode, append(be32(snapLen), logCopyPacket, 0))),
		config(attr(logThreshold, be32(1))),
	}
}
