package bpf

import (
	"fmt"
	"math"
	"sync"

	"slipway/internal/netns"
	"slipway/internal/nl"
)

var lossSpec = sync.OnceValues(loadLoss)

// AttachLoss loses percent (0 to 100) of the packets that leave through ifname,
// chosen at random, instead of what an earlier call set. A GSO packet is lost as
// a whole, as netem does it. Zero percent is DetachLoss.
func AttachLoss(ns *netns.NS, ifname string, percent float64) error {
	if percent < 0 || percent > 100 || math.IsNaN(percent) {
		return fmt.Errorf("lose packets of %s in %s: %v%% is no share", ifname, ns.Name(), percent)
	}
	if percent == 0 {
		return DetachLoss(ns, ifname)
	}
	h, err := nl.At(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	dev, err := mustLink(h, ifname)
	if err != nil {
		return err
	}
	parsed, err := lossSpec()
	if err != nil {
		return fmt.Errorf("load loss program: %w", err)
	}
	spec := parsed.Copy()
	threshold := uint64(math.Round(percent / 100 * (1 << 32)))
	if err := spec.Variables[lossVarLossThreshold].Set(threshold); err != nil {
		return fmt.Errorf("load loss program: %w", err)
	}
	var program lossObjects
	if err := spec.LoadAndAssign(&program, nil); err != nil {
		return fmt.Errorf("load loss program: %w", err)
	}
	defer program.Close() //nolint:errcheck // the filter holds it
	return attach(h, dev, lossPlace, describeLoss(percent), program.Lose)
}

func describeLoss(percent float64) string { return fmt.Sprintf("%g%%", percent) }

// LossAttached reports whether exactly this loss is set; for zero, whether none is.
func LossAttached(ns *netns.NS, ifname string, percent float64) (bool, error) {
	h, err := nl.At(ns)
	if err != nil {
		return false, err
	}
	defer h.Close()
	dev, err := mustLink(h, ifname)
	if err != nil {
		return false, err
	}
	f, err := find(h, dev, lossPlace)
	if err != nil {
		return false, err
	}
	if f == nil {
		return percent == 0, nil
	}
	return f.Name == lossPlace.kind+" "+describeLoss(percent), nil
}

// DetachLoss loses no more packets. A device without the program, or none of
// that name, is no error.
func DetachLoss(ns *netns.NS, ifname string) error {
	h, err := nl.At(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return detachFrom(h, ifname, lossPlace)
}
