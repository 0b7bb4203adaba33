package initd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Config is what a node's first process is told on its standard input.
type Config struct {
	Hostname  string `json:"hostname"`
	MachineID string `json:"machineID"` // 32 hexadecimal digits
	Hosts     string `json:"hosts"`     // /etc/hosts, the first time
	Resolver  string `json:"resolver"`  // /etc/resolv.conf, the first time
	// Dir is the node's own on the machine: what its overlays hold, and its data.
	Dir string `json:"dir"`
	// Store is the lab's store on the machine, StoreAt where nodes see it.
	Store   string `json:"store,omitempty"`
	StoreAt string `json:"storeAt,omitempty"`
	// Socket is where the lab reaches this process, on the machine.
	Socket string `json:"socket"`
	Exe    string `json:"exe"` // this program
	// Cgroups are the node's own, one in each hierarchy.
	Cgroups []string `json:"cgroups,omitempty"`
	Env     []string `json:"env,omitempty"` // for all processes of the node
}

// innerSocket is the same, where the node's own programs find it.
const innerSocket = "/run/slipway/init.sock"

// Run is the first process of a node: it has to be started in namespaces of its
// own (net, mnt, uts, ipc, pid). It returns when it is told to end.
func Run(ctx context.Context, c Config) error {
	if os.Getpid() != 1 {
		return errors.New("this is the first process of a lab's node, and has to be started as that")
	}
	if err := bind(c.Exe); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	for _, g := range c.Cgroups {
		if err := os.WriteFile(filepath.Join(g, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	// Before the mounts: the path is the machine's.
	outer, err := listenUnix(c.Socket)
	if err != nil {
		return err
	}
	if err := c.mountAll(); err != nil {
		return err
	}
	inner, err := listenUnix(innerSocket)
	if err != nil {
		return err
	}
	n := &node{reaper: newReaper(), extra: c.Env}
	s := &server{node: n, manager: newManager(n), end: stop}
	// Requests live as long as their clients, also while the node ends.
	requests := context.WithoutCancel(ctx)
	go s.serve(requests, inner)
	go s.serve(requests, outer)
	if err := s.manager.boot(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "boot:", err) // the node is there all the same, to be repaired
	}
	<-ctx.Done()
	return s.manager.shutdown(context.WithoutCancel(ctx))
}

func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return l, os.Chmod(path, 0o600)
}
