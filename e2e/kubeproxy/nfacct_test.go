package kubeproxy

import (
	"errors"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
)

// Numbers of linux include/uapi/linux/netfilter/nfnetlink_acct.h.
const (
	acctNew  = 0 // NFNL_MSG_ACCT_NEW
	acctName = 1 // NFACCT_NAME
)

// makeCounters makes the two nfacct counters that kube-proxy makes where the
// kernel has such (upstream pkg/proxy/metrics/metrics.go), without which no
// rule that counts with them can be loaded.
func makeCounters(ns *netns.NS) error {
	return ns.Do(func() error {
		for _, name := range []string{"ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"} {
			req := vnl.NewNetlinkRequest(unix.NFNL_SUBSYS_ACCT<<8|acctNew, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_ACK)
			req.AddData(&vnl.Nfgenmsg{Version: vnl.NFNETLINK_V0})
			req.AddData(vnl.NewRtAttr(acctName, vnl.ZeroTerminated(name)))
			if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil && !errors.Is(err, unix.EBUSY) {
				return err
			}
		}
		return nil
	})
}
