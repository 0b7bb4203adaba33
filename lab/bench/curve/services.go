package curve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/topology"
)

var services = &kind{
	name: "services", title: "kube-proxy's rules for more and more services", unit: "services", param: "services",
	lines: backendNames(), points: []int{1, 10, 100, 1_000, 10_000}, low: 1, high: 20_000,
	line: func(l string) error {
		if !slices.Contains(backendNames(), l) {
			return &OptionError{fmt.Sprintf("backend %q is not one of %s", l, strings.Join(backendNames(), ", "))}
		}
		return nil
	},
	control: "iptables-legacy", main: []string{loaded, load.ConnectP50}, open: openServices, patience: time.Minute,
	notes: []string{
		fmt.Sprintf("Each round makes three namespaces, client, node and server, loads the rules for all services (of %d endpoints each) into the node's empty kernel with the backend's own program, connects through them, and adds one endpoint to the last service. load and change are until that program ended; what the rules are was computed before.", serviceEndpoints),
		"The first load is of iptables-restore without --noflush, which kube-proxy always gives: on an empty kernel the result is the same, and iptables-nft 1.8.9 takes minutes with it from some thousand services on. nft's time grows with the square of the services, as the kernel walks a list of all sets for each anonymous map that chooses an endpoint.",
		"A change hands over only the chains, and elements of maps, that differ. What a backend's program reads of the kernel before it changes it is in its time.",
		"Connections are to the ClusterIP of the last service: the last rule of its chain, where rules are a list. connect-p50 and connect-p99 are of the handshake alone, p50 and p99 of connect, request, answer, close.",
	},
}

// serviceEndpoints are behind each service.
const serviceEndpoints = 3

// What the made services and their pods listen on.
const (
	servicePort = 80
	podPort     = 8080
)

// cluster is a snapshot with many services, and the same with one endpoint more
// behind the last.
type cluster struct {
	before, after topology.Snapshot
	node          string
	service       netip.AddrPort // the last one
	endpoints     []netip.Addr   // of every service
}

// newCluster decides everything about a cluster with the services, which all
// have the same pods behind them: chains and rules are as many as with pods of
// their own.
func newCluster(services int) (*cluster, error) {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web:1, ports: [{containerPort: %d}]}]}
`, serviceEndpoints, podPort)
	for i := range services {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Service\nmetadata: {name: svc-%05d}\nspec: {selector: {app: web}, ports: [{port: %d, targetPort: %d}]}\n", i, servicePort, podPort)
	}
	objects, _, err := topology.LoadManifests("services", []byte(b.String()))
	if err != nil {
		return nil, err
	}
	c, diags := topology.Parse("services", fmt.Appendf(nil, "apiVersion: %s\nkind: %s\nmetadata: {name: bench}\n", topology.APIVersion, topology.KindCluster))
	if err := diags.Err(); err != nil {
		return nil, err
	}
	s, err := lab.Preview(c, objects)
	if err != nil {
		return nil, err
	}
	return withOneMore(s, fmt.Sprintf("svc-%05d", services-1))
}

// withOneMore adds an endpoint to the service of that name.
func withOneMore(s *topology.Snapshot, name string) (*cluster, error) {
	out := &cluster{before: *s, after: *s, node: s.Nodes[0].Name}
	at := slices.IndexFunc(s.Services, func(v topology.Service) bool { return v.Name == name })
	if at < 0 {
		return nil, fmt.Errorf("service %s is not in the snapshot", name)
	}
	v := s.Services[at]
	out.service = addrs(v.ClusterIP, servicePort)
	last := v.Ports[0].Endpoints
	for _, e := range last {
		out.endpoints = append(out.endpoints, e.Address)
	}
	more := last[len(last)-1]
	more.Address, more.Pod = extraEndpoint, ""
	port := v.Ports[0]
	port.Endpoints = append(slices.Clone(last), more)
	v.Ports = append([]topology.ServicePort{port}, v.Ports[1:]...)
	out.after.Services = slices.Clone(s.Services)
	out.after.Services[at] = v
	return out, nil
}

func openServices(ctx context.Context, o *Options) (*curve, error) {
	c := &curve{close: func(context.Context) error { return nil }}
	var lines []string
	for _, line := range o.Lines {
		if reason := backends[line].missing(); reason != "" {
			c.notes = append(c.notes, fmt.Sprintf("%s was left out: %s.", line, reason))
			continue
		}
		lines = append(lines, line)
	}
	for _, n := range o.Points {
		o.Progress.Phase(fmt.Sprintf("services: plan %d", n), 0)
		if err := ctx.Err(); err != nil {
			return c, err
		}
		made, err := newCluster(n)
		if err != nil {
			return c, err
		}
		for _, line := range lines {
			b := backends[line]
			texts, err := b.plan(made)
			if err != nil {
				return c, err
			}
			c.cells = append(c.cells, &cell{line: line, point: n, measure: func(ctx context.Context) ([]reading, error) {
				return made.measure(ctx, o, b, texts)
			}})
		}
	}
	return c, nonempty(c)
}

// measure loads the rules into a kernel, connects, and makes one change.
func (c *cluster) measure(ctx context.Context, o *Options, b backend, texts change) (out []reading, err error) {
	bed, err := newProxyBed(ctx, c.endpoints)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bed.close(ctx)) }()
	f := load.Figures{rules: float64(texts.rules)}
	if f[loaded], f[loadCPU], err = timed(func() error { return b.load(ctx, bed, b.args, texts.all) }); err != nil {
		return nil, err
	}
	got, err := load.Native{}.Run(ctx, load.Job{
		Workload: load.TCPConnects, Client: bed.client, Server: bed.server, To: c.service, Port: podPort, Duration: o.Duration, WarmUp: o.WarmUp,
	})
	if err != nil {
		return nil, err
	}
	if f[changed], f[changeCPU], err = timed(func() error { return b.load(ctx, bed, b.more, texts.more) }); err != nil {
		return nil, err
	}
	crr := only(got, load.ConnectP50, load.ConnectP99, load.P50, load.P99, load.Rate)
	return []reading{{workload: "rules", figures: f}, {load.TCPConnects, "other-node", "clusterip", bed.nature, crr}}, nil
}

// timed is how long something takes, and the CPU time of this process and of
// those that it waits for, in seconds.
func timed(fn func() error) (wall, cpu float64, err error) {
	before, err := cpuTime()
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	if err := fn(); err != nil {
		return 0, 0, err
	}
	took := time.Since(begun)
	after, err := cpuTime()
	return took.Seconds(), (after - before).Seconds(), err
}

func cpuTime() (sum time.Duration, err error) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum, nil
}
