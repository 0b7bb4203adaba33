package linux

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/internal/run"
)

// ObserverTable is the nftables table that an observer of traces may have in a
// namespace. It decides nothing and is not part of a collected state.
const ObserverTable = "slipway-trace"

// nftables' netlink messages (linux include/uapi/linux/netfilter/nf_tables.h).
const (
	nftSubsystem    = 10 // NFNL_SUBSYS_NFTABLES
	nftGetTable     = 1  // NFT_MSG_GETTABLE
	nftTableName    = 1  // NFTA_TABLE_NAME
	nfHeaderLen     = 4  // struct nfgenmsg
	nfFamilyInet    = 1  // NFPROTO_…
	nfFamilyARP     = 3
	nfFamilyNetdev  = 5
	nfFamilyBridge  = 7
	nfFamilyDecided = unix.AF_INET
)

// nftTable is a table of nftables.
type nftTable struct {
	family uint8
	name   string
	handle uint64
	use    uint32 // chains, sets and objects in it
}

// families are the ones that IPv4 packets and their frames meet, as nft calls them.
var families = map[uint8]string{
	nfFamilyInet: "inet", nfFamilyDecided: "ip", nfFamilyARP: "arp", nfFamilyNetdev: "netdev", nfFamilyBridge: "bridge",
}

// nftTables lists the tables of the calling thread's namespace; none on a
// kernel without nftables.
func nftTables() ([]nftTable, error) {
	messages, err := dump(unix.NETLINK_NETFILTER, nftSubsystem<<8|nftGetTable, raw(make([]byte, nfHeaderLen)))
	if noNFT(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	var out []nftTable
	for _, m := range messages {
		attrs, err := body(m, nfHeaderLen)
		if err != nil {
			return nil, fmt.Errorf("list nftables tables: %w", err)
		}
		t := nftTable{family: m[0]}
		for kind, v := range attributes(attrs) {
			switch {
			case kind == nftTableName:
				t.name = text(v)
			case kind == nftTableUse && len(v) == 4:
				t.use = binary.BigEndian.Uint32(v)
			case kind == nftTableHandle && len(v) == 8:
				t.handle = binary.BigEndian.Uint64(v)
			}
		}
		out = append(out, t)
	}
	return out, nil
}

// noNFT reports whether an error means that the kernel has no nftables.
func noNFT(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT)
}

// iptablesTables are the tables that iptables-nft makes
// (iptables xtables/nft.c, xtables_ipv4).
var iptablesTables = []string{"raw", "mangle", "nat", "filter", "security"}

func (t nftTable) ofIPTables() bool {
	return t.family == unix.AF_INET && slices.Contains(iptablesTables, t.name)
}

func hasIPTablesNFT(tables []nftTable) bool {
	return slices.ContainsFunc(tables, nftTable.ofIPTables)
}

// foreignTables are those that decide and that no iptables-save shows.
func foreignTables(tables []nftTable, iptablesNFT bool) []nftTable {
	return slices.DeleteFunc(slices.Clone(tables), func(t nftTable) bool {
		return families[t.family] == "" || t.name == ObserverTable || (iptablesNFT && t.ofIPTables())
	})
}

// listRuleset is `nft -j list ruleset` with only the tables that are wanted.
func (h *Host) listRuleset(ctx context.Context, wanted []nftTable) (string, error) {
	out, err := run.Cmd{NS: h.ns, Name: "nft", Args: []string{"-j", "list", "ruleset"}}.Output(ctx)
	if err != nil {
		return "", fmt.Errorf("read nftables: %w", err)
	}
	s, err := onlyTables(out, wanted)
	if err != nil {
		return "", fmt.Errorf("read nftables: %w", err)
	}
	return s, nil
}

// onlyTables leaves out of a ruleset in JSON (libnftables-json(5)) what belongs
// to other tables.
func onlyTables(ruleset []byte, wanted []nftTable) (string, error) {
	var doc struct {
		Objects []map[string]json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal(ruleset, &doc); err != nil {
		return "", err
	}
	keep := map[string]bool{}
	for _, t := range wanted {
		keep[families[t.family]+" "+t.name] = true
	}
	objects := doc.Objects[:0]
	for _, o := range doc.Objects {
		ok := true
		for kind, v := range o {
			var at struct{ Family, Table, Name string }
			if err := json.Unmarshal(v, &at); err != nil {
				return "", err
			}
			if kind == "table" {
				at.Table = at.Name
			}
			ok = kind == "metainfo" || keep[at.Family+" "+at.Table]
		}
		if ok {
			objects = append(objects, o)
		}
	}
	doc.Objects = objects
	b, err := json.Marshal(doc)
	return string(b), err
}

// nfHeader begins a message to netfilter about IPv4 (struct nfgenmsg).
func nfHeader() vnl.NetlinkRequestData { return raw{unix.AF_INET, 0, 0, 0} }
