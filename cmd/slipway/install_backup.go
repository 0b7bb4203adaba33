package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"slipway/installer/backup"
	"slipway/installer/cluster"
	"slipway/installer/daytwo"
	"slipway/installer/site"
)

func (a *app) backupCmd() *cobra.Command {
	var o siteFlags
	var path, phrase string
	var recipients []string
	c := &cobra.Command{
		Use: "backup [FILE]", Short: "Keep an installed cluster in one file",
		Long: `Keep what an installed cluster is made of in a file on this machine: the data of etcd, as
one of its members has it now and looked through there; all certificates and keys; the
cluster file; and the hosts' configuration. Everything has its checksum. The file is for
its owner alone to read, and there as a whole or not at all. It holds every secret of the
cluster: encrypt it with a passphrase or for age recipients (age-encryption.org).`,
		Example: `  slipway install backup -L demo
  slipway install backup prod.backup --site prod --recipient age1...
  slipway install backup --site prod --passphrase-file ~/.backup-phrase`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lock, err := backup.LockWith(phrase, recipients)
			if err != nil {
				return &coded{exitUsage, err}
			}
			h, err := a.holdInstalled(cmd.Context(), o, "backup")
			if err != nil {
				return err
			}
			defer func() { h.close() }()
			if path = h.name + "-" + time.Now().UTC().Format("20060102T150405Z") + ".backup"; len(args) > 0 {
				path = args[0]
			}
			m, err := h.Backup(cmd.Context(), path, lock)
			if err != nil {
				return err
			}
			return a.print(kept{path, len(lock.Recipients) > 0, m}, func(w io.Writer) error {
				said := ""
				if len(lock.Recipients) == 0 {
					said = "; it is not encrypted, and holds every key of the cluster"
				}
				_, err := fmt.Fprintf(w, "%s: %s, etcd's revision %d with %s, from %s%s\n", path, plural(len(m.Files), "file"), m.Etcd.Revision, plural(int(m.Etcd.Keys), "key"), m.Etcd.Member, said)
				return err
			})
		},
	}
	o.addInstalled(c, "cluster file of the cluster that is meant")
	f := c.Flags()
	f.StringVar(&phrase, "passphrase-file", "", "encrypt with the passphrase in the first line of this file")
	f.StringSliceVar(&recipients, "recipient", nil, "encrypt for this age recipient, age1...; may be repeated")
	return c
}

// kept is what `install backup` says as JSON.
type kept struct {
	Path      string           `json:"path"`
	Encrypted bool             `json:"encrypted"`
	Manifest  *backup.Manifest `json:"manifest"`
}

func (a *app) restoreCmd() *cobra.Command {
	var o siteFlags
	var phrase, identity string
	var check bool
	c := &cobra.Command{
		Use: "restore FILE", Short: "Bring a cluster back from a backup",
		Long: `Bring a cluster back as it was when it was kept, on the same hosts or on others that have
nothing. The backup is read through and compared with all of its checksums first. Then
every host gets what it lacks, and the data are unpacked beside those that are there;
only then the API stops, the data are exchanged, and everything is started again. What
was written since the backup is lost; the old data stay on the members, in
/var/lib/etcd/before-restore.

Without -f, the cluster file of the backup says which hosts; other hosts of the same
names are meant by a file with other addresses.`,
		Example: `  slipway install restore prod.backup --check            # only look whether it is whole
  slipway install restore prod.backup --identity-file key.txt
  slipway install restore prod.backup -f on-new-machines.yaml
  slipway install restore demo.backup -L demo`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := backup.KeyFrom(phrase, identity)
			if err != nil {
				return &coded{exitUsage, err}
			}
			archive, err := backup.Open(args[0], key)
			if err != nil {
				return err
			}
			if check {
				return a.print(archive.Manifest, func(w io.Writer) error {
					m := archive.Manifest
					_, err := fmt.Fprintf(w, "%s is whole: cluster %s at %s, etcd's revision %d\n", filepath.Base(args[0]), m.Cluster, m.TakenAt.Format(time.RFC3339), m.Etcd.Revision)
					return err
				})
			}
			return a.restore(cmd.Context(), archive, o)
		},
	}
	o.addInstalled(c, "cluster file instead of the backup's")
	f := c.Flags()
	f.StringVar(&phrase, "passphrase-file", "", "the passphrase is the first line of this file")
	f.StringVar(&identity, "identity-file", "", "a file with the age identity that it is encrypted for")
	f.BoolVar(&check, "check", false, "only read it through")
	return c
}

// restore brings a lab's cluster back, or that of real hosts.
func (a *app) restore(ctx context.Context, archive *backup.Archive, o siteFlags) error {
	began := time.Now()
	k, err := daytwo.ReadKept(archive)
	if err != nil {
		return err
	}
	file := k.Cluster
	if o.file != "" {
		if file, err = a.readCluster(o.file); err != nil {
			return err
		}
	}
	hold := a.holdLab
	if onHosts(file) == nil && a.lab == "" {
		hold = func(ctx context.Context) (*installedCluster, error) { return a.holdFresh(ctx, archive, k, o) }
	}
	h, err := hold(ctx)
	if err != nil {
		return err
	}
	defer func() { h.close() }()
	was, err := daytwo.RestorePKI(archive, h.Inputs.PKI, time.Now())
	if err != nil {
		return err
	}
	if err := h.Restore(ctx, archive); err != nil {
		return h.halfChanged(ctx, err)
	}
	if err := h.became(ctx, h.Inputs); err != nil {
		return h.halfChanged(ctx, err)
	}
	m := archive.Manifest
	return a.print(m, func(w io.Writer) error {
		if was != "" {
			fmt.Fprintf(w, "certificates that were here are kept in %s\n", was)
		}
		_, err := fmt.Fprintf(w, "cluster %s is what it was at %s, in %s\n", h.name, m.TakenAt.Format(time.RFC3339), ms(time.Since(began)))
		return err
	})
}

// holdFresh makes the site of a backup, whatever this machine knew of it.
func (a *app) holdFresh(ctx context.Context, archive *backup.Archive, k *daytwo.Kept, o siteFlags) (*installedCluster, error) {
	var s *site.Site
	var err error
	if o.file != "" {
		o.site = ""
		s, err = a.readSite(o)
	} else {
		s, err = site.Open(k.Cluster, k.Manifests)
	}
	if err != nil {
		return nil, err
	}
	s.Adopt(k.Snapshot)
	// Before the plan, which makes certificates that are missing.
	if _, err := daytwo.RestorePKI(archive, s.PKI(), time.Now()); err != nil {
		return nil, err
	}
	hosts, end, err := a.connect(ctx, s.Cluster, o.ssh)
	if err != nil {
		return nil, err
	}
	p, _, err := a.planSite(ctx, &onSite{s, hosts, end}, o)
	if err != nil {
		end()
		return nil, err
	}
	if err := s.Remember(p, false); err != nil { // hosts that are half restored are to be reset by name
		end()
		return nil, err
	}
	h := &installedCluster{name: s.Name, close: end}
	h.Inputs, h.Hosts, h.Tell = p.Inputs, hosts, a.tellItems(nil)
	h.became = func(context.Context, cluster.Inputs) error { return s.Remember(p, true) }
	return h, nil
}
