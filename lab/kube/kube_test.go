package kube

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"slipway/topology"
)

func config(id, server string) *clientcmdapi.Config {
	c := clientcmdapi.NewConfig()
	c.Clusters[id] = &clientcmdapi.Cluster{Server: server}
	c.AuthInfos[id] = &clientcmdapi.AuthInfo{Token: "of " + id}
	c.Contexts[id] = &clientcmdapi.Context{Cluster: id, AuthInfo: id}
	c.CurrentContext = id
	return c
}

// What is in a user's file already stays, and the file is the user's alone.
func TestMerge(t *testing.T) {
	dir := t.TempDir()
	real, path := filepath.Join(dir, "kept", "config"), filepath.Join(dir, "config")
	if err := Merge(real, config("mine", "https://mine:6443")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, path); err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{"https://127.0.0.1:1", "https://127.0.0.1:2"} { // the second time it is known
		if err := Merge(path, config("slipway-a", server)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	servers := map[string]string{}
	for id, c := range got.Clusters {
		servers[id] = c.Server
	}
	if d := cmp.Diff(map[string]string{"mine": "https://mine:6443", "slipway-a": "https://127.0.0.1:2"}, servers); d != "" || got.CurrentContext != "slipway-a" || got.AuthInfos["mine"].Token != "of mine" {
		t.Errorf("%s current %s", d, got.CurrentContext)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the user's link was replaced: %v, %v", info, err)
	}
	if info, err = os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestMergeLeavesWhatItCannotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	broken := []byte("apiVersion: v1\nclusters: [\n")
	if err := os.WriteFile(path, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Merge(path, config("a", "https://a")); err == nil {
		t.Error("merged into a broken file")
	}
	if left, err := os.ReadFile(path); err != nil || !bytes.Equal(left, broken) {
		t.Errorf("%q, %v", left, err)
	}
}

func TestInotifyUsed(t *testing.T) {
	before, err := inotifyUsed()
	if err != nil {
		t.Fatal(err)
	}
	const more = 3
	for range more {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			t.Skipf("this machine has no inotify instance left: %v", err)
		}
		defer syscall.Close(fd) //nolint:errcheck // of the test
	}
	own := 0
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == inotifyFD {
			own++
		}
	}
	// Others come and go on the machine: of ours all are counted.
	if after, err := inotifyUsed(); err != nil || own < more || after < own {
		t.Errorf("%d before, %d after, %d our own, %v", before, after, own, err)
	}
}

func TestInotifyNeed(t *testing.T) {
	c, diags := topology.Parse("c.yaml", []byte(`apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: c}
spec:
  components: full
  nodes:
    - {name: m1, roles: [control-plane, etcd]}
    - {name: n1, roles: [worker]}
    - {name: n2, roles: [worker]}
    - {name: lb1, roles: [load-balancer]}
  controlPlane: {loadBalancer: {mode: external, software: haproxy, vip: 192.168.233.100}}
`))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	// One master, and on the three nodes of the pod network a kube-proxy and a kubelet
	// with its runtime; the balancer watches no files.
	if got, want := InotifyNeed(c), inotifyMaster+3*inotifyProxy+3*inotifyKubelet; got != want {
		t.Errorf("full: %d, not %d", got, want)
	}
	c.Spec.Components = topology.ComponentsLight
	if got, want := InotifyNeed(c), inotifyMaster+3*inotifyProxy; got != want {
		t.Errorf("light: %d, not %d", got, want)
	}
}
