package tracing

import (
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab"
)

// daemons is what is read of `slipway status -o json`.
type daemons struct {
	Daemon struct {
		PID      int
		Speakers map[string]struct{ PID int }
	}
}

// status asks the lab for its processes; it need not be healthy.
func (l *testLab) status(t testing.TB) daemons {
	t.Helper()
	return decode[daemons](t, slipway(t, "status", "-L", l.name, "-o", "json"))
}

// killDaemon kills the lab's own daemon, which serves the UDP tunnels.
func killDaemon(t *testing.T, l *testLab) { kill(t, l.status(t).Daemon.PID) }

// signalSpeakers stops the BGP speakers of nodes, or lets them go on. The daemon
// would start new ones in the place of any that were killed.
func signalSpeakers(sig syscall.Signal, nodes ...string) func(*testing.T, *testLab) {
	return func(t *testing.T, l *testLab) {
		speakers := l.status(t).Daemon.Speakers
		for _, n := range nodes {
			if pid := speakers[n].PID; pid <= 1 || syscall.Kill(pid, sig) != nil {
				t.Fatalf("the speaker of %s, process %d, takes no signal", n, pid)
			}
		}
	}
}

// kill ends a process and waits until it is gone.
func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatal("there is no such process")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, patience, "the process ends", func() (bool, string) {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		_, rest, _ := strings.Cut(string(raw), ") ") // proc_pid_stat(5): field 3 is the state
		return err != nil || strings.HasPrefix(rest, "Z"), rest
	})
}

// mostConntrack is how many connections this test is ready to make up. The
// limit of the table is one for all namespaces and belongs to the machine, so
// that it is left alone; what is counted against it is a namespace's own.
const mostConntrack = 1 << 19

// oneConntrack lets one lab at a time fill a table, which takes some 80 MB.
var oneConntrack sync.Mutex

// fillConntrack fills a node's table of connections with ones that the kernel
// does not evict, as they have seen answers.
func fillConntrack(node string) func(*testing.T, *testLab) {
	return func(t *testing.T, l *testLab) {
		raw, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
		if err != nil {
			t.Fatal(err)
		}
		limit, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err != nil || limit == 0 || limit > mostConntrack {
			t.Skipf("the machine's nf_conntrack_max is %d (%v): a table of more than %d is not filled", limit, err, mostConntrack)
		}
		oneConntrack.Lock()
		l.within(t, node, func() error { return makeConnections(limit) })
	}
}

// flushConntrack empties it again.
func flushConntrack(node string) func(*testing.T, *testLab) {
	return func(t *testing.T, l *testLab) {
		defer oneConntrack.Unlock()
		l.within(t, node, func() error { return tell(func(send func([]byte) error) error { return send(message(ctDelete, 0)) }) })
	}
}

// within runs fn in the network namespace of a machine.
func (l *testLab) within(t testing.TB, machine string, fn func() error) {
	t.Helper()
	ns, err := netns.Open(lab.NSOfMachine(l.name, machine))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close() //nolint:errcheck // a handle
	if err := ns.Do(fn); err != nil {
		t.Fatal(err)
	}
}

// connectionsAtOnce is how many messages go into one system call.
const connectionsAtOnce = 200

// makeConnections tells the kernel of n UDP connections between addresses that
// nobody has (198.18.0.0/15, RFC 2544).
func makeConnections(n int) error {
	return tell(func(send func([]byte) error) error {
		var batch []byte
		for i := range n {
			batch = append(batch, newConnection(i)...)
			if (i+1)%connectionsAtOnce != 0 && i+1 != n {
				continue
			}
			if err := send(batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
		return nil
	})
}

// tell opens a way to the connection tracking of the thread's namespace.
func tell(what func(send func([]byte) error) error) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // a handle
	return what(func(b []byte) error { return unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
}

// Attributes of a connection (linux include/uapi/linux/netfilter/nfnetlink_conntrack.h)
// and its state bits (nf_conntrack_common.h: IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED).
const (
	ctNew, ctDelete = 0, 2 // IPCTNL_MSG_CT_…

	ctaTupleOrig, ctaTupleReply, ctaStatus, ctaTimeout = 1, 2, 3, 7
	ctaTupleIP, ctaTupleProto                          = 1, 2
	ctaIPv4Src, ctaIPv4Dst                             = 1, 2
	ctaProtoNum, ctaProtoSPort, ctaProtoDPort          = 1, 2, 3
	seenReply, assured, confirmed                      = 1 << 1, 1 << 2, 1 << 3
)

// newConnection is the message that makes connection number i.
func newConnection(i int) []byte {
	client := [4]byte{198, 18, byte(i >> 22), byte(i >> 14)}
	server := [4]byte{198, 19, 0, 1}
	port := uint16(1024 + i&(1<<14-1))
	orig := slices.Concat(nested(ctaTupleIP, attr(ctaIPv4Src, client[:]), attr(ctaIPv4Dst, server[:])), ports(port, 9))
	reply := slices.Concat(nested(ctaTupleIP, attr(ctaIPv4Src, server[:]), attr(ctaIPv4Dst, client[:])), ports(9, port))
	return message(ctNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		nested(ctaTupleOrig, orig), nested(ctaTupleReply, reply),
		attr(ctaStatus, binary.BigEndian.AppendUint32(nil, seenReply|assured|confirmed)),
		attr(ctaTimeout, binary.BigEndian.AppendUint32(nil, uint32((10*time.Minute).Seconds()))))
}

// message is one message to the connection tracking; a deletion without
// attributes empties the table.
func message(kind, flags uint16, attributes ...[]byte) []byte {
	body := append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, slices.Concat(attributes...)...)
	head := make([]byte, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(head, uint32(len(head)+len(body)))
	binary.NativeEndian.PutUint16(head[4:], unix.NFNL_SUBSYS_CTNETLINK<<8|kind)
	binary.NativeEndian.PutUint16(head[6:], unix.NLM_F_REQUEST|flags)
	return append(head, body...)
}

func ports(src, dst uint16) []byte {
	return nested(ctaTupleProto, attr(ctaProtoNum, []byte{unix.IPPROTO_UDP}),
		attr(ctaProtoSPort, binary.BigEndian.AppendUint16(nil, src)), attr(ctaProtoDPort, binary.BigEndian.AppendUint16(nil, dst)))
}

func nested(kind uint16, parts ...[]byte) []byte {
	return attr(unix.NLA_F_NESTED|kind, slices.Concat(parts...))
}

// attr is a netlink attribute, padded to four bytes.
func attr(kind uint16, value []byte) []byte {
	out := binary.NativeEndian.AppendUint16(nil, uint16(unix.NLA_HDRLEN+len(value)))
	out = append(binary.NativeEndian.AppendUint16(out, kind), value...)
	for len(out)%unix.NLA_ALIGNTO != 0 {
		out = append(out, 0)
	}
	return out
}
