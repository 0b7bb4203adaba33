package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	"slipway/lab/daemon"
	"slipway/lab/procs"
)

// downPatience bounds the end of the lab's processes.
const downPatience = 20 * time.Second

// DownResult says what a `down` found and removed.
type DownResult struct {
	Lab        string          `json:"lab"`
	Namespaces int             `json:"namespaces"`
	Ended      []procs.Process `json:"ended"`
	// Holding are processes that are not the lab's but stand in its namespaces;
	// they are left alone, and keep those namespaces alive until they end.
	Holding []procs.Process `json:"holding,omitempty"`
	Took    time.Duration   `json:"tookNs"`
}

// Down takes a lab down, however far it had come up and whatever crashed, and
// removes nothing that does not carry its mark. It can be repeated.
func Down(ctx context.Context, name string) (res *DownResult, err error) {
	start := time.Now()
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filesOf(name).dir); errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("lab %q: %w", name, ErrNoLab), Sweep(ctx))
	}
	b, _, err := openBox(ctx, name)
	if err != nil {
		return nil, err
	}
	res, err = b.down(ctx)
	if e := b.close(); e != nil && !errors.Is(e, os.ErrClosed) {
		err = errors.Join(err, e)
	}
	if res != nil {
		res.Took = time.Since(start)
	}
	return res, err
}

func (b *box) down(ctx context.Context) (*DownResult, error) {
	res := &DownResult{Lab: b.lab}
	names, err := b.ownNamespaces()
	if err != nil {
		return res, err
	}
	inodes := inodesOf(names)
	if res.Ended, err = b.endProcesses(ctx); err != nil {
		return res, err
	}
	if err := b.removeCgroups(ctx); err != nil {
		return res, err
	}
	if res.Holding, err = procs.Inside(inodes); err != nil {
		return res, err
	}
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		if err := b.deleteNamespace(n); err != nil {
			return res, err
		}
		res.Namespaces++
	}
	return res, b.removeFiles(ctx)
}

// endProcesses asks the nodes and the daemon to end, then ends whatever carries
// the mark.
func (b *box) endProcesses(ctx context.Context) ([]procs.Process, error) {
	found, err := procs.Marked(b.procMark())
	if err != nil {
		return nil, err
	}
	marked := append([]procs.Process{}, found...) // an empty list in JSON, not null
	if _, err := b.endNodes(ctx, nil); err != nil {
		return marked, err
	}
	polite, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	// A daemon that does not answer is ended below like everything else.
	_ = daemon.NewClient(filesOf(b.lab).socket()).Shutdown(polite)
	hard, cancel := context.WithTimeout(ctx, downPatience)
	defer cancel()
	_, err = procs.EndMarked(hard, b.procMark())
	return marked, err
}

// ownNamespaces lists the names that are the lab's: those it announced, and
// those that carry its mark although the journal was lost. A name that was
// announced but is somebody else's by now is left out.
func (b *box) ownNamespaces() ([]string, error) {
	names, err := netns.Names(nsPrefix + b.lab + "-")
	if err != nil {
		return nil, err
	}
	var own []string
	for _, n := range names {
		ours, err := b.isOurs(n)
		if err != nil {
			return nil, err
		}
		if ours {
			own = append(own, n)
		}
	}
	slices.SortFunc(own, podsFirst)
	return own, nil
}

// podsFirst orders pods (whose names hold a dot) before machines, so that a
// `down` that is cut off leaves nodes rather than orphaned pods.
func podsFirst(a, b string) int {
	x, y := isPod(a), isPod(b)
	switch {
	case x == y:
		return strings.Compare(a, b)
	case x:
		return -1
	default:
		return 1
	}
}

func inodesOf(names []string) map[uint64]bool {
	out := map[uint64]bool{}
	for _, n := range names {
		if ns, err := netns.Open(n); err == nil {
			if i, err := ns.Inode(); err == nil {
				out[i] = true
			}
			_ = ns.Close()
		}
	}
	return out
}

// removeFiles removes the lab's directory, the journal and the lock last, so
// that a `down` that is cut off can be repeated.
func (b *box) removeFiles(ctx context.Context) error {
	f := filesOf(b.lab)
	if err := checkNoMount(f.dir); err != nil {
		return fmt.Errorf("remove files of lab %s: %w", b.lab, err)
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("remove files of lab %s: %w", b.lab, err)
	}
	last := []string{filepath.Base(f.id()), filepath.Base(f.journal()), filepath.Base(f.lock())}
	for _, e := range entries {
		if !slices.Contains(last, e.Name()) {
			if err := os.RemoveAll(filepath.Join(f.dir, e.Name())); err != nil {
				return fmt.Errorf("remove files of lab %s: %w", b.lab, err)
			}
		}
	}
	for _, n := range last {
		if err := os.Remove(filepath.Join(f.dir, n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove files of lab %s: %w", b.lab, err)
		}
	}
	// Not empty: another command has begun the lab anew.
	if err := os.Remove(f.dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove files of lab %s: %w", b.lab, err)
	}
	return releaseNetNSDir(ctx)
}

// checkNoMount refuses to remove a directory in which something is mounted, whose
// files would go with it. The nodes' mounts are in namespaces of their own.
func checkNoMount(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		// proc_pid_mountinfo(5): the fifth field is the mount point.
		if f := strings.Fields(line); len(f) > 4 && (f[4] == real || strings.HasPrefix(f[4], real+"/")) {
			return fmt.Errorf("something is mounted at %s: unmount it first", f[4])
		}
	}
	return nil
}
