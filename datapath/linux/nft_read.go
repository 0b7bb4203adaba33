package linux

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/nft"
	"slipway/internal/run"
)

// More of nftables' netlink messages (linux include/uapi/linux/netfilter/nf_tables.h).
const (
	nftGetGeneration  = 16 // NFT_MSG_GETGEN
	nftGeneration     = 1  // NFTA_GEN_ID
	nftTableUse       = 3  // NFTA_TABLE_USE
	nftTableHandle    = 4  // NFTA_TABLE_HANDLE
	generationIDBytes = 4
)

// proxyTable is the nftables table that can be ours.
var proxyTable = nftTable{family: nfFamilyDecided, name: kubeproxy.NFTTable}

// is reports whether it is the same table, whatever its handle.
func (t nftTable) is(o nftTable) bool { return t.family == o.family && t.name == o.name }

// ownsTable reports whether the proxy's table is ours to remove.
func ownsTable(cfg datapath.NodeConfig) bool {
	return !slices.ContainsFunc(cfg.ForeignChains, func(p string) bool { return strings.HasPrefix("KUBE-", p) })
}

// readTables reads kube-proxy's table, if there is one. Without, it starts no
// process.
func (h *Host) readTables(ctx context.Context) ([]datapath.NFTable, error) {
	var tables []nftTable
	err := h.ns.Do(func() (err error) {
		if h.nftSeen, err = generation(); err != nil {
			return err
		}
		tables, err = nftTables()
		return err
	})
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(tables, proxyTable.is) {
		return []datapath.NFTable{}, nil
	}
	out, err := run.Cmd{NS: h.ns, Name: "nft", Args: []string{"-j", "list", "table", "ip", proxyTable.name}}.Output(ctx)
	if err != nil {
		return nil, fmt.Errorf("read nftables: %w", err)
	}
	return nft.Read(out)
}

// generation is the number of changes to nftables in the calling thread's
// namespace; zero on a kernel without nftables.
func generation() (uint32, error) {
	req := vnl.NewNetlinkRequest(nftSubsystem<<8|nftGetGeneration, 0)
	req.AddData(raw(make([]byte, nfHeaderLen)))
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if noNFT(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("nftables' generation: %w", err)
	}
	for _, m := range messages {
		attrs, err := body(m, nfHeaderLen)
		if err != nil {
			return 0, fmt.Errorf("nftables' generation: %w", err)
		}
		for kind, v := range attributes(attrs) {
			if kind == nftGeneration && len(v) == generationIDBytes {
				return binary.BigEndian.Uint32(v), nil
			}
		}
	}
	return 0, nil
}

// ruleMark says in which state iptables and kube-proxy's nftables table are:
// what has the same mark is the same. Where there is that table, or iptables' own
// are nftables, any change to these changes the mark.
func (h *Host) ruleMark() (string, error) {
	legacy, err := h.fingerprint()
	if err != nil {
		return "", err
	}
	inode, err := h.ns.Inode()
	if err != nil {
		return "", err
	}
	mark := legacy
	h.nftMarked = 0
	err = h.ns.Do(func() error {
		tables, err := nftTables()
		if err != nil {
			return err
		}
		at := slices.IndexFunc(tables, proxyTable.is)
		if at < 0 && h.tables.legacy {
			return nil
		}
		var proxy nftTable
		if at >= 0 {
			proxy = tables[at]
		}
		now, err := generation()
		if err != nil {
			return err
		}
		h.nftMarked = now
		boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		mark = fmt.Sprintf("%s %s %d %d %d %d", legacy, strings.TrimSpace(string(boot)), inode, now, proxy.handle, proxy.use)
		return err
	})
	return mark, err
}
