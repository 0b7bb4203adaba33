package skbtrace

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"slipway/datapath/bpf"
)

// Drops counts the packets that the kernel drops, in all namespaces, until it is
// closed or the process ends. It costs nothing but for a packet that is dropped.
type Drops struct {
	objects dropsObjects
	link    link.Link
}

var dropsSpec = sync.OnceValues(loadDrops)

// CountDrops begins to count. Where the kernel cannot, the error is a
// *bpf.UnsupportedError: it gives reasons since Linux 5.17.
func CountDrops() (*Drops, error) {
	d := &Drops{}
	spec, err := dropsSpec()
	if err != nil {
		return nil, fmt.Errorf("count drops: %w", err)
	}
	if err := spec.Copy().LoadAndAssign(&d.objects, nil); err != nil {
		return nil, &bpf.UnsupportedError{Feature: "drops by reason", Err: fmt.Errorf("load: %w", err)}
	}
	d.link, err = link.AttachTracing(link.TracingOptions{Program: d.objects.OnDrop})
	if err != nil {
		err = fmt.Errorf("attach %s: %w", d.objects.OnDrop, err)
		return nil, &bpf.UnsupportedError{Feature: "drops by reason", Err: errors.Join(err, d.objects.Close())}
	}
	return d, nil
}

// Uncounted is the name under which [Drops.Read] has, for inode zero, packets
// that there was no room to count.
const Uncounted = "UNCOUNTED"

// Read says how many packets were dropped since it began, by the inode of the
// namespace and the kernel's reason, without SKB_DROP_REASON_. A packet that
// would have been cut into several counts as these. Not all are losses: what
// waits in the queue of a socket that is closed is dropped, too (QUEUE_PURGE), and
// Linux 6.1 has no reason for the end of some that were taken (NOT_SPECIFIED).
func (d *Drops) Read() (map[uint64]map[string]int64, error) {
	out := map[uint64]map[string]int64{}
	add := func(inode uint64, reason string, n uint64) {
		if out[inode] == nil {
			out[inode] = map[string]int64{}
		}
		out[inode][reason] += int64(n)
	}
	var kind dropsKind
	var perCPU []uint64
	all := d.objects.Counts.Iterate()
	for all.Next(&kind, &perCPU) {
		for _, n := range perCPU {
			add(uint64(kind.Inode), reasonName(kind.Reason), n)
		}
	}
	err := all.Err()
	if errors.Is(err, ebpf.ErrIterationAborted) {
		err = errors.New("the counts changed while they were read")
	}
	var lost uint64
	if err == nil {
		err = d.objects.Uncounted.Get(&lost)
	}
	if err != nil {
		return nil, fmt.Errorf("read counts of drops: %w", err)
	}
	if lost > 0 {
		add(0, Uncounted, lost)
	}
	return out, nil
}

// Close stops counting.
func (d *Drops) Close() error { return errors.Join(d.link.Close(), d.objects.Close()) }
