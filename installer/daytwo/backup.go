package daytwo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/installer"
	"slipway/installer/backup"
	"slipway/installer/cluster"
)

// scratch is how directories are called in which hosts keep what is on its way.
const scratch = "/var/lib/slipway/daytwo-"

// sweepPatience bounds how long it may take to remove what was only for a while.
const sweepPatience = 30 * time.Second

// Backup keeps the cluster in a file on this machine: etcd's data as one of its
// members has it, the certificates, the cluster file, and the hosts' configuration.
// Hosts that cannot be reached are left out, as long as a member of etcd is not
// the only one of them; they are named in the error if nothing else is wrong.
func (c *Cluster) Backup(ctx context.Context, path string, l backup.Lock) (*backup.Manifest, error) {
	m := backup.Manifest{Cluster: c.Inputs.Cluster.Metadata.Name, TakenAt: time.Now().UTC().Truncate(time.Second)}
	sources, err := c.own()
	if err != nil {
		return nil, err
	}
	for i, f := range c.Inputs.Manifests {
		m.Manifests = append(m.Manifests, f.Name)
		sources = append(sources, backup.Bytes(backup.ManifestsDir+strconv.Itoa(i), f.Data))
	}
	configured, err := c.configuration(ctx)
	if err != nil {
		return nil, err
	}
	data, done, err := c.snapshot(ctx, &m)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := backup.Write(path, m, append(append(sources, configured...), data), l); err != nil {
		return nil, err
	}
	for _, s := range append(append(sources, configured...), data) {
		m.Files = append(m.Files, s.File)
	}
	return &m, nil
}

// own is what this machine has: cluster file, what was allocated, certificates.
func (c *Cluster) own() ([]backup.Source, error) {
	file, err := c.Inputs.Cluster.Marshal()
	if err != nil {
		return nil, err
	}
	snap, err := json.Marshal(c.Inputs.Snapshot)
	if err != nil {
		return nil, err
	}
	sources := []backup.Source{backup.Bytes(backup.ClusterFile, file), backup.Bytes(backup.SnapshotFile, snap)}
	dir := c.Inputs.PKI.Dir
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(d.Name(), ".part") {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		sources = append(sources, backup.Bytes(backup.PKIDir+filepath.ToSlash(name), data))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the certificates: %w", err)
	}
	return sources, nil
}

// configuration is what the installer's files are on each host, secrets left out:
// those are this machine's already.
func (c *Cluster) configuration(ctx context.Context) ([]backup.Source, error) {
	plan, err := cluster.Plan(c.Inputs)
	if err != nil {
		return nil, err
	}
	var out []backup.Source
	for _, n := range nodes(c.Inputs) {
		h := c.Hosts[n.Name]
		if h == nil {
			continue
		}
		var list []string
		for _, p := range shown(plan, n.Name) {
			list = append(list, installer.Quote(strings.TrimPrefix(p, "/")))
		}
		tar, err := run(ctx, h, fmt.Sprintf("cd /\nset -- \nfor f in %s; do [ ! -e \"$f\" ] || set -- \"$@\" \"$f\"; done\ntar -cf - \"$@\" </dev/null", strings.Join(list, " ")))
		if err != nil {
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
		out = append(out, backup.Bytes(backup.HostsDir+n.Name+".tar", tar))
	}
	return out, nil
}

// shown are the files of a host's that a plan has and that are no secrets.
func shown(p installer.Plan, host string) (out []string) {
	for it := range p.Items() {
		if s, ok := it.Item.(installer.Shower); ok && it.Host == host {
			if path, _, secret := s.Shown(); !secret {
				out = append(out, path)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// snapshot has a member write its data into a file, looks whether that is whole,
// and returns it. done removes it from the host.
func (c *Cluster) snapshot(ctx context.Context, m *backup.Manifest) (s backup.Source, done func(), err error) {
	var failed error
	for _, n := range cluster.Members(c.Inputs) {
		h := c.Hosts[n.Name]
		if h == nil {
			continue
		}
		s, done, err := snapshotOf(ctx, h, m)
		if err == nil {
			return s, done, nil
		}
		failed = errors.Join(failed, err)
	}
	if failed == nil {
		failed = errNoHost
	}
	return s, nil, fmt.Errorf("no member of etcd gave its data: %w", failed)
}

func snapshotOf(ctx context.Context, h installer.Host, m *backup.Manifest) (backup.Source, func(), error) {
	// What a run that was killed left there is of no use to anybody.
	out, err := run(ctx, h, fmt.Sprintf(`mkdir -p %[1]s
find %[1]s -maxdepth 1 -name '%[2]s*' -mmin +60 -exec rm -rf {} +
dir=$(mktemp -d %[3]sXXXXXX)
trap '[ $? = 0 ] || rm -rf "$dir"' EXIT
%[4]s
printf '%%s\n' "$dir"
stat -c %%s "$dir/snapshot.db"
sha256sum <"$dir/snapshot.db" | cut -c-64
%[5]s`, filepath.Dir(scratch), filepath.Base(scratch), scratch, cluster.SaveSnapshot("$dir/snapshot.db"), cluster.SnapshotStatus("$dir/snapshot.db")))
	if err != nil {
		return backup.Source{}, nil, err
	}
	lines := strings.SplitN(strings.TrimSpace(string(out)), "\n", 4)
	if len(lines) != 4 {
		return backup.Source{}, nil, fmt.Errorf("%s: %q is not what a snapshot's status is", h.Name(), out)
	}
	done := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sweepPatience)
		defer cancel()
		_, _ = run(ctx, h, "rm -rf "+installer.Quote(lines[0])) // the next backup sweeps what stays
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err == nil {
		err = json.Unmarshal([]byte(lines[3]), &m.Etcd)
	}
	if err != nil {
		done()
		return backup.Source{}, nil, fmt.Errorf("%s: status of the snapshot: %w", h.Name(), err)
	}
	m.Etcd.Member = h.Name()
	f := backup.File{Name: backup.EtcdData, Size: size, Sum: lines[2]}
	return backup.Source{File: f, Copy: func(w io.Writer) error { return fetch(ctx, h, lines[0]+"/snapshot.db", size, w) }}, done, nil
}
