package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// Socket diagnosis (linux include/uapi/linux/sock_diag.h and inet_diag.h).
const (
	sockDiagByFamily = 20
	inetDiagReqLen   = 56 // struct inet_diag_req_v2
	inetDiagMsgLen   = 72 // struct inet_diag_msg
	inetDiagV6Only   = 11 // INET_DIAG_SKV6ONLY

	tcpEstablished = 1 // TCP_ESTABLISHED, include/net/tcp_states.h
	tcpClose       = 7 // an unconnected UDP socket
	tcpListen      = 10
)

// sockets reads the sockets that take packets without having asked for them:
// TCP and SCTP ones that listen and all UDP ones. IPv6 sockets count if they
// take IPv4 too.
func (c *collection) sockets() error {
	for _, q := range []struct {
		family, proto uint8
		name          string
		states        uint32
	}{
		{unix.AF_INET, unix.IPPROTO_TCP, "tcp", 1 << tcpListen},
		{unix.AF_INET6, unix.IPPROTO_TCP, "tcp", 1 << tcpListen},
		{unix.AF_INET, unix.IPPROTO_UDP, "udp", 1<<tcpEstablished | 1<<tcpClose},
		{unix.AF_INET6, unix.IPPROTO_UDP, "udp", 1<<tcpEstablished | 1<<tcpClose},
	} {
		req := make(raw, inetDiagReqLen)
		req[0], req[1] = q.family, q.proto
		binary.NativeEndian.PutUint32(req[4:], q.states)
		messages, err := dump(unix.NETLINK_SOCK_DIAG, sockDiagByFamily, req)
		if err != nil {
			return fmt.Errorf("list %s sockets: %w", q.name, err)
		}
		for _, m := range messages {
			attrs, err := body(m, inetDiagMsgLen)
			if err != nil {
				return fmt.Errorf("list %s sockets: %w", q.name, err)
			}
			if s, ok := c.socket(q.name, m, attrs); ok {
				c.st.Sockets = append(c.st.Sockets, s)
			}
		}
	}
	return c.sctpSockets()
}

func (c *collection) socket(proto string, m, attrs []byte) (datapath.SocketState, bool) {
	state := map[uint8]string{tcpEstablished: "established", tcpClose: "bound", tcpListen: "listen"}[m[1]]
	s := datapath.SocketState{Proto: proto, State: state, Device: c.device(int(u32(m[40:])))}
	family := m[0]
	local, remote := diagAddr(family, m[8:24]), diagAddr(family, m[24:40])
	if family == unix.AF_INET6 {
		only := false
		for kind, v := range attributes(attrs) {
			only = only || (kind == inetDiagV6Only && u8(v) != 0)
		}
		switch {
		case local.Is4In6():
			local, remote = local.Unmap(), remote.Unmap()
		case local.IsUnspecified() && !only && (state != "established" || remote.Is4In6()):
			local, remote = netip.IPv4Unspecified(), remote.Unmap()
		default:
			return s, false
		}
		s.Dual = true
	}
	s.Local = netip.AddrPortFrom(local, be16(m[4:]))
	if state == "established" {
		s.Remote = netip.AddrPortFrom(remote, be16(m[6:]))
	}
	return s, true
}

func diagAddr(family uint8, b []byte) netip.Addr {
	if family == unix.AF_INET {
		return ipv4(b[:4])
	}
	return netip.AddrFrom16([16]byte(b))
}

// sctpSockets reads listening SCTP endpoints, which have no diagnosis on many
// kernels, from the file that lists them.
func (c *collection) sctpSockets() error {
	b, err := os.ReadFile("/proc/thread-self/net/sctp/eps")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list sctp sockets: %w", err)
	}
	c.st.Sockets = append(c.st.Sockets, parseSCTPEndpoints(string(b))...)
	return nil
}

// parseSCTPEndpoints reads lines of ENDPT SOCK STY SST HBKT LPORT UID INODE
// LADDRS (linux net/sctp/proc.c, sctp_eps_seq_show).
func parseSCTPEndpoints(table string) []datapath.SocketState {
	var out []datapath.SocketState
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 9 || f[3] != strconv.Itoa(tcpListen) {
			continue
		}
		port, err := strconv.ParseUint(f[5], 10, 16)
		if err != nil {
			continue
		}
		for _, a := range f[8:] {
			addr, err := netip.ParseAddr(a)
			if err != nil {
				continue
			}
			s := datapath.SocketState{Proto: "sctp", State: "listen"}
			switch {
			case addr.Is4() || addr.Is4In6():
			case addr.IsUnspecified():
				addr, s.Dual = netip.IPv4Unspecified(), true
			default:
				continue
			}
			s.Local = netip.AddrPortFrom(addr.Unmap(), uint16(port))
			out = append(out, s)
		}
	}
	return out
}
