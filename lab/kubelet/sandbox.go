package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// tasksDir is where containerd keeps the OCI bundles of what runs, in a node
// (containerd core/runtime/v2, bundle.go; namespace k8s.io of its CRI plugin).
const tasksDir = "run/containerd/io.containerd.runtime.v2.task/k8s.io"

// bundle is the part of an OCI configuration that says whose sandbox it is
// (containerd internal/cri/annotations).
type bundle struct {
	Annotations struct {
		Type string `json:"io.kubernetes.cri.container-type"`
		UID  string `json:"io.kubernetes.cri.sandbox-uid"`
	} `json:"annotations"`
	Linux struct {
		Namespaces []struct{ Type, Path string } `json:"namespaces"`
	} `json:"linux"`
}

// pider knows the process that a node's file system is seen through.
type pider interface {
	Pid(ctx context.Context) (int, error)
}

// sandboxesIn finds the network namespaces of a node's pods, as paths on this
// machine, by the pods' UIDs.
func sandboxesIn(ctx context.Context, node pider) (map[types.UID]string, error) {
	pid, err := node.Pid(ctx)
	if err != nil {
		return nil, err
	}
	return sandboxesBelow(fmt.Sprintf("/proc/%d/root", pid))
}

func sandboxesBelow(root string) (map[types.UID]string, error) {
	configs, err := filepath.Glob(filepath.Join(root, tasksDir, "*", "config.json"))
	if err != nil {
		return nil, err
	}
	out, since := map[types.UID]string{}, map[types.UID]time.Time{}
	for _, file := range configs {
		uid, path, made, err := sandbox(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return out, fmt.Errorf("read %s: %w", file, err)
		}
		if uid == "" || path == "" || made.Before(since[uid]) {
			continue
		}
		// /var/run is an absolute link, which would lead out of the node.
		if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
			path = "/run/" + rest
		}
		out[uid], since[uid] = filepath.Join(root, path), made
	}
	return out, nil
}

// sandbox reads one bundle; uid is empty if it is no sandbox's. Of a sandbox that
// was made again two may be there for a while: the later one counts.
func sandbox(file string) (uid types.UID, path string, made time.Time, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", "", made, err
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", "", made, err
	}
	var b bundle
	if err := json.Unmarshal(raw, &b); err != nil {
		return "", "", made, err
	}
	if b.Annotations.Type != "sandbox" {
		return "", "", made, nil
	}
	for _, ns := range b.Linux.Namespaces {
		if ns.Type == "network" {
			path = ns.Path
		}
	}
	return types.UID(b.Annotations.UID), path, info.ModTime(), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
