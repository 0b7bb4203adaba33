package backup

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"
)

// manifestName is the archive's first file.
const manifestName = "backup.json"

// format is that of backup.json.
const format = 1

// The names of files in an archive.
const (
	ClusterFile  = "cluster.yaml"
	SnapshotFile = "snapshot.json"    // what was allocated: addresses, ranges
	EtcdData     = "etcd/snapshot.db" // as `etcdctl snapshot save` writes it
	PKIDir       = "pki/"             // the certificates' store
	ManifestsDir = "manifests/"       // that the cluster file names, by their number
	HostsDir     = "hosts/"           // NAME.tar: configuration as it was on the hosts
)

// Manifest is backup.json.
type Manifest struct {
	Format  int       `json:"format"`
	Cluster string    `json:"cluster"`
	TakenAt time.Time `json:"takenAt"`
	Etcd    Etcd      `json:"etcd"`
	// Manifests are the names that the cluster file has for its manifests.
	Manifests []string `json:"manifests,omitempty"`
	Files     []File   `json:"files"`
}

// Etcd says what the data is.
type Etcd struct {
	Member   string `json:"member"` // that it was taken of
	Version  string `json:"version"`
	Revision int64  `json:"revision"`
	Keys     int64  `json:"totalKey"`
	Hash     uint32 `json:"hash"`
}

// File is what an archive has of a file.
type File struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes
	Sum  string `json:"sum"`  // SHA-256 in hexadecimal
}

// parseManifest reads backup.json.
func parseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s: %w", manifestName, err)
	}
	if m.Format != format {
		return m, fmt.Errorf("%s has format %d; this program reads %d", manifestName, m.Format, format)
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		if f.Name == "" || path.IsAbs(f.Name) || path.Clean(f.Name) != f.Name || strings.HasPrefix(f.Name, "../") || f.Name == ".." || seen[f.Name] || f.Size < 0 {
			return m, fmt.Errorf("%s: %q is no name of a file in a backup", manifestName, f.Name)
		}
		seen[f.Name] = true
	}
	for _, want := range []string{ClusterFile, EtcdData} {
		if !seen[want] {
			return m, fmt.Errorf("%s names no %s", manifestName, want)
		}
	}
	return m, nil
}
