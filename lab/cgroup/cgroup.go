// Package cgroup makes and removes control groups, by the same path in every
// hierarchy that the machine has: those of version 1, each with controllers of
// its own, and the unified one of version 2.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Hierarchy is a mounted tree of control groups.
type Hierarchy struct {
	Mount   string
	Unified bool // version 2
}

// mountTable lists the mounts that this process sees (proc_pid_mountinfo(5)).
const mountTable = "/proc/self/mountinfo"

// Hierarchies lists those that are mounted, each once.
func Hierarchies() ([]Hierarchy, error) {
	table, err := os.ReadFile(mountTable)
	if err != nil {
		return nil, fmt.Errorf("list control group hierarchies: %w", err)
	}
	out := parse(string(table))
	if len(out) == 0 {
		return nil, errors.New("no control groups are mounted (cgroup2 or cgroup, below /sys/fs/cgroup)")
	}
	return out, nil
}

// parse picks the hierarchies out of a mount table.
func parse(table string) []Hierarchy {
	var out []Hierarchy
	seen := map[string]bool{} // device numbers
	for line := range strings.Lines(table) {
		before, after, ok := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(kind) < 1 || kind[0] != "cgroup" && kind[0] != "cgroup2" || seen[f[2]] {
			continue
		}
		seen[f[2]] = true
		out = append(out, Hierarchy{Mount: unescape.Replace(f[4]), Unified: kind[0] == "cgroup2"})
	}
	return out
}

// unescape undoes what the mount table writes for blanks in paths.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// OnlyUnified reports whether controllers are those of version 2: nothing of
// version 1 is mounted.
func OnlyUnified(hs []Hierarchy) bool {
	return !slices.ContainsFunc(hs, func(h Hierarchy) bool { return !h.Unified })
}

// Exists reports whether a group is in any of the hierarchies.
func Exists(hs []Hierarchy, group string) (bool, error) {
	for _, h := range hs {
		_, err := os.Lstat(filepath.Join(h.Mount, group))
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("look for control group %s: %w", group, err)
		}
	}
	return false, nil
}

// Make makes a group, and those that it is in, in every hierarchy and returns
// its directories. Where there is the unified hierarchy only, all controllers that
// its top hands down are handed on to the group's children, which therefore are
// where processes have to be.
func Make(hs []Hierarchy, group string) ([]string, error) {
	var out []string
	for _, h := range hs {
		dir := h.Mount
		for part := range strings.SplitSeq(group, "/") {
			parent := dir
			dir = filepath.Join(dir, part)
			if err := h.make(parent, dir, len(hs) == 1); err != nil {
				return nil, fmt.Errorf("make control group %s: %w", dir, err)
			}
		}
		out = append(out, dir)
	}
	return out, nil
}

func (h Hierarchy) make(parent, dir string, alone bool) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !h.Unified {
		return fillSets(parent, dir)
	}
	if !alone {
		return nil
	}
	for _, c := range words(filepath.Join(dir, "cgroup.controllers")) {
		if err := put(filepath.Join(dir, "cgroup.subtree_control"), "+"+c); err != nil {
			return err
		}
	}
	return nil
}

// fillSets gives a group of the cpuset controller its parent's processors and
// memory nodes: in version 1 it has none of itself, and takes no process then.
func fillSets(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // of another controller
		}
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(have)) != "" {
			continue
		}
		value, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if err := put(filepath.Join(dir, name), strings.TrimSpace(string(value))); err != nil {
			return err
		}
	}
	return nil
}

func put(path, value string) error { return os.WriteFile(path, []byte(value), 0) }

func words(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// Withheld lists the controllers that the top of the unified hierarchy has and
// does not hand down to its groups. Beside version 1, it is for naming alone.
func Withheld(hs []Hierarchy) []string {
	var out []string
	for _, h := range hs {
		if !OnlyUnified(hs) {
			break
		}
		given := words(filepath.Join(h.Mount, "cgroup.subtree_control"))
		for _, c := range words(filepath.Join(h.Mount, "cgroup.controllers")) {
			if !slices.Contains(given, c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// Hand switches the handing down of a controller at the top of the unified
// hierarchy on or off. Off fails with EBUSY while a group hands it on.
func Hand(hs []Hierarchy, controller string, on bool) error {
	sign := map[bool]string{true: "+", false: "-"}[on]
	for _, h := range hs {
		if !h.Unified {
			continue
		}
		if err := put(filepath.Join(h.Mount, "cgroup.subtree_control"), sign+controller); err != nil {
			return fmt.Errorf("%s%s at the top of the control groups: %w", sign, controller, err)
		}
	}
	return nil
}

// removeEvery is how often a group is looked at whose processes are still ending.
const removeEvery = 5 * time.Millisecond

// Remove removes a group and all below it from every hierarchy, the deepest
// first, waiting for processes that are about to end. It ends none.
func Remove(ctx context.Context, hs []Hierarchy, group string) error {
	for _, h := range hs {
		for {
			err := removeTree(filepath.Join(h.Mount, group))
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
				return fmt.Errorf("remove control group: %w", err)
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("remove control group: %w (processes are left in it: %v)", err, processes(filepath.Join(h.Mount, group)))
			case <-time.After(removeEvery):
			}
		}
	}
	return nil
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	// rmdir(2) alone: unlink(2), which os.Remove tries first, says EPERM.
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// processes lists those in a group and below it.
func processes(dir string) []string {
	var out []string
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			out = append(out, words(filepath.Join(path, "cgroup.procs"))...)
		}
		return nil
	})
	return out
}
