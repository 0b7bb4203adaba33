package verify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// place is somewhere from where everything is asked, with the cells of the matrix
// that it answers.
type place struct {
	run     Runner
	dns     string // to ask, where the place's own resolver is not the cluster's
	trouble string // why nothing can be asked from here
	cells   []Cell
	hosts   []target // what each cell asks
}

// target is a server by one of its addresses.
type target struct {
	host    string
	port    int
	pod     string
	trouble string // why there is nobody to answer
}

// questions and outcomes are what the echo program reads and prints, see
// components/echo/probe.go.
type questions struct {
	Patience time.Duration `json:"patienceNs"`
	Attempt  time.Duration `json:"attemptNs"`
	Every    time.Duration `json:"everyNs"`
	DNS      string        `json:"dns,omitempty"`
	Large    int64         `json:"large"`
	Cells    []question    `json:"cells"`
}

type question struct {
	ID   int    `json:"id"`
	Host string `json:"host"`
	Port int    `json:"port"`
	Pod  string `json:"pod"`
}

type outcome struct {
	ID     int           `json:"id"`
	OK     bool          `json:"ok"`
	Reason string        `json:"reason"`
	Source string        `json:"source"`
	Tries  int           `json:"tries"`
	Took   time.Duration `json:"tookNs"`
}

// ask runs the client and fills in the cells.
func (p *place) ask(ctx context.Context, v *verification, patience time.Duration) {
	q := questions{Patience: patience, Attempt: attempt, Every: again, DNS: p.dns, Large: largeAnswer}
	for i, t := range p.hosts {
		switch {
		case p.trouble != "":
			p.cells[i].Reason = p.trouble
		case t.trouble != "":
			p.cells[i].Reason = t.trouble
		default:
			q.Cells = append(q.Cells, question{ID: i, Host: t.host, Port: t.port, Pod: t.pod})
		}
	}
	if len(q.Cells) == 0 {
		return
	}
	stdin, err := json.Marshal(q)
	var out []byte
	if err == nil {
		ctx, cancel := context.WithTimeoutCause(ctx, patience+attempt+startWithin, errSlow)
		defer cancel()
		out, err = p.run(ctx, stdin)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	p.read(out)
	for _, c := range q.Cells {
		if x := &p.cells[c.ID]; !x.OK && x.Reason == "" {
			x.Reason = "nothing could be asked from here"
			if err != nil {
				x.Reason += ": " + oneLine(err)
			}
		}
	}
}

// startWithin is what a busy machine may need to begin a command.
const startWithin = 20 * time.Second

var errSlow = errors.New("it took too long")

// read takes in what the client printed.
func (p *place) read(out []byte) {
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var o outcome
		if json.Unmarshal(s.Bytes(), &o) != nil || o.ID < 0 || o.ID >= len(p.cells) {
			continue // not a line of the client's
		}
		c := &p.cells[o.ID]
		c.OK, c.Reason, c.Source, c.Tries, c.Took = o.OK, o.Reason, o.Source, o.Tries, o.Took
	}
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

// places are those that ask: the pods' clients, the nodes, and outside.
func (v *verification) places(w *world) []*place {
	var out []*place
	for i, n := range w.nodes {
		out = append(out, v.fromPod(w, i, n), v.fromNode(w, i, n))
	}
	if v.Outside != nil {
		out = append(out, v.fromOutside(w))
	}
	return out
}

func (v *verification) fromPod(w *world, i int, n node) *place {
	key := v.namespace + "/" + clientName(i)
	p := &place{trouble: first(n.trouble, n.client.trouble)}
	if v.Pod != nil {
		p.run, p.dns = v.Pod(key, n.name), w.dns
	} else {
		p.run = v.exec(clientName(i))
	}
	v.aimAll(p, w, i, FromPod)
	return p
}

func (v *verification) fromNode(w *world, i int, n node) *place {
	p := &place{trouble: n.trouble, dns: w.dns}
	if v.Node != nil {
		p.run = v.Node(n.name)
	} else {
		p.run, p.trouble = v.exec(onNodeName(i)), first(n.trouble, n.onNode.trouble)
	}
	if p.run == nil {
		p.trouble = first(p.trouble, "nothing runs on this node that could ask")
	}
	v.aimAll(p, w, i, FromNode)
	return p
}

// exec runs in a pod by kubectl.
func (v *verification) exec(pod string) Runner {
	return func(ctx context.Context, stdin []byte) ([]byte, error) {
		return v.Kubectl(ctx, stdin, append([]string{"exec", "-i", "-n", v.namespace, pod, "--"}, Argv(echoInImage)...)...)
	}
}

// aimAll lets a place on node i ask for all servers that it has to reach.
func (v *verification) aimAll(p *place, w *world, i int, from Source) {
	for _, j := range others(i, len(w.nodes)) {
		n := w.nodes[j]
		trouble := first(n.trouble, n.server.trouble)
		port := n.nodePort
		for _, t := range []struct {
			to   Target
			host string
			port int
		}{
			{ToPod, n.server.address, servedPort},
			{ToClusterIP, n.clusterIP, servedPort},
			{ToHeadless, strings.Join([]string{serverName(j), headless, v.namespace, "svc", v.Domain}, "."), servedPort},
			{ToNodePort, n.address.String(), port},
			{ToName, strings.Join([]string{serverName(j), v.namespace, "svc", v.Domain}, "."), servedPort},
		} {
			p.aim(Cell{From: from, FromNode: w.nodes[i].name, To: t.to, Node: n.name, Same: i == j}, target{t.host, t.port, serverName(j), trouble})
		}
	}
}

// fromOutside asks for what outsiders may: node ports, of servers on the node that
// is asked and on others.
func (v *verification) fromOutside(w *world) *place {
	p := &place{run: v.Outside}
	for i, via := range w.nodes {
		for _, j := range others(i, len(w.nodes)) {
			n := w.nodes[j]
			p.aim(Cell{From: FromOutside, To: ToNodePort, Via: via.name, Node: n.name, Same: i == j},
				target{via.address.String(), n.nodePort, serverName(j), first(via.trouble, n.trouble, n.server.trouble)})
		}
	}
	return p
}

func (p *place) aim(c Cell, t target) {
	p.cells, p.hosts = append(p.cells, c), append(p.hosts, t)
}

// everyPair is up to how many nodes each asks all others.
const everyPair = 8

// others are the nodes whose servers node i asks for, itself first: all, or where
// those are many, itself and the next, second, fourth … after it, so that each
// node is asked by as many as it asks.
func others(i, nodes int) []int {
	out := []int{i}
	step := func(d int) int { return d + 1 }
	if nodes > everyPair {
		step = func(d int) int { return d * 2 }
	}
	for d := 1; d < nodes; d = step(d) {
		out = append(out, (i+d)%nodes)
	}
	return out
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

// String names a cell: "pod on node01 → ClusterIP of a pod on node02".
func (c Cell) String() string {
	from := string(c.From)
	if c.FromNode != "" {
		from += " on " + c.FromNode
		if c.From == FromNode {
			from = "node " + c.FromNode
		}
	}
	to := fmt.Sprintf("%s of a pod on %s", c.To, c.Node)
	if c.To == ToPod {
		to = "pod on " + c.Node
	}
	if c.Via != "" {
		to += " by " + c.Via
	}
	return from + " → " + to
}
