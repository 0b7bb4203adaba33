package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/pkg/invoke"

	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/topology"
)

// confName is the network's configuration; the runtime takes the first in order.
const confName = "10-slipway.conflist"

// CNI versions that container runtimes speak: STATUS and GC came with the second.
const (
	cniVersion      = "1.0.0"
	cniVersionNewer = "1.1.0"
)

// Plugins that are upstream's.
const (
	hostLocal = "host-local"
	portMap   = "portmap"
)

// object is one of JSON.
type object = map[string]any

// confList is the network's configuration for container runtimes: our plugin,
// with addresses from upstream's host-local, and upstream's portmap if it is
// there. ready is the file without which the plugin plugs nothing in.
func confList(ctx context.Context, c CNI, ready string, s topology.Snapshot, self topology.NodeState) ([]byte, error) {
	first := object{"type": "slipway", "mtu": int(s.Network.MTU), "ready": ready}
	ipam := object{"type": hostLocal, "dataDir": c.DataDir, "routes": []object{{"dst": "0.0.0.0/0"}}}
	if s.Network.Mode.IsFlannel() {
		gw := self.PodCIDR.Addr().Next().String()
		first["mode"], first["bridge"], first["hairpin"], first["gateway"] = "bridge", flannel.Bridge, true, gw
		ipam["ranges"] = [][]object{{{"subnet": self.PodCIDR.String(), "gateway": gw}}}
	} else {
		gw := calico.Gateway.String()
		first["mode"], first["gateway"] = "routed", gw
		ipam["ranges"] = [][]object{blockRanges(self.Blocks, gw)}
	}
	first["ipam"] = ipam
	plugins := []object{first}
	used := []string{hostLocal}
	if _, err := os.Stat(filepath.Join(c.BinDir, portMap)); err == nil {
		plugins = append(plugins, object{"type": portMap, "capabilities": object{"portMappings": true}})
		used = append(used, portMap)
	}
	list := object{"cniVersion": cniVersion, "name": "slipway", "plugins": plugins}
	newer, err := speak(ctx, c.BinDir, used, cniVersionNewer)
	if err != nil {
		return nil, err
	}
	if newer { // a runtime that does not know the list takes cniVersion
		list["cniVersions"] = []string{cniVersion, cniVersionNewer}
	}
	out, err := json.MarshalIndent(list, "", "  ")
	return append(out, '\n'), err
}

// blockRanges are what host-local may hand out of blocks: all of each but its
// first address, which in the first block is the tunnel's own. It would also
// keep the last, as it thinks of broadcasts, which routed pods have none of.
func blockRanges(blocks []netip.Prefix, gateway string) []object {
	var out []object
	for _, b := range blocks {
		a := b.Addr().As4()
		last := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3]) | (uint32(1)<<(32-b.Bits()) - 1)
		end := netip.AddrFrom4([4]byte{byte(last >> 24), byte(last >> 16), byte(last >> 8), byte(last)})
		out = append(out, object{"subnet": b.String(), "gateway": gateway, "rangeEnd": end.String()})
	}
	return out
}

// speak reports whether all plugins speak a version of CNI. One that is not
// there speaks none, and will be missed when pods are plugged in.
func speak(ctx context.Context, dir string, plugins []string, version string) (bool, error) {
	for _, name := range plugins {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		info, err := invoke.GetVersionInfo(ctx, path, nil)
		if err != nil {
			return false, fmt.Errorf("CNI plugin %s: %w", path, err)
		}
		if !slices.Contains(info.SupportedVersions(), version) {
			return false, nil
		}
	}
	return true, nil
}
