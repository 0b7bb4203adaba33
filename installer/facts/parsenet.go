package facts

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Hardware types of devices (linux include/uapi/linux/if_arp.h) and the flag of
// one that is up (include/uapi/linux/if.h).
const (
	typeTunnel   = "768"
	typeLoopback = "772"
	flagUp       = 1
)

// readLink reads name, DEVTYPE, whether there is a device of the machine's below,
// MAC, MTU, hardware type and flags.
func readLink(r *reading, v []string) error {
	l := Link{Name: v[0], Kind: v[1], Physical: v[2] != "", MAC: v[3]}
	switch v[5] {
	case typeTunnel:
		l.Kind, l.MAC = "ipip", ""
	case typeLoopback:
		l.Kind, l.MAC = "loopback", ""
	}
	mtu, err := strconv.Atoi(v[4])
	if err != nil {
		return err
	}
	flags, err := strconv.ParseUint(v[6], 0, 32)
	l.MTU, l.Up = mtu, flags&flagUp != 0
	r.f.Links = append(r.f.Links, l)
	return err
}

// readAddress reads a line of `ip -o address show`: "2: eth0    inet 10.0.0.2/24 …".
func readAddress(r *reading, v []string) error {
	words := strings.Fields(v[0])
	if len(words) < 4 || words[2] != "inet" && words[2] != "inet6" {
		return nil
	}
	text := words[3]
	if !strings.Contains(text, "/") { // a peer's: "inet 10.0.0.1 peer 10.0.0.2/32"
		text += map[string]string{"inet": "/32", "inet6": "/128"}[words[2]]
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(words[1], "@")
	for i := range r.f.Links {
		if r.f.Links[i].Name == name {
			r.f.Links[i].Addresses = append(r.f.Links[i].Addresses, p)
			return nil
		}
	}
	return nil // a device that came in between
}

// readRoute reads a line of `ip -4 route show`.
func readRoute(r *reading, v []string) error {
	words := strings.Fields(v[0])
	if len(words) == 0 {
		return nil
	}
	if slices.Contains([]string{"unicast", "local", "broadcast"}, words[0]) && len(words) > 1 {
		words = words[1:]
	}
	text := words[0]
	switch {
	case text == "default":
		text = "0.0.0.0/0"
	case !strings.Contains(text, "/"):
		text += "/32"
	}
	dst, err := netip.ParsePrefix(text)
	if err != nil {
		return nil //nolint:nilerr // blackhole, throw and their like lead nowhere
	}
	route := Route{Dst: dst}
	for i := 1; i+1 < len(words); i++ {
		switch words[i] {
		case "via":
			route.Via, _ = netip.ParseAddr(words[i+1])
		case "dev":
			route.Dev = words[i+1]
		case "src":
			route.Src, _ = netip.ParseAddr(words[i+1])
		}
	}
	r.f.Routes = append(r.f.Routes, route)
	return nil
}

// readSocket reads a line of ss: protocol, state, two queues, own address, peer, and
// users:(("sshd",pid=1,fd=3),…).
func readSocket(r *reading, v []string) error {
	words := strings.Fields(v[0])
	if len(words) < 6 || words[1] != "LISTEN" && words[1] != "UNCONN" {
		return nil // the headings
	}
	own := words[4]
	at := strings.LastIndexByte(own, ':')
	if at < 0 {
		return fmt.Errorf("%q is no address with a port", own)
	}
	s := Socket{Protocol: words[0]}
	var err error
	if s.Port, err = strconv.Atoi(own[at+1:]); err != nil {
		return err
	}
	address := own[:at]
	if i := strings.IndexByte(address, '%'); i >= 0 {
		s.Device = strings.TrimRight(address[i+1:], "]")
		address = address[:i]
	}
	switch address = strings.Trim(address, "[]"); address {
	case "*":
		s.Address = netip.IPv6Unspecified()
	default:
		if s.Address, err = netip.ParseAddr(address); err != nil {
			return err
		}
	}
	s.Program, s.PIDs = users(strings.Join(words[6:], " "))
	r.f.add(s)
	return nil
}

// add adds a socket, unless it is one that several processes share.
func (f *Facts) add(s Socket) {
	for i := range f.Listening {
		o := &f.Listening[i]
		if o.Protocol == s.Protocol && o.Address == s.Address && o.Port == s.Port && o.Device == s.Device && o.Program == s.Program {
			o.PIDs = append(o.PIDs, s.PIDs...)
			return
		}
	}
	f.Listening = append(f.Listening, s)
}

// users reads who has a socket.
func users(text string) (program string, pids []int) {
	for i, part := range strings.Split(text, `("`) {
		if i == 0 {
			continue
		}
		name, rest, _ := strings.Cut(part, `"`)
		if program == "" {
			program = name
		}
		_, rest, ok := strings.Cut(rest, "pid=")
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(rest, ",")
		if pid, err := strconv.Atoi(digits); err == nil && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return program, pids
}

// readProcSocket reads a line of /proc/net/tcp and its like: number, own address,
// peer, state (linux include/net/tcp_states.h: 0A listens, 07 is a UDP socket's).
func readProcSocket(r *reading, protocol, state, line string) error {
	words := strings.Fields(line)
	if len(words) < 4 || words[3] != state {
		return nil
	}
	address, port, _ := strings.Cut(words[1], ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return err
	}
	raw, err := hex.DecodeString(address)
	if err != nil {
		return err
	}
	// Words of 32 bits, each in the host's order, which is little-endian wherever
	// slipway runs.
	for i := 0; i+4 <= len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	a, ok := netip.AddrFromSlice(raw)
	if !ok {
		return errors.New("no address")
	}
	if peer := words[2]; protocol == "udp" && !strings.HasSuffix(peer, ":0000") {
		return nil // it talks to one alone
	}
	r.f.add(Socket{Protocol: protocol, Address: a, Port: int(n)})
	return nil
}

func readPolicy(r *reading, v []string) error {
	if v[3] == "DROP" {
		r.f.Firewall.drop(v[0] + " " + v[1] + " " + v[2])
	}
	return nil
}

// drop notes a chain that drops, which two programs may show.
func (f *Firewall) drop(chain string) {
	if !slices.Contains(f.Drops, chain) {
		f.Drops = append(f.Drops, chain)
	}
}

func readNFTDrop(r *reading, v []string) error {
	r.f.Firewall.drop(v[0] + " " + v[1] + " " + v[2])
	return nil
}

func readChains(r *reading, v []string) error {
	n, err := strconv.Atoi(v[2])
	put(&r.f.Firewall.Chains, v[1], r.f.Firewall.Chains[v[1]]+n)
	return err
}

func readDeny(r *reading, v []string) error {
	r.f.Firewall.Denies = append(r.f.Firewall.Denies, strings.Join(v[:3], " "))
	return nil
}

func readTable(r *reading, v []string) error {
	r.f.Firewall.Tables = append(r.f.Firewall.Tables, v[0]+" "+v[1])
	return nil
}
