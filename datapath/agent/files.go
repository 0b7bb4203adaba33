package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"slipway/topology"
)

// write makes a file hold the content, by a rename, so that nobody reads half of
// it, and reports whether it did not before.
func write(path string, content []byte, mode os.FileMode) (bool, error) {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, content) {
		return false, nil
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return true, nil
}

// remove removes files that may be there.
func remove(paths ...string) error {
	var errs []error
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// subnetEnv is what flanneld writes for those who start containers (flannel
// pkg/subnet/subnet.go, WriteSubnetFile): the subnet is that of the bridge, with
// its address.
func subnetEnv(s topology.Snapshot, self topology.NodeState) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "FLANNEL_NETWORK=%s\n", s.Network.PodCIDR)
	fmt.Fprintf(&b, "FLANNEL_SUBNET=%s/%d\n", self.PodCIDR.Addr().Next(), self.PodCIDR.Bits())
	fmt.Fprintf(&b, "FLANNEL_MTU=%d\nFLANNEL_IPMASQ=true\n", s.Network.MTU)
	return b.Bytes()
}

// formerSubnet is the subnet that the file says the node had; the zero Prefix if
// there is none.
func formerSubnet(path string) netip.Prefix {
	raw, err := os.ReadFile(path)
	if err != nil {
		return netip.Prefix{}
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "FLANNEL_SUBNET="); ok {
			if p, err := netip.ParsePrefix(v); err == nil {
				return p.Masked()
			}
		}
	}
	return netip.Prefix{}
}
