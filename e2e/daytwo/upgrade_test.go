package daytwo

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/installer"
	"slipway/installer/daytwo"
	"slipway/internal/digest"
)

// upgrades replaces etcd by another build of it, member by member, and stops at
// the first member that does not start with a third.
func (b *bed) upgrades(t *testing.T) {
	bad := b.With(map[string]installer.Blob{"etcd": program(t, []byte("#!/bin/sh\necho this one does not run >&2\nexit 1\n"))})
	err := b.Upgrade(t.Context(), bad)
	var stopped *daytwo.StoppedError
	var step *installer.StepError
	if !errors.As(err, &stopped) || !errors.As(err, &step) || step.Host != "master01" || step.Item != "unit etcd.service" || !strings.Contains(step.Stderr, "this one does not run") {
		t.Fatalf("%v", err)
	}
	var left []string
	for _, p := range stopped.Left {
		left = append(left, p.Host+" "+p.Path)
	}
	if got := strings.Join(left, ", "); got != "etcd02 /usr/local/bin/etcd, etcd03 /usr/local/bin/etcd" {
		t.Errorf("as before: %s", got)
	}
	b.etcdctl("etcd02", "put meanwhile written") // two of three carry on

	old, err := os.ReadFile(b.Cluster.Inputs.Programs["etcd"].Path)
	if err != nil {
		t.Fatal(err)
	}
	to := b.With(map[string]installer.Blob{"etcd": program(t, append(old, "another build"...))})
	if err := b.Upgrade(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	b.Cluster.Inputs = to
	for name, n := range b.Nodes {
		if got := b.etcdctl(name, "get meanwhile --print-value-only"); got != "written" {
			t.Errorf("%s has %q", name, got)
		}
		if out, _ := n.Sh("readlink /proc/$(systemctl show etcd -p MainPID --value)/exe"); !strings.Contains(out, to.Programs["etcd"].Sum) {
			t.Errorf("%s runs %s", name, out)
		}
	}
	b.Unchanged(t, b.plan())
}

func program(t *testing.T, content []byte) installer.Blob {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	sum, size, err := digest.File(path)
	if err != nil {
		t.Fatal(err)
	}
	return installer.Blob{Sum: sum, Size: size, Path: path}
}
