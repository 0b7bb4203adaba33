package agent

import (
	"net/netip"
	"testing"
)

func TestBlockRanges(t *testing.T) {
	blocks := []netip.Prefix{netip.MustParsePrefix("10.244.0.64/26"), netip.MustParsePrefix("10.244.1.0/26"), netip.MustParsePrefix("10.244.3.192/26")}
	ends := []string{"10.244.0.127", "10.244.1.63", "10.244.3.255"}
	for i, r := range blockRanges(blocks, "169.254.1.1") {
		if r["subnet"] != blocks[i].String() || r["rangeEnd"] != ends[i] {
			t.Errorf("block %s: %v", blocks[i], r)
		}
	}
}
