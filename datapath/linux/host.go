package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
)

// Options say how a host is to be worked on.
type Options struct {
	// SkipRules leaves iptables unread and untouched, for callers who know that
	// it is as they left it: reading it costs two processes' start, about 10 ms.
	SkipRules bool
	// LockFile is iptables' lock; it should be the host's own, as a shared one
	// makes the nodes of a box wait for each other. Empty: the system's.
	LockFile string
	// HostTables has rules in the backend of iptables that the machine's own choice
	// is (update-alternatives), as other programs there have theirs: kube-proxy
	// runs plain iptables. Without it, legacy is preferred.
	HostTables bool
	// MemoFile, if set, lets Apply remember the rules that it left, and skip
	// reading them while the kernel's tables are byte for byte the same.
	MemoFile string
}

// Host is one namespace or machine to be made equal to a configuration. Its
// methods must not run at the same time as each other.
type Host struct {
	ns      *netns.NS
	nl      *nl.Handle
	opts    Options
	tables  iptables
	indexes map[string]int // of links, as last read
	// nftSeen is nftables' generation when the tables were last read or loaded;
	// zero: something else may have changed them since.
	nftSeen uint32
	// nftMarked is the generation in the last ruleMark; zero: none is in it.
	nftMarked uint32
}

// Open opens a host. The namespace stays the caller's and must stay open.
func Open(ns *netns.NS, opts Options) (*Host, error) {
	h, err := nl.At(ns)
	if err != nil {
		return nil, err
	}
	return &Host{ns: ns, nl: h, opts: opts, tables: findIPTables(opts.HostTables)}, nil
}

// Close closes the host's netlink handle.
func (h *Host) Close() { h.nl.Close() }

// maxPasses bounds Apply's rounds: links are made in one, and what hangs on
// them, and may have vanished with a replaced one, in the next.
const maxPasses = 3

// Apply makes the host equal to the configuration and returns what it changed:
// nothing if it was equal already. What is left of another configuration is
// removed, so that applying one with nothing but Node and PodRange removes a
// mode. It reads the host again after changes, and fails if they did not hold.
func (h *Host) Apply(ctx context.Context, cfg datapath.NodeConfig) (datapath.Diff, error) {
	wanted := ""
	if h.opts.MemoFile != "" {
		wanted = wantedMark(cfg)
	}
	known := h.opts.SkipRules || h.rulesRemembered(wanted)
	var rules allRules
	var err error
	if !known {
		if rules, err = h.readRules(ctx); err != nil {
			return nil, fmt.Errorf("node %s: %w", cfg.Node, err)
		}
	}
	st, err := h.read(ctx, keys(cfg), rules)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", cfg.Node, err)
	}
	done, err := h.converge(ctx, cfg, st)
	if err == nil && !known {
		err = h.rememberRules(wanted)
	}
	return done, err
}

// converge makes changes until nothing is left to change.
func (h *Host) converge(ctx context.Context, cfg datapath.NodeConfig, st datapath.KernelState) (datapath.Diff, error) {
	var done datapath.Diff
	for range maxPasses {
		s, err := compute(cfg, st) //nolint:contextcheck // rules are loaded whole or not at all, in moments
		if err != nil {
			return done, err
		}
		part := s.ours()
		if len(part) == 0 {
			return done, nil
		}
		if part[len(part)-1].stage > stageLink && slices.ContainsFunc(part, func(x step) bool { return x.stage == stageLink }) {
			part = slices.DeleteFunc(part, func(x step) bool { return x.stage > stageLink })
		}
		made, err := h.make(ctx, s, part)
		done = append(done, made...)
		if err != nil {
			return done, err
		}
		rules := allRules{st.RuleSave, st.NFTables}
		if slices.ContainsFunc(part, func(x step) bool { return x.stage == stageRules }) {
			rules.save = nil // written in one atomic load, not read again
		}
		if slices.ContainsFunc(part, func(x step) bool { return x.stage == stageTable }) {
			if rules.nft, err = h.loadedTables(ctx, s.wantNFT); err != nil {
				return done, fmt.Errorf("node %s: %w", cfg.Node, err)
			}
		}
		if st, err = h.read(ctx, keys(cfg), rules); err != nil {
			return done, fmt.Errorf("node %s: %w", cfg.Node, err)
		}
	}
	return done, h.held(cfg, st) //nolint:contextcheck // as above
}

// held reports the first difference that is left after Apply's last round.
func (h *Host) held(cfg datapath.NodeConfig, st datapath.KernelState) error {
	s, err := compute(cfg, st)
	if err != nil {
		return err
	}
	if left := s.ours(); len(left) > 0 {
		return fmt.Errorf("node %s: %w: %s (is: %s)", cfg.Node, ErrNotHeld, left[0].change.Command, left[0].change.Was)
	}
	return nil
}

// ErrNotHeld reports that the kernel does not show a change that it accepted,
// most likely because another program undid it.
var ErrNotHeld = errors.New("change did not hold")

// ours are the steps that Apply makes.
func (s *steps) ours() []step {
	return slices.DeleteFunc(slices.Clone(s.list), func(x step) bool { return x.stage == stagePod })
}

// make makes the steps in order and returns those that it made.
func (h *Host) make(ctx context.Context, s steps, part []step) (datapath.Diff, error) {
	var done datapath.Diff
	restored := false
	for _, x := range part {
		if err := ctx.Err(); err != nil {
			return done, fmt.Errorf("node %s: %s: %w", s.cfg.Node, x.change.Command, err)
		}
		var err error
		switch {
		case x.stage != stageRules:
			err = x.run(h)
		case !restored:
			restored = true
			err = h.restore(ctx, s.restore)
		}
		if err != nil {
			return done, fmt.Errorf("node %s: %s: %w", s.cfg.Node, x.change.Command, err)
		}
		done = append(done, x.change)
	}
	return done, nil
}

func (h *Host) index(dev string) (int, error) {
	if i, ok := h.indexes[dev]; ok {
		return i, nil
	}
	l, err := h.nl.LinkByName(dev)
	if err != nil {
		return 0, fmt.Errorf("device %s: %w", dev, err)
	}
	return l.Attrs().Index, nil
}

func keys(cfg datapath.NodeConfig) []string {
	var out []string
	for _, s := range cfg.Sysctls {
		out = append(out, s.Key)
	}
	return out
}

// iptables are the programs that a host's rules are read and written with.
type iptables struct {
	save, restore string
	legacy        bool
}

// findIPTables prefers the legacy programs: their save is fast at any size,
// where nft's takes minutes at ten thousand services. What is the host's own
// choice is known by the program that its links lead to (iptables' Makefile makes
// one of each backend, under all names).
func findIPTables(own bool) iptables {
	if p, err := exec.LookPath("iptables-legacy-save"); err == nil && !own {
		if r, err := exec.LookPath("iptables-legacy-restore"); err == nil {
			return iptables{save: p, restore: r, legacy: true}
		}
	}
	out := iptables{save: "iptables-save", restore: "iptables-restore"}
	if p, err := exec.LookPath(out.restore); err == nil {
		p, err = filepath.EvalSymlinks(p)
		out.legacy = err == nil && strings.HasPrefix(filepath.Base(p), "xtables-legacy")
	}
	return out
}

// IPTables names the program that the host's rules are read with.
func (h *Host) IPTables() string { return h.tables.save }

// environ is the environment of the iptables programs.
func (h *Host) environ() []string {
	if h.opts.LockFile == "" {
		return nil
	}
	return append(os.Environ(), "XTABLES_LOCKFILE="+h.opts.LockFile)
}
