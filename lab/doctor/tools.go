package doctor

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
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
	}
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
