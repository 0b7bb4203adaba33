package hosts

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"slipway/installer/components"
	"slipway/internal/testnet"
)

// rootfsScript packs the machines' file system.
//
//go:embed rootfs.sh
var rootfsScript []byte

// machineScript is what machines run first.
//
//go:embed machine.sh
var machineScript []byte

// packages are what somebody who makes a server installs, and what Slipway asks
// for (docs: the machines have no network to get any from).
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "openssh-server", "openssh-sftp-server", "sudo", "iproute2", "iptables", "nftables", "conntrack",
	"curl", "procps", "ca-certificates", "iputils-ping", "kmod", "nginx-light", "libnginx-mod-stream", "haproxy", "keepalived",
	"systemd-resolved", "network-manager",
}

// rootfs is the directory of the machines' file system, which is never changed.
func rootfs() (string, error) {
	cache, err := components.CacheDir()
	if err != nil {
		return "", err
	}
	parts := [][]byte{rootfsScript, machineScript, []byte(strings.Join(packages, " "))}
	return testnet.Packed(filepath.Join(cache, "machines"), parts, pack)
}

func pack(dir string) error {
	first := dir + ".first"
	defer os.Remove(first) //nolint:errcheck // scratch
	if err := os.WriteFile(first, machineScript, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("sh", append([]string{"-s", dir, first}, packages...)...)
	cmd.Stdin = bytes.NewReader(rootfsScript)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pack the machines' file system: %w\n%s", err, out)
	}
	return nil
}
