package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

func TestSandboxes(t *testing.T) {
	root := t.TempDir()
	bundle := func(id, kind, uid, path string, age time.Duration) {
		t.Helper()
		dir := filepath.Join(root, tasksDir, id)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "config.json")
		text := fmt.Sprintf(`{"ociVersion":"1.2.0","annotations":{"io.kubernetes.cri.container-type":%q,"io.kubernetes.cri.sandbox-uid":%q},"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":%q}]}}`, kind, uid, path)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	bundle("1", "sandbox", "a", "/var/run/netns/cni-1", 0)
	bundle("2", "container", "a", "/proc/7/ns/net", 0)
	bundle("3", "sandbox", "b", "/run/netns/cni-old", time.Hour)
	bundle("4", "sandbox", "b", "/run/netns/cni-new", 0)
	bundle("5", "sandbox", "b", "/run/netns/cni-older", 2*time.Hour)
	bundle("6", "sandbox", "host", "", 0) // in its node's network
	got, err := sandboxesBelow(root)
	if err != nil {
		t.Fatal(err)
	}
	want := map[types.UID]string{"a": filepath.Join(root, "run/netns/cni-1"), "b": filepath.Join(root, "run/netns/cni-new")}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
