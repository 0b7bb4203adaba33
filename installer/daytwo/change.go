package daytwo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/topology"
)

// DrainPatience is how long a node's pods may take to go, unless told otherwise.
const DrainPatience = 5 * time.Minute

// ChangeOptions say how a cluster becomes another.
type ChangeOptions struct {
	// Drain is how long the pods of one node that leaves may take to go;
	// [DrainPatience] if zero.
	Drain time.Duration
	// Force: neither a node that cannot be reached or drained, nor etcd's majority,
	// holds up nodes that leave.
	Force bool
}

// Result is what became of a cluster.
type Result struct {
	cluster.Changed
	// Undone is what was taken back, by host: all of it on a host that left, what
	// is not wanted any more on others.
	Undone map[string][]string `json:"undone,omitempty"`
	// Left are hosts that left and could not be reached: what was installed there
	// is there still.
	Left []string `json:"left,omitempty"`
}

// Change makes the cluster what other inputs say: nodes that are new join, one at
// a time, the others follow, also one at a time, and those that are not in it any
// more are drained, leave etcd and the API, and get back what they were before.
// It can be run again and goes on where it stopped.
func (c *Cluster) Change(ctx context.Context, to cluster.Inputs, o ChangeOptions) (*Result, error) {
	res := &Result{Undone: map[string][]string{}}
	var err error
	if res.Changed, err = c.may(ctx, to, o); err != nil {
		return nil, &RefusedError{err}
	}
	for _, in := range []cluster.Inputs{c.Inputs, to} {
		if _, err := in.PKI.Ensure(cluster.Certificates(in)); err != nil {
			return nil, err
		}
	}
	before, err := cluster.Plan(c.Inputs, c.phases(c.Inputs)...)
	if err != nil {
		return nil, err
	}
	after, err := cluster.Plan(to, c.phases(to)...)
	if err != nil {
		return nil, err
	}
	if err := c.drain(ctx, to, res.Former, o); err != nil {
		return res, err
	}
	if err := c.quiet(ctx, to, o); err != nil {
		return res, err
	}
	if err := c.roll(ctx, to, after); err != nil {
		return res, err
	}
	if err := c.leave(ctx, to, res, o); err != nil {
		return res, err
	}
	if err := c.retire(ctx, to, before, after, res); err != nil {
		return res, err
	}
	if err := c.deregister(ctx, to, res.Former); err != nil {
		return res, err
	}
	return res, c.dropCertificates(to)
}

// may says what the change is, or why it cannot be made.
func (c *Cluster) may(ctx context.Context, to cluster.Inputs, o ChangeOptions) (cluster.Changed, error) {
	ch, err := cluster.Changes(c.Inputs, to)
	if err != nil {
		return ch, err
	}
	if err := cluster.OnlyNodes(c.Inputs, to); err != nil {
		return ch, err
	}
	needed := nodes(to)
	if !o.Force {
		needed = append(needed, slices.DeleteFunc(nodes(c.Inputs), func(n topology.NodeState) bool { return !slices.Contains(ch.Removed, n.Name) })...)
	}
	if err := c.reachable(ctx, needed); err != nil {
		return ch, err
	}
	if o.Force {
		return ch, nil
	}
	return ch, c.majority(ctx, to, ch.Leaving)
}

// phases are those of a cluster: all, or etcd's alone where there is no control
// plane.
func (c *Cluster) phases(in cluster.Inputs) []string {
	if len(cluster.Masters(in)) > 0 {
		return nil
	}
	return []string{"00", "01", "03", "04"}
}

// majority asks the members who lives.
func (c *Cluster) majority(ctx context.Context, to cluster.Inputs, leaving []topology.NodeState) error {
	if len(leaving) == 0 {
		return nil
	}
	alive := map[string]bool{}
	for _, m := range cluster.Members(to) { // who joins lives
		alive[m.Name] = true
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range cluster.Members(c.Inputs) {
		wg.Go(func() {
			well := false
			if h := c.Hosts[m.Name]; h != nil {
				_, err := run(ctx, h, cluster.MemberHealth())
				well = err == nil
			}
			mu.Lock()
			defer mu.Unlock()
			alive[m.Name] = well
		})
	}
	wg.Wait()
	return cluster.Quorum(to, leaving, alive)
}

func (c *Cluster) drain(ctx context.Context, to cluster.Inputs, names []string, o ChangeOptions) error {
	if len(names) == 0 || len(cluster.Masters(to)) == 0 {
		return nil
	}
	if o.Drain == 0 {
		o.Drain = DrainPatience
	}
	err := c.engine().Apply(ctx, installer.Plan{Phases: []installer.Phase{cluster.Drain(to, names, o.Drain)}})
	if err != nil && o.Force && ctx.Err() == nil {
		return nil
	}
	return err
}

// quiet has what must not be there twice stop on nodes that leave. Of those that
// cannot be reached, which takes force, nobody knows what they do.
func (c *Cluster) quiet(ctx context.Context, to cluster.Inputs, o ChangeOptions) error {
	ph := cluster.Quiet(c.Inputs, to)
	for i, st := range ph.Steps {
		ph.Steps[i].Work = slices.DeleteFunc(st.Work, func(w installer.Work) bool { return c.Hosts[w.Host] == nil && o.Force })
	}
	err := c.engine().Apply(ctx, installer.Plan{Phases: []installer.Phase{ph}})
	if err != nil && o.Force && ctx.Err() == nil {
		return nil
	}
	return err
}

// leave takes nodes that are not in the cluster any more out of etcd, and undoes what
// is on them.
func (c *Cluster) leave(ctx context.Context, to cluster.Inputs, res *Result, o ChangeOptions) error {
	if len(res.Leaving) > 0 {
		by, err := c.staying(ctx, to)
		if err == nil {
			err = c.engine().Apply(ctx, installer.Plan{Phases: []installer.Phase{cluster.LeaveEtcd(by, res.Leaving)}})
		}
		if err != nil && (!o.Force || ctx.Err() != nil) {
			return err
		}
	}
	for _, name := range res.Removed {
		h := c.Hosts[name]
		err := errNoHost
		if h != nil {
			res.Undone[name], err = installer.Undo(ctx, h)
		}
		var step *installer.StepError
		switch {
		case err == nil:
		case !o.Force || ctx.Err() != nil || errors.As(err, &step):
			return fmt.Errorf("node %s: %w", name, err)
		default:
			res.Left = append(res.Left, name)
		}
	}
	return nil
}

// deregister removes nodes from the API, when nothing on them can tell it of them any more.
func (c *Cluster) deregister(ctx context.Context, to cluster.Inputs, names []string) error {
	if len(names) == 0 || len(cluster.Masters(to)) == 0 {
		return nil
	}
	return c.engine().Apply(ctx, installer.Plan{Phases: []installer.Phase{cluster.Forget(to, names)}})
}

// staying is a member that was there before, stays, and is well.
func (c *Cluster) staying(ctx context.Context, to cluster.Inputs) (string, error) {
	err := errNoHost
	for _, m := range cluster.Members(to) {
		h := c.Hosts[m.Name]
		if h == nil {
			continue
		}
		if _, err = run(ctx, h, cluster.MemberHealth()); err == nil {
			return m.Name, nil
		}
	}
	return "", fmt.Errorf("no member of etcd that stays is well: %w", err)
}

// retire takes back, on hosts that stay, what the cluster was and no longer is.
func (c *Cluster) retire(ctx context.Context, to cluster.Inputs, before, after installer.Plan, res *Result) error {
	had, has := ids(before), ids(after)
	for _, n := range nodes(to) {
		var gone []string
		for id := range had[n.Name] {
			if !has[n.Name][id] {
				gone = append(gone, id)
			}
		}
		slices.Sort(gone)
		done, err := installer.Retire(ctx, c.Hosts[n.Name], gone)
		if len(done) > 0 {
			res.Undone[n.Name] = done
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ids are the items of a plan, by host.
func ids(p installer.Plan) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for it := range p.Items() {
		if out[it.Host] == nil {
			out[it.Host] = map[string]bool{}
		}
		out[it.Host][it.Item.ID()] = true
	}
	return out
}

// dropCertificates removes those that nobody needs any more from the store.
func (c *Cluster) dropCertificates(to cluster.Inputs) error {
	needed := map[string]bool{}
	for _, q := range cluster.Certificates(to) {
		needed[q.Key()] = true
	}
	for _, q := range cluster.Certificates(c.Inputs) {
		if needed[q.Key()] {
			continue
		}
		base := filepath.Join(to.PKI.Dir, filepath.FromSlash(q.Key()))
		for _, f := range []string{base + ".key", base + ".crt"} {
			if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove a certificate of a node that left: %w", err)
			}
		}
		for dir := filepath.Dir(base); dir != filepath.Clean(to.PKI.Dir); dir = filepath.Dir(dir) {
			if os.Remove(dir) != nil { // others are in it
				break
			}
		}
	}
	return nil
}
