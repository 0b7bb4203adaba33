package vms

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"slipway/installer/components"
	"slipway/internal/testnet"
)

// imageScript makes what machines boot from.
//
//go:embed image.sh
var imageScript []byte

// packages are what somebody who makes a server installs, and what Slipway asks
// for: the machines have no network to get any from.
var packages = []string{
	"systemd-sysv", "dbus", "udev", "kmod", "openssh-server", "openssh-sftp-server", "sudo", "iproute2", "procps", "iputils-ping",
	"iptables", "nftables", "conntrack", "ethtool", "tcpdump", "curl", "ca-certificates", "iperf3", "ipvsadm", "ipset", "socat", "dnsutils",
	"nginx-light", "libnginx-mod-stream", "haproxy", "busybox-static",
}

// image is the directory with base.ext4, vmlinuz and initrd.gz, which are never
// changed.
func image() (string, error) {
	cache, err := components.CacheDir()
	if err != nil {
		return "", err
	}
	parts := [][]byte{imageScript, []byte(strings.Join(packages, " "))}
	return testnet.Packed(filepath.Join(cache, "vms"), parts, makeImage)
}

func makeImage(dir string) error {
	cmd := exec.Command("nice", append([]string{"-n", "10", "bash", "-c", string(imageScript), "image.sh", dir}, packages...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the machines' image: %w\n%s", err, out)
	}
	return nil
}

// disk makes a file system of the files, each under its name, as the machines
// mount it at [FilesDir].
func disk(path string, files map[string]string) error {
	dir := path + ".d"
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	size := int64(16 << 20)
	for name, from := range files {
		info, err := os.Stat(from)
		if err != nil {
			return err
		}
		size += info.Size() + info.Size()/20
		if out, err := exec.Command("cp", "-L", "--reflink=auto", "--preserve=mode", from, filepath.Join(dir, name)).CombinedOutput(); err != nil {
			return fmt.Errorf("copy %s: %w\n%s", from, err, out)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-L", "files", "-d", dir, path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make the disk of files: %w\n%s", err, out)
	}
	return nil
}
