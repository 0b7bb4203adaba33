package daytwo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"slipway/installer"
	"slipway/installer/backup"
	"slipway/installer/cluster"
	"slipway/installer/pki"
	"slipway/topology"
)

// Kept is what a backup says of a cluster.
type Kept struct {
	Cluster   *topology.Cluster
	Snapshot  *topology.Snapshot
	Manifests []cluster.Manifest
}

// ReadKept reads the cluster file of a backup, and what was allocated by it.
func ReadKept(a *backup.Archive) (*Kept, error) {
	files, err := a.Files("")
	if err != nil {
		return nil, err
	}
	k := &Kept{Snapshot: &topology.Snapshot{}}
	var wrong topology.Diagnostics
	if k.Cluster, wrong = topology.Parse(backup.ClusterFile, files[backup.ClusterFile]); len(wrong) > 0 {
		return nil, fmt.Errorf("the backup's cluster file: %w", wrong)
	}
	if err := json.Unmarshal(files[backup.SnapshotFile], k.Snapshot); err != nil {
		return nil, fmt.Errorf("the backup's %s: %w", backup.SnapshotFile, err)
	}
	for i, name := range a.Manifest.Manifests {
		k.Manifests = append(k.Manifests, cluster.Manifest{Name: name, Data: files[backup.ManifestsDir+strconv.Itoa(i)]})
	}
	return k, nil
}

// RestorePKI makes a store what it is in a backup. What was there before is kept
// beside it, where the path says; that is empty if nothing is another.
func RestorePKI(a *backup.Archive, store *pki.Store, now time.Time) (kept string, err error) {
	files, err := a.Files(backup.PKIDir)
	if err != nil {
		return "", err
	}
	if holds(store.Dir, files) {
		return "", nil
	}
	if err := os.MkdirAll(filepath.Dir(store.Dir), 0o700); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(store.Dir), filepath.Base(store.Dir)+".part")
	if err != nil {
		return "", fmt.Errorf("restore the certificates: %w", err)
	}
	defer os.RemoveAll(fresh) //nolint:errcheck // it has its name by then
	for name, data := range files {
		path := filepath.Join(fresh, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return "", err
		}
	}
	if _, err := os.Stat(store.Dir); err == nil {
		kept = store.Dir + ".before-" + now.UTC().Format("20060102T150405")
		if err := os.Rename(store.Dir, kept); err != nil {
			return "", fmt.Errorf("restore the certificates: %w", err)
		}
	}
	return kept, os.Rename(fresh, store.Dir)
}

// holds reports whether a directory has some files just so, whatever else it has.
func holds(dir string, files map[string][]byte) bool {
	for name, data := range files {
		have, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil || string(have) != string(data) {
			return false
		}
	}
	return true
}

// errOther reports a backup of another cluster.
var errOther = errors.New("the backup is of another cluster")

// Restore brings a backup's data back, on the cluster's hosts as they are or on
// others that have nothing: first everything is looked at and made ready beside
// what runs, then the API stops, the data are exchanged, and all is started again.
// The certificates' store is the backup's already ([RestorePKI]).
func (c *Cluster) Restore(ctx context.Context, a *backup.Archive) error {
	if name := c.Inputs.Cluster.Metadata.Name; name != a.Manifest.Cluster {
		return &RefusedError{fmt.Errorf("%w: of %s, not %s", errOther, a.Manifest.Cluster, name)}
	}
	if err := c.reachable(ctx, nodes(c.Inputs)); err != nil {
		return &RefusedError{err}
	}
	if _, err := c.Inputs.PKI.Ensure(cluster.Certificates(c.Inputs)); err != nil {
		return err
	}
	ready, err := cluster.Plan(c.Inputs, "00", "01", "02", "03")
	if err != nil {
		return err
	}
	if err := c.engine().Apply(ctx, ready); err != nil {
		return err
	}
	r := cluster.Restoration{ID: rand.Text(), File: scratch + "restore/snapshot.db"}
	members := cluster.Members(c.Inputs)
	defer c.forget(ctx, members, filepath.Dir(r.File))
	if err := c.spread(ctx, a, members, r.File); err != nil {
		return err
	}
	exchange, err := cluster.Restore(c.Inputs, r)
	if err != nil {
		return err
	}
	if err := c.engine().Apply(ctx, exchange); err != nil {
		return err
	}
	if err := c.start(ctx); err != nil {
		return err
	}
	return c.forgetStrangers(ctx)
}

// forgetStrangers has the API forget nodes that were in the cluster when it was
// kept, and are not in it now.
func (c *Cluster) forgetStrangers(ctx context.Context) error {
	if len(cluster.Masters(c.Inputs)) == 0 {
		return nil
	}
	out, err := run(ctx, c.Hosts[cluster.Masters(c.Inputs)[0].Name], cluster.ListNodes(c.Inputs))
	if err != nil {
		return fmt.Errorf("list the nodes that the API knows: %w", err)
	}
	var gone []string
	for _, name := range strings.Fields(string(out)) {
		if !slices.ContainsFunc(nodes(c.Inputs), func(n topology.NodeState) bool { return n.Name == name }) {
			gone = append(gone, name)
		}
	}
	return c.engine().Apply(ctx, installer.Plan{Phases: []installer.Phase{cluster.Forget(c.Inputs, gone)}})
}

// start goes through the phases from etcd on. Machines that are new are nodes that
// the API knows, and have to be let in.
func (c *Cluster) start(ctx context.Context) error {
	plan, err := cluster.Plan(c.Inputs)
	if err != nil {
		return err
	}
	for _, ph := range plan.Phases {
		if ph.ID < "04" {
			continue
		}
		if ph.ID == "08-nodes" && c.Inputs.Cluster.Spec.Components == topology.ComponentsFull {
			again, err := cluster.JoinAgain(c.Inputs)
			if err != nil {
				return err
			}
			if err := c.engine().Apply(ctx, installer.Plan{Phases: []installer.Phase{again}}); err != nil {
				return err
			}
		}
		if err := c.engine().Apply(ctx, installer.Plan{Phases: []installer.Phase{ph}}); err != nil {
			return err
		}
	}
	return nil
}

// spread puts the snapshot on all members, and compares it there.
func (c *Cluster) spread(ctx context.Context, a *backup.Archive, members []topology.NodeState, to string) error {
	file := a.File(backup.EtcdData)
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, n := range members {
		wg.Go(func() { errs[i] = put(ctx, c.Hosts[n.Name], a, file, to) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// roomFor is how many times a snapshot's size its restoration takes on a member:
// itself, unpacked, and the log that etcd begins (64 MB, server/storage/wal).
const roomFor = 2

// roomForLog is that log, in bytes, and some more.
const roomForLog = 128 << 20

func put(ctx context.Context, h installer.Host, a *backup.Archive, file backup.File, to string) error {
	if _, err := run(ctx, h, fmt.Sprintf(`rm -rf %[1]s
mkdir -p %[1]s
free=$(df -P -k %[1]s | awk 'NR == 2 {print $4}')
[ "$free" -ge %[2]d ] || { echo "%[1]s has $free KB of room and needs %[2]d" >&2; exit 1; }`, filepath.Dir(to), (roomFor*file.Size+roomForLog)>>10)); err != nil {
		return fmt.Errorf("send the snapshot: %w", err)
	}
	s := &sender{ctx: ctx, h: h, path: to}
	if err := errors.Join(a.Copy(backup.EtcdData, s), s.Close()); err != nil {
		return fmt.Errorf("send the snapshot to %s: %w", h.Name(), err)
	}
	if _, err := run(ctx, h, fmt.Sprintf("echo %s %s | sha256sum -c --status -", installer.Quote(file.Sum+" "), installer.Quote(to))); err != nil {
		return fmt.Errorf("the snapshot did not arrive whole: %w", err)
	}
	return nil
}

// forget removes what was only for a while.
func (c *Cluster) forget(ctx context.Context, members []topology.NodeState, dir string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sweepPatience)
	defer cancel()
	var wg sync.WaitGroup
	for _, n := range members {
		wg.Go(func() { _, _ = run(ctx, c.Hosts[n.Name], "rm -rf "+installer.Quote(dir)) }) // a later backup sweeps what stays
	}
	wg.Wait()
}
