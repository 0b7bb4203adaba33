package doctor

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func toolChecks() []check {
	return []check{
		tool("iptables-save", "iptables", true, "no lab comes up"),
		tool("ip", "iproute2", false, "`ip netns exec` and the commands that slipway prints cannot be typed; slipway itself does not need it"),
		tool("tcpdump", "tcpdump", false, "captures can be written but not read here"),
		tool("tshark", "tshark", false, "captures cannot be decoded here, and the tests that compare with its decoding skip"),
		tool("ping", "iputils-ping", false, "`slipway exec … -- ping` has nothing to run, and tests skip"),
		tool("curl", "curl", false, "`slipway exec … -- curl` has nothing to run, and tests skip"),
		tool("iperf3", "iperf3", false, "throughput cannot be compared with iperf3's, and the test that does skips"),
		tool("bird", "bird2", false, "a second BGP implementation to peer with is not there, and the tests that do skip"),
		tool("ethtool", "ethtool", false, "offloads of devices cannot be looked at by hand"),
		tool("conntrack", "conntrack", false, "connection tracking cannot be looked at by hand"),
		nginx(),
		tool("haproxy", "haproxy", false, "the API cannot be balanced with loadBalancer software: haproxy"),
		tool("keepalived", "keepalived", false, "nobody can hold the vip of loadBalancer mode: external"),
		envoy(),
	}
}

// nginx balances connections by a module that is a package of its own.
func nginx() check {
	c := tool("nginx", "nginx libnginx-mod-stream", false, "the API cannot be balanced with loadBalancer software: nginx, the default where there are several apiservers")
	c.probe = func(ctx context.Context, _ *scratch) (string, error) {
		path, err := findTool("nginx")
		if err != nil {
			return "", err
		}
		if modules, err := filepath.Glob("/etc/nginx/modules-enabled/*stream.conf"); err != nil || len(modules) > 0 {
			return path, err
		}
		built, err := exec.CommandContext(ctx, path, "-V").CombinedOutput()
		if err == nil && !slices.Contains(strings.Fields(string(built)), "--with-stream") {
			err = fmt.Errorf("without its stream module")
		}
		return path, err
	}
	return c
}

// envoy is in no Debian.
func envoy() check {
	c := tool("envoy", "", false, "the API cannot be balanced with loadBalancer software: envoy; nginx and haproxy do the same")
	c.hint = "Debian has no package of it: put a release from envoyproxy.io at /usr/bin/envoy"
	return c
}

func tool(name, pkg string, required bool, means string) check {
	return check{
		name: name, group: Tools, required: required, means: means, hint: "apt-get install " + pkg,
		probe: func(context.Context, *scratch) (string, error) { return findTool(name) },
	}
}

// findTool looks where root's PATH leads too, as others may lack it.
func findTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("not installed")
}
