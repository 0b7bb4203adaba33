package verify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Runner runs the echo program as a client, at the place that it is of, with the
// given stdin, and returns what it printed.
type Runner func(ctx context.Context, stdin []byte) ([]byte, error)

// Options say what cluster to look at and from where.
type Options struct {
	Kubectl Kubectl
	// Image has the echo program as /echo; the nodes have it, or can pull it.
	Image string
	// Node is how to run in a node itself; nil: in pods with the node's network.
	Node func(node string) Runner
	// Pod is how to run in a pod; nil: by kubectl exec.
	Pod func(key, node string) Runner
	// Outside is a machine that is none of the cluster's; nil: there is none.
	Outside Runner
	// DNS is the service address of the cluster's DNS, which nodes and, with Pod,
	// pods ask; empty: that of the service kube-system/kube-dns.
	DNS string
	// Domain is the cluster's; empty: cluster.local.
	Domain string
	// Patience is how long what fails is tried again; 15 s if zero.
	Patience time.Duration
	// Tell is told what is being done; it may be nil.
	Tell func(string)
}

// The bounds of a verification, which is to end within a minute.
const (
	patience     = 15 * time.Second
	attempt      = 3 * time.Second
	again        = 200 * time.Millisecond
	readyWithin  = 30 * time.Second
	leaveWithin  = time.Minute
	largeAnswer  = 32 << 10 // bytes: more than any MTU
	atOnce       = 16       // places that are asked at the same time
	servedPort   = 8080
	leftAfter    = 10 * time.Minute // then a namespace's maker is dead
	namePrefix   = "slipway-verify-"
	markLabel    = "slipway/verify"
	defaultZone  = "cluster.local"
	echoInImage  = "/echo"
	probeCommand = "-slipway-probe"
)

// Argv is how to run the echo program, which lies at path, as a client.
func Argv(path string) []string { return []string{path, probeCommand} }

// ErrLeft reports that the verification's namespace could not be removed.
var ErrLeft = errors.New("left behind")

// Run does it. A report comes with every error that did not keep all of it from
// being done; what it made is gone when it returns, also when ctx ended.
func Run(ctx context.Context, o Options) (r *Report, err error) {
	begun := time.Now()
	if o.Patience == 0 {
		o.Patience = patience
	}
	if o.Domain == "" {
		o.Domain = defaultZone
	}
	v := &verification{Options: o, namespace: namePrefix + strings.ToLower(rand.Text()[:6])}
	v.sweep(ctx)
	nodes, err := v.nodes(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := v.clear(context.WithoutCancel(ctx)); cerr != nil {
			err = errors.Join(err, cerr)
		}
		if r != nil {
			r.Took = time.Since(begun)
		}
	}()
	v.tell(fmt.Sprintf("starting servers and clients on %d nodes", len(nodes)))
	w, err := v.arrive(ctx, nodes)
	if err != nil {
		return nil, err
	}
	v.tell("asking")
	r = v.ask(ctx, w)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	v.tell("removing what was made")
	return r, nil
}

// verification is one on its way.
type verification struct {
	Options
	namespace string
	made      bool
}

func (v *verification) tell(what string) {
	if v.Tell != nil {
		v.Tell(what)
	}
}

// ask lets all places ask at once, and reports.
func (v *verification) ask(ctx context.Context, w *world) *Report {
	r := &Report{Namespace: v.namespace}
	for _, n := range w.nodes {
		r.Nodes = append(r.Nodes, n.name)
	}
	places := v.places(w)
	room := make(chan struct{}, atOnce)
	end := time.Now().Add(v.Patience)
	var all sync.WaitGroup
	for i := range places {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			places[i].ask(ctx, v, max(time.Until(end), attempt))
		})
	}
	all.Wait()
	for _, p := range places {
		r.Cells = append(r.Cells, p.cells...)
	}
	r.OK = r.ok()
	return r
}
