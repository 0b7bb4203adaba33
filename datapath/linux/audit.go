package linux

import (
	"context"
	"fmt"

	"slipway/datapath"
)

// Diff reads the host back and returns what separates it from the
// configuration, changing nothing.
func (h *Host) Diff(ctx context.Context, cfg datapath.NodeConfig) (datapath.Diff, error) {
	st, err := h.Read(ctx, keys(cfg)...)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", cfg.Node, err)
	}
	return Compare(cfg, st), nil
}
