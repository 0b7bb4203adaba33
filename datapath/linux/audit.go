package linux

import (
	"context"
	"fmt"

	"slipway/datapath"
)

// Diff reads the host back and returns what separates it from the
// configuration, changing nothing. Rules that the memo knows are not read again.
func (h *Host) Diff(ctx context.Context, cfg datapath.NodeConfig) (datapath.Diff, error) {
	read := h.Read
	if h.opts.MemoFile != "" && h.rulesRemembered(wantedMark(cfg)) {
		read = func(ctx context.Context, sysctls ...string) (datapath.KernelState, error) {
			return h.read(ctx, sysctls, allRules{})
		}
	}
	st, err := read(ctx, keys(cfg)...)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", cfg.Node, err)
	}
	return Compare(cfg, st), nil //nolint:contextcheck // nothing is loaded here
}
