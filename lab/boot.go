package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/installer"
	"slipway/lab/cgroup"
	"slipway/lab/initd"
	"slipway/lab/journal"
	"slipway/lab/procs"
	"slipway/topology"
)

// NodeCommand is the hidden command under which this program is the first process
// of a node with real components. Its argument is a file with an [initd.Config].
const NodeCommand = "node-init"

const (
	// bootPatience is how long a node's first process may take to answer.
	bootPatience = 30 * time.Second
	// pingPatience is how long one that is up may take: a busy machine is no reason
	// to start its nodes again.
	pingPatience = 20 * time.Second
	// endPatience is how long nodes have to stop their services on the way down.
	endPatience = 3 * time.Second
)

// bootNodes starts the nodes' first processes; those that run are adopted.
func (b *box) bootNodes(ctx context.Context, p *plan, exe string, step func()) (datapath.Diff, error) {
	if err := checkStateDir(); err != nil {
		return nil, err
	}
	hs, err := b.prepareCgroups()
	if err != nil {
		return nil, err
	}
	st, err := openStore()
	if err != nil {
		return nil, err
	}
	diffs := make([]datapath.Diff, len(p.snapshot.Nodes))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i, n := range p.snapshot.Nodes {
		g.Go(func() error {
			defer step()
			up, err := b.runs(ctx, n.Name)
			if up || err != nil {
				return err
			}
			diffs[i] = datapath.Diff{{Node: n.Name, Action: datapath.Add, Object: "machine", Command: "slipway " + NodeCommand + " (in namespaces of its own)"}}
			if err := b.bootNode(ctx, hs, p.snapshot, n, st.dir, exe); err != nil {
				return fmt.Errorf("start node %s: %w", n.Name, err)
			}
			return nil
		})
	}
	err = g.Wait()
	return slices.Concat(diffs...), err
}

// checkStateDir refuses a state directory in which nodes' overlays cannot lie: one
// that they cover, and one on an overlay.
func checkStateDir() error {
	dir := StateDir()
	if initd.Covers(dir) {
		return fmt.Errorf("the nodes of a lab with real components have a file system of their own over that of %s: choose another %s, such as %s", dir, StateDirEnv, defaultStateDir)
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil && fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("%s is on an overlay, on which the nodes' own file systems cannot lie: choose another %s, on a disk or a tmpfs", dir, StateDirEnv)
	}
	return nil
}

// runs reports whether a node's first process answers, from the namespace that
// has the node's name now.
func (b *box) runs(ctx context.Context, node string) (bool, error) {
	m := OpenMachine(b.lab, node)
	ctx, cancel := context.WithTimeout(ctx, pingPatience)
	defer cancel()
	pid, err := m.client.Pid(ctx)
	if err != nil || m.client.Ping(ctx) != nil {
		return false, nil // whatever the reason: it is started anew
	}
	place, err := b.machinePlace(NSOfMachine(b.lab, node))
	if err != nil {
		return false, err
	}
	inode, err := place.ns.Inode()
	if err != nil {
		return false, err
	}
	return procs.In(pid, inode), nil
}

// nodePart is the part of the lab that a node's processes are of.
func nodePart(node string) string { return "node/" + node }

// bootNode starts a node's first process, which finds the file system that it had
// when it last ran, and waits until it answers.
func (b *box) bootNode(ctx context.Context, hs []cgroup.Hierarchy, s *topology.Snapshot, n topology.NodeState, storeDir, exe string) error {
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	f := filesOf(b.lab).node(n.Name)
	if len(f.socket()) > maxSocketPath {
		return &PathError{Path: f.socket()}
	}
	if _, err := procs.EndWith(ctx, b.partMark(nodePart(n.Name))); err != nil { // one that hangs
		return err
	}
	groups, err := b.enterCgroups(hs, n.Name)
	if err != nil {
		return err
	}
	config := initd.Config{
		Hostname: n.Name, MachineID: machineID(b.id, n.Name), Resolver: nodeResolver, Hosts: nodeHosts(s, n.Name),
		Dir: f.root(), Store: storeDir, StoreAt: installer.StoreDir, Socket: f.socket(), Exe: exe, Cgroups: groups,
		Env: []string{procs.MarkEnv + "=" + b.procMark(), b.partMark(nodePart(n.Name))},
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return err
	}
	if err := b.journal.Before(journal.Machine, n.Name); err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	if err := writeAtomic(f.config(), raw); err != nil {
		return err
	}
	return b.startInit(ctx, f, config)
}

// startInit starts the process in the node's network namespace and with other
// namespaces of its own, and waits until it answers.
func (b *box) startInit(ctx context.Context, f nodeFiles, config initd.Config) error {
	log, err := os.OpenFile(f.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	cmd := exec.Command(config.Exe, NodeCommand, f.config())
	cmd.Env = append(append(os.Environ(), config.Env...), StateDirEnv+"="+StateDir())
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID,
	}
	place, err := b.machinePlace(NSOfMachine(b.lab, config.Hostname))
	if err != nil {
		return err
	}
	if err := place.ns.Do(cmd.Start); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	client := initd.NewClient(f.socket())
	return waitFor(ctx, 5*time.Millisecond, func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("its first process ended at once: %w; its log (%s) says: %s", err, f.log(), lastLines(f.log()))
		default:
			return client.Ping(ctx) == nil, nil
		}
	})
}

// machineID is a node's own, and another one in the next lab (machine-id(5)).
func machineID(labID, node string) string {
	sum := sha256.Sum256([]byte(labID + "/" + node))
	return hex.EncodeToString(sum[:16])
}

// nodeResolver is a node's /etc/resolv.conf: a lab knows no DNS but the cluster's,
// which is the pods'.
const nodeResolver = "# no DNS outside the cluster\n"

// nodeHosts is a node's /etc/hosts: all nodes, itself among them.
func nodeHosts(s *topology.Snapshot, node string) string {
	var out strings.Builder
	out.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, n := range s.Nodes {
		fmt.Fprintf(&out, "%s\t%s\n", n.Address, n.Name)
	}
	return out.String()
}

// endNodes ends the nodes that a plan has no more (nil: all), politely at first:
// each stops its services, the last first. What does not end in time is killed.
func (b *box) endNodes(ctx context.Context, keep map[string]bool) ([]string, error) {
	var names []string
	for _, n := range b.journal.Live(journal.Machine) {
		if !keep[n] {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	polite, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	var g errgroup.Group
	for _, n := range names {
		g.Go(func() error {
			c := OpenMachine(b.lab, n).client
			// One that does not answer is killed below.
			if c.End(polite) == nil {
				_ = waitFor(polite, 5*time.Millisecond, func() (bool, error) { return errors.Is(c.Ping(polite), initd.ErrNotRunning), nil })
			}
			hard, cancel := context.WithTimeout(ctx, downPatience)
			defer cancel()
			_, err := procs.EndWith(hard, b.partMark(nodePart(n)))
			return err
		})
	}
	return names, g.Wait()
}

// removeNodes ends nodes that a plan has no more, and removes what they had.
func (b *box) removeNodes(ctx context.Context, p *plan) (datapath.Diff, error) {
	keep := map[string]bool{}
	if p.real() {
		for _, n := range p.snapshot.Nodes {
			keep[n.Name] = true
		}
	}
	gone, err := b.endNodes(ctx, keep)
	var diff datapath.Diff
	for _, n := range gone {
		if err != nil {
			break
		}
		diff = append(diff, datapath.Change{Node: n, Action: datapath.Remove, Object: "machine", Command: "end of its processes, removal of its files"})
		err = errors.Join(b.removeNodeCgroup(ctx, n), os.RemoveAll(filesOf(b.lab).node(n).dir))
		if err == nil {
			err = b.journal.Undone(journal.Machine, n)
		}
	}
	return diff, err
}
