package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"slipway/internal/netns"
)

// purpose is what a probe is for.
type purpose string

const (
	readiness purpose = "Readiness"
	startup   purpose = "Startup"
	liveness  purpose = "Liveness"
)

// probeKey names one probe of one pod at one address.
type probeKey struct {
	uid       types.UID
	container string
	purpose   purpose
	address   netip.Addr
}

// target is what a probe connects to, from the pod's node as a kubelet does.
type target struct {
	pod       *corev1.Pod
	container corev1.Container
	probe     corev1.Probe
	netns     string // of the node
}

// probes are those of all pods that are plugged in.
type probes struct {
	changed func()
	failed  func(pod *corev1.Pod, p purpose, err error)

	mu      sync.Mutex
	results map[probeKey]bool
	cancel  map[probeKey]context.CancelFunc
	running sync.WaitGroup
}

func newProbes(changed func(), failed func(*corev1.Pod, purpose, error)) *probes {
	return &probes{changed: changed, failed: failed, results: map[probeKey]bool{}, cancel: map[probeKey]context.CancelFunc{}}
}

// possible reports whether a probe can be made of a pod in which nothing runs:
// commands cannot, and succeed unasked.
func possible(p *corev1.Probe) bool { return p != nil && (p.HTTPGet != nil || p.TCPSocket != nil) }

// targets adds the probes of a pod.
func targets(to map[probeKey]target, pod *corev1.Pod, address netip.Addr, netns string) {
	for _, c := range pod.Spec.Containers {
		for of, p := range map[purpose]*corev1.Probe{readiness: c.ReadinessProbe, startup: c.StartupProbe, liveness: c.LivenessProbe} {
			if possible(p) {
				to[probeKey{pod.UID, c.Name, of, address}] = target{pod, c, *p, netns}
			}
		}
	}
}

// set makes those the probes that are made, until ctx ends.
func (p *probes) set(ctx context.Context, want map[probeKey]target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, stop := range p.cancel {
		if _, stays := want[k]; !stays {
			stop()
			delete(p.cancel, k)
			delete(p.results, k)
		}
	}
	for k, t := range want {
		if p.cancel[k] != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		p.cancel[k] = stop
		p.running.Go(func() { p.run(ctx, k, t) })
	}
}

// holds reports what a container's probe last found, true if it has none.
func (p *probes) holds(want map[probeKey]target, k probeKey) bool {
	if _, probed := want[k]; !probed {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.results[k]
}

// run makes one probe with the pod's settings (core/v1 Probe).
func (p *probes) run(ctx context.Context, k probeKey, t target) {
	every, patience := seconds(t.probe.PeriodSeconds, 10), seconds(t.probe.TimeoutSeconds, 1)
	good, bad := max(t.probe.SuccessThreshold, 1), max(t.probe.FailureThreshold, 1)
	var inRow int32
	last := error(nil)
	for wait := time.Duration(t.probe.InitialDelaySeconds) * time.Second; ; wait = every {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		err := t.try(ctx, k.address, patience)
		if ctx.Err() != nil {
			return
		}
		if (err == nil) != (last == nil) {
			inRow = 0
		}
		inRow++
		if last = err; err != nil {
			p.failed(t.pod, k.purpose, err)
		}
		if err == nil && inRow >= good || err != nil && inRow >= bad {
			p.found(ctx, k, err == nil)
		}
	}
}

func seconds(n, otherwise int32) time.Duration {
	if n <= 0 {
		n = otherwise
	}
	return time.Duration(n) * time.Second
}

// found notes a result, unless the probe is not wanted any more.
func (p *probes) found(ctx context.Context, k probeKey, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if had := p.results[k]; ctx.Err() == nil && had != ok {
		p.results[k] = ok
		p.changed()
	}
}

// try makes the probe once.
func (t target) try(ctx context.Context, pod netip.Addr, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if g := t.probe.HTTPGet; g != nil {
		return t.get(ctx, pod, g)
	}
	port, err := t.port(t.probe.TCPSocket.Port)
	if err != nil {
		return err
	}
	host := t.probe.TCPSocket.Host
	if host == "" {
		host = pod.String()
	}
	c, err := t.dial(ctx, net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return c.Close()
}

// get asks over HTTP; any answer from 200 to 399 is good (k8s.io/kubernetes
// pkg/probe/http, DoHTTPProbe).
func (t target) get(ctx context.Context, pod netip.Addr, g *corev1.HTTPGetAction) error {
	port, err := t.port(g.Port)
	if err != nil {
		return err
	}
	host, scheme := g.Host, "http"
	if host == "" {
		host = pod.String()
	}
	if g.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, strconv.Itoa(port)), nil)
	if err != nil {
		return err
	}
	if req.URL, err = req.URL.Parse("/" + trimSlash(g.Path)); err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/slipway-light")
	for _, h := range g.HTTPHeaders {
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
		}
		req.Header.Add(h.Name, h.Value)
	}
	client := http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // kubelets do not verify either
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return t.dial(ctx, address) },
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", resp.StatusCode)
	}
	return nil
}

func trimSlash(path string) string {
	for len(path) > 0 && path[0] == '/' {
		path = path[1:]
	}
	return path
}

// port finds a port by its number or by its name among the container's.
func (t target) port(p intstr.IntOrString) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, c := range t.container.Ports {
		if c.Name == p.StrVal {
			return int(c.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("container %s has no port named %q", t.container.Name, p.StrVal)
}

// errNoAddress refuses a probe of a name: it would be looked up on this machine.
var errNoAddress = errors.New("a light node probes addresses, not names")

// dial connects from the node.
func (t target) dial(ctx context.Context, address string) (c net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("probe %s: %w", address, errNoAddress)
	}
	ns, err := netns.Open(t.netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // the connection stays in the namespace
	err = ns.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	return c, err
}
