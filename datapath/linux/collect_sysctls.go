package linux

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// decidingSysctls are those that decide a packet's way, beside what is said
// device by device. One that the kernel or the namespace does not have is left out.
var decidingSysctls = []string{
	"net/ipv4/ip_forward", "net/ipv4/ip_default_ttl", "net/ipv4/ip_forward_use_pmtu",
	"net/ipv4/icmp_echo_ignore_all", "net/ipv4/fib_multipath_hash_policy",
	"net/ipv4/tcp_l3mdev_accept", "net/ipv4/udp_l3mdev_accept", "net/ipv4/ip_no_pmtu_disc",
	"net/bridge/bridge-nf-call-iptables",
	"net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_tcp_be_liberal",
}

// sysctls reads them, and the settings that hold for all devices and for new
// ones, which no dump has.
func (c *collection) sysctls() error {
	c.st.Sysctls = map[string]string{}
	for _, key := range decidingSysctls {
		v, ok, err := readSysctl(key)
		if err != nil {
			return err
		}
		if ok {
			c.st.Sysctls[key] = v
		}
	}
	for _, x := range []struct {
		name string
		conf *datapath.DeviceConf
	}{{"all", &c.st.All}, {"default", &c.st.Default}} {
		if err := readConf(x.name, x.conf); err != nil {
			return err
		}
	}
	return nil
}

func readConf(name string, conf *datapath.DeviceConf) error {
	for _, f := range []struct {
		key  string
		into *int
	}{
		{"forwarding", &conf.Forwarding}, {"rp_filter", &conf.RPFilter}, {"proxy_arp", &conf.ProxyARP},
		{"accept_local", &conf.AcceptLocal}, {"route_localnet", &conf.RouteLocal},
		{"arp_ignore", &conf.ARPIgnore}, {"src_valid_mark", &conf.SrcValidMark},
	} {
		v, ok, err := readSysctl("net/ipv4/conf/" + name + "/" + f.key)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if *f.into, err = strconv.Atoi(v); err != nil {
			return fmt.Errorf("sysctl net/ipv4/conf/%s/%s: %w", name, f.key, err)
		}
	}
	return nil
}

// readSysctl reads a value of the calling thread's namespace. One that may not
// be read is as good as not there.
func readSysctl(key string) (value string, ok bool, err error) {
	b, err := readSmall(sysctlPath(key))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read sysctl %s: %w", key, err)
	}
	return strings.TrimSpace(string(b)), true, nil
}

// readSmall reads a file of /proc that fits a page, without what an os.File
// costs, which is more than the reading.
func readSmall(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	b := make([]byte, os.Getpagesize())
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
