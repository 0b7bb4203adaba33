package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// StateDirEnv overrides where labs keep their state.
const StateDirEnv = "SLIPWAY_STATE_DIR"

// defaultStateDir is on a tmpfs on every systemd machine: a lab does not
// outlive a reboot, and neither does its state.
const defaultStateDir = "/run/slipway"

// ExternalName is the machine outside the cluster that every lab has on its
// first segment: the client of NodePorts.
const ExternalName = "external"

const (
	fabricName = "fabric"
	nsPrefix   = "slipway-"
)

// StateDir is the directory that holds one directory per lab.
func StateDir() string {
	d := os.Getenv(StateDirEnv)
	if d == "" {
		return defaultStateDir
	}
	if abs, err := filepath.Abs(d); err == nil { // the daemon works in another directory
		return abs
	}
	return d
}

// NSOfMachine is the namespace name of a node, a router, the external client
// or the fabric.
func NSOfMachine(lab, machine string) string { return nsPrefix + lab + "-" + machine }

// NSOfPod is the namespace name of a pod given as "namespace/name". The dot
// keeps pods and machines apart: machine names hold none.
func NSOfPod(lab, key string) string {
	return nsPrefix + lab + "-" + strings.Replace(key, "/", ".", 1)
}

// NameError says that a lab cannot have a name. Names become directories and
// parts of file names, so this is checked before any is looked for.
type NameError struct{ Name string }

// Error says what a name is made of.
func (e *NameError) Error() string {
	return fmt.Sprintf("lab name %q is no DNS label: lower-case letters, digits and - in between, at most %d", e.Name, maxLabel)
}

// maxLabel is the longest DNS label in characters (RFC 1035 §2.3.4).
const maxLabel = 63

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// CheckName returns a [NameError] unless a lab can have the name.
func CheckName(name string) error {
	if len(name) > maxLabel || !dnsLabel.MatchString(name) {
		return &NameError{Name: name}
	}
	return nil
}

// isPod tells a pod's namespace from a machine's.
func isPod(ns string) bool { return strings.Contains(ns, ".") }

// mark is what the alias of lo says in each namespace of a lab.
func mark(lab, id string) string { return "slipway/" + lab + "/" + id }

// files of one lab.
type files struct{ dir string }

func filesOf(lab string) files { return files{filepath.Join(StateDir(), lab)} }

// SocketPath is where a lab's daemon listens.
func SocketPath(lab string) string { return filesOf(lab).socket() }

// lockName is the first file that a lab's directory has and the last one that
// it loses, and tells it from directories of somebody else.
const lockName = "slipway.lock"

func (f files) journal() string            { return filepath.Join(f.dir, "journal") }
func (f files) state() string              { return filepath.Join(f.dir, "state.json") }
func (f files) lock() string               { return filepath.Join(f.dir, lockName) }
func (f files) socket() string             { return filepath.Join(f.dir, "daemon.sock") }
func (f files) log() string                { return filepath.Join(f.dir, "daemon.log") }
func (f files) id() string                 { return filepath.Join(f.dir, "id") }
func (f files) cniCache() string           { return filepath.Join(f.dir, "cni") }
func (f files) xtables(node string) string { return filepath.Join(f.dir, "xtables-"+node) }
func (f files) rules(node string) string   { return filepath.Join(f.dir, "rules-"+node) }
func (f files) node(name string) nodeFiles { return nodeFiles{filepath.Join(f.dir, "nodes", name)} }
func (f files) pki() string                { return filepath.Join(f.dir, "pki") }

// nodeFiles are those of one node with real components.
type nodeFiles struct{ dir string }

func (f nodeFiles) socket() string { return filepath.Join(f.dir, "init.sock") }
func (f nodeFiles) config() string { return filepath.Join(f.dir, "init.json") }
func (f nodeFiles) log() string    { return filepath.Join(f.dir, "init.log") }
func (f nodeFiles) root() string   { return filepath.Join(f.dir, "root") }

// Dir is the directory of a lab.
func Dir(lab string) string { return filesOf(lab).dir }

// PKIDir is where a lab's certificates are.
func PKIDir(lab string) string { return filesOf(lab).pki() }

// maxIfName is IFNAMSIZ less the terminating zero (linux include/uapi/linux/if.h).
const maxIfName = 15

// ifName joins parts with a dash, or hashes them when that is too long for an
// interface name.
func ifName(parts ...string) string {
	name := strings.Join(parts, "-")
	if len(name) <= maxIfName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return parts[0][:min(len(parts[0]), 4)] + hex.EncodeToString(sum[:5])
}
