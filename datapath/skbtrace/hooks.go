package skbtrace

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/datapath/bpf"
	"slipway/internal/netns"
)

// attachHooks attaches to the netfilter hooks of all namespaces.
func (t *Tracer) attachHooks(spaces []*netns.NS) error {
	links := make([][]link.Link, len(spaces))
	var g errgroup.Group
	for i, ns := range spaces {
		g.Go(func() error {
			return ns.Do(func() error {
				var err error
				links[i], err = t.attachHere(ns.Name())
				return err
			})
		})
	}
	err := g.Wait()
	for _, l := range links {
		t.links = append(t.links, l...)
	}
	return err
}

// attachHere attaches to the hooks of the calling thread's namespace. With an
// error it also returns what it attached before that.
func (t *Tracer) attachHere(space string) ([]link.Link, error) {
	tables, err := haveTables()
	if err != nil {
		return nil, fmt.Errorf("look for tables in %s: %w", space, err)
	}
	programs := t.hooks()
	var out []link.Link
	for number, hook := range hooks {
		wanted := Priorities(hook, tables)
		for slot, priority := range priorities {
			if len(wanted) == 0 || priority != wanted[0] {
				continue
			}
			wanted = wanted[1:]
			l, err := attachHook(programs[slot], link.NetfilterInetHook(number), priority)
			if err != nil {
				return out, &bpf.UnsupportedError{Feature: "netfilter programs", Err: fmt.Errorf("attach to %s of %s at %d: %w", hook, space, priority, err)}
			}
			out = append(out, l)
		}
	}
	return out, nil
}

// maxTracers bounds the search for a free priority.
const maxTracers = 8

// attachHook attaches at the priority, or right behind it if another tracer is
// there: the kernel takes one program for each priority (nf_hook_entries_grow,
// net/netfilter/core.c).
func attachHook(prog *ebpf.Program, hook link.NetfilterInetHook, priority int) (link.Link, error) {
	var err error
	for i := range maxTracers {
		var l link.Link
		l, err = link.AttachNetfilter(link.NetfilterOptions{
			Program:        prog,
			ProtocolFamily: link.NetfilterProtoIPv4,
			Hook:           hook,
			Priority:       int32(priority + i),
		})
		if !errors.Is(err, unix.EBUSY) {
			return l, err
		}
	}
	return nil, err
}

// haveTables reports whether the calling thread's namespace has tables of
// iptables or nftables.
func haveTables() (bool, error) {
	legacy, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if len(bytes.TrimSpace(legacy)) > 0 {
		return true, nil
	}
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_UNSPEC, Version: nl.NFNETLINK_V0})
	answers, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return false, nil //nolint:nilerr // a kernel without nftables has no tables of it
	}
	return len(answers) > 0, nil
}
