// Package machines holds the acceptance tests of nodes that are machines of their
// own: with a first process, a file system and control groups, for the real
// components to run in. No component is needed.
package machines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/datapath/bgp"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/daemon"
	"slipway/lab/initd"
	"slipway/lab/procs"
	"slipway/topology"
)

// upCommand makes the test binary an `up` that can be killed, of a file with a
// cluster; execCommand an `exec` in a node, given by lab and name.
const (
	upCommand   = "test-up"
	execCommand = "test-exec"
)

func TestMain(m *testing.M) {
	if code, ok := play(); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// play runs the test binary as the parts of a lab that it starts of itself.
func play() (code int, played bool) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if filepath.Base(os.Args[0]) == "systemctl" {
		return initd.Systemctl(ctx, os.Args[1:], os.Stdout, os.Stderr), true
	}
	if len(os.Args) < 2 {
		return 0, false
	}
	var err error
	switch os.Args[1] {
	case lab.DaemonCommand:
		name := os.Args[3]
		err = daemon.Run(ctx, daemon.Config{Lab: name, Socket: lab.SocketPath(name), Speaker: []string{os.Args[0], lab.SpeakerCommand}, Log: slog.New(slog.DiscardHandler)})
	case lab.SpeakerCommand:
		err = bgp.RunSpeaker(ctx, os.Stdin, os.Stdout)
	case lab.NodeCommand:
		var c initd.Config
		var raw []byte
		if raw, err = os.ReadFile(os.Args[2]); err == nil {
			if err = json.Unmarshal(raw, &c); err == nil {
				err = initd.Run(ctx, c)
			}
		}
	case upCommand:
		var text []byte
		if text, err = os.ReadFile(os.Args[2]); err == nil {
			c, diags := topology.Parse(os.Args[2], text)
			if err = diags.Err(); err == nil {
				_, err = lab.Up(ctx, lab.UpOptions{Cluster: c, Objects: &topology.Objects{}})
			}
		}
	case execCommand:
		err = lab.OpenMachine(os.Args[2], os.Args[3]).Exec(ctx, os.Args[4:])
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// patience bounds what is waited for, on a busy machine too.
const patience = time.Minute

var worlds int

// world is a state directory and a store of its own.
type world struct {
	t            *testing.T
	state, cache string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.NFT, testnet.Curl)
	worlds++
	w := &world{t: t, state: fmt.Sprintf("/run/slipway-mc-%d-%d", os.Getpid(), worlds), cache: t.TempDir()}
	t.Setenv(lab.StateDirEnv, w.state)
	t.Setenv("SLIPWAY_CACHE_DIR", w.cache)
	t.Cleanup(func() {
		names, err := lab.Names()
		if err != nil {
			t.Error(err)
		}
		for _, n := range names {
			if _, err := lab.Down(context.Background(), n); err != nil {
				t.Errorf("last clean-up: %v", err)
			}
		}
		if _, err := os.Stat(w.state); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there after the last lab went down", w.state)
		}
	})
	return w
}

// name makes one that no other lab on the machine has.
func (w *world) name() string { return fmt.Sprintf("mc%d-%d", os.Getpid(), worlds) }

func clusterText(name string, depth topology.Components, mode topology.ModeName) string {
	return fmt.Sprintf(`apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: %s}
spec:
  components: %s
  network: {mode: %s}
  nodes:
    - {name: master01, roles: [control-plane, etcd]}
    - {name: node01, roles: [worker]}
    - {name: node02, roles: [worker]}
`, name, depth, mode)
}

func cluster(t *testing.T, name string, depth topology.Components, mode topology.ModeName) *topology.Cluster {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", []byte(clusterText(name, depth, mode)))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) up(c *topology.Cluster) *lab.Result {
	w.t.Helper()
	res, err := lab.Up(w.t.Context(), lab.UpOptions{Cluster: c, Objects: &topology.Objects{}})
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

func (w *world) down(name string) *lab.DownResult {
	w.t.Helper()
	res, err := lab.Down(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// sh runs a script in a node.
func (w *world) sh(name, node, script string) string {
	w.t.Helper()
	r, err := lab.OpenMachine(name, node).Client().Run(w.t.Context(), []string{"sh", "-c", script}, nil)
	if err != nil {
		w.t.Fatalf("%s: %s: %v", node, script, err)
	}
	if r.Code != 0 {
		w.t.Fatalf("%s: %s: exit code %d\n%s%s", node, script, r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(string(r.Stdout))
}

// inits are the process ids of a node's first process.
func inits(t *testing.T, name, node string) []int {
	t.Helper()
	st, err := lab.ReadState(name)
	if err != nil {
		t.Fatal(err)
	}
	found, err := procs.With(procs.PartEnv + "=" + name + "/" + st.ID + "/node/" + node)
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, p := range found {
		if strings.Contains(p.Command, lab.NodeCommand) {
			out = append(out, p.PID)
		}
	}
	return out
}

// wantNothingLeft looks wherever a lab may have been.
func (w *world) wantNothingLeft(name string) {
	w.t.Helper()
	names, err := netns.Names("slipway-" + name + "-")
	if err != nil || len(names) > 0 {
		w.t.Errorf("namespaces left: %v (%v)", names, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[4]; strings.Contains(at, "slipway-"+name+"-") || strings.HasPrefix(at, w.state) || strings.HasPrefix(at, w.cache) {
			w.t.Errorf("mount %s is left", at)
		}
	}
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, path := range environs {
		if env, _ := os.ReadFile(path); strings.Contains("\x00"+string(env), "\x00"+procs.MarkEnv+"="+name+"/") {
			w.t.Errorf("process %s is left", filepath.Base(filepath.Dir(path)))
		}
	}
	for _, root := range []string{filepath.Join(w.state, name), "/sys/fs/cgroup"} {
		_ = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && (root != "/sys/fs/cgroup" || strings.Contains(path, "slipway-"+name)) {
				w.t.Errorf("%s is left", path)
			}
			return nil
		})
	}
}

// killable starts an `up` in a process of its own.
func (w *world) killable(text string) *exec.Cmd {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "cluster.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(exe, upCommand, file)
	cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	return cmd
}
