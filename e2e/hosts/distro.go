package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/net/dns/dnsmessage"
)

// As Ubuntu has it: names are asked for at systemd-resolved's stub on the machine's
// own loopback, which knows of the network's server, and systemd-networkd runs.
const (
	resolvedConf = "[Resolve]\nDNS=%s\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\nDNSSEC=no\n"
	units        = "/etc/systemd/system/multi-user.target.wants/"
	libUnits     = "/lib/systemd/system/"
)

// inotifyUbuntu is what its services take beside a machine's own.
const inotifyUbuntu = 2

// Ubuntu makes one machine of a rig, which is not on yet, like Ubuntu's.
func Ubuntu(name string) Option {
	return func(m *Machine) error {
		if m.name != name {
			return nil
		}
		if err := m.put("/etc/systemd/resolved.conf.d/test.conf", 0o644, fmt.Appendf(nil, resolvedConf, address(1).Addr())); err != nil {
			return err
		}
		links := map[string]string{"/etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf"}
		for _, u := range []string{"systemd-resolved.service", "systemd-networkd.service"} {
			links[units+u] = libUnits + u
		}
		for path, to := range links {
			if err := m.link(path, to); err != nil {
				return err
			}
		}
		return nil
	}
}

// As the RHEL family has it: NetworkManager sets up the machine's device and its name
// servers, and takes care of whatever else turns up unless it is told not to.
const keyfile = "[connection]\nid=eth0\ntype=ethernet\ninterface-name=eth0\n\n[ipv4]\nmethod=manual\naddress1=%s,%s\ndns=%[2]s;\n\n[ipv6]\nmethod=ignore\n"

// inotifyRedHat is what NetworkManager takes beside a machine's own.
const inotifyRedHat = 2

// RedHat makes one machine of a rig, which is not on yet, like those of the RHEL family.
func RedHat(name string) Option {
	return func(m *Machine) error {
		if m.name != name {
			return nil
		}
		own := netip.PrefixFrom(m.Address, network.Bits())
		if err := m.put("/etc/NetworkManager/system-connections/eth0.nmconnection", 0o600, fmt.Appendf(nil, keyfile, own, address(1).Addr())); err != nil {
			return err
		}
		// Its scripts' helper comes and goes with events, and there are no scripts.
		if err := m.link("/etc/systemd/system/NetworkManager-dispatcher.service", "/dev/null"); err != nil {
			return err
		}
		return m.link(units+"NetworkManager.service", libUnits+"NetworkManager.service")
	}
}

// link puts a symbolic link on a machine's disk.
func (m *Machine) link(path, to string) error {
	if err := m.parents(filepath.Dir(path)); err != nil {
		return err
	}
	at := filepath.Join(m.dir, "upper", path)
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(to, at)
}

// Names answers for the network, until the test ends: every name has the address.
func (r *Rig) Names(answer [4]byte) {
	r.t.Helper()
	var c net.PacketConn
	if err := r.Operator.Do(func() (err error) {
		c, err = net.ListenPacket("udp4", address(1).Addr().String()+":53")
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply, err := answered(buf[:n], answer); err == nil {
				_, _ = c.WriteTo(reply, from)
			}
		}
	}()
}

func answered(query []byte, answer [4]byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	for _, q := range m.Questions {
		if q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: answer}})
		}
	}
	return m.Pack()
}
