package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/netns"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/topology"
)

// modeLab is the lab of one mode with the two pods that talk.
type modeLab struct {
	mode           topology.ModeName
	name           string
	mtu            int
	client, server load.Place
	service        netip.AddrPort // a ClusterIP that leads to the server
}

const (
	benchPort = 5300 // of the service and of the server's own listeners
	// benchObjects are two pods on two nodes, and a service in front of one.
	benchObjects = `apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node01, containers: [{name: c, image: client:1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec: {nodeName: node02, containers: [{name: c, image: server:1}]}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{port: 5300, targetPort: 5300}]}
`
	benchCluster = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: bench}
spec:
  nodes: [{name: node01, roles: [control-plane, worker]}, {name: node02, roles: [worker]}]
  manifests: [objects.yaml]
`
)

// up brings all labs up.
func (b *modes) up(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "slipway-bench")
	if err != nil {
		return fmt.Errorf("make a directory for the cluster file: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "cluster.yaml")
	for path, text := range map[string]string{file: benchCluster, filepath.Join(dir, "objects.yaml"): benchObjects} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write cluster file: %w", err)
		}
	}
	for _, m := range b.Modes {
		l := &modeLab{mode: m, name: fmt.Sprintf("bench-%d-%s", os.Getpid(), m)}
		if err := refuseTaken(l.name); err != nil {
			return err
		}
		b.labs = append(b.labs, l)
		b.Progress.Phase("lab of "+string(m), 0)
		if _, err := (program{b.Exe}).up(ctx, file, l.name, m); err != nil {
			return err
		}
		if err := l.open(); err != nil {
			return err
		}
	}
	return nil
}

// open finds the pods and the service.
func (l *modeLab) open() error {
	st, err := lab.ReadState(l.name)
	if err != nil {
		return err
	}
	l.mtu = int(st.Snapshot.Network.MTU)
	for _, p := range st.Snapshot.Pods {
		to := map[string]*load.Place{"default/client": &l.client, "default/server": &l.server}[p.Key()]
		if to == nil {
			continue
		}
		ns, err := netns.Open(lab.NSOfPod(l.name, p.Key()))
		if err != nil {
			return err
		}
		*to = load.Place{NS: ns, Addr: p.Address, Label: p.Key()}
	}
	for _, v := range st.Snapshot.Services {
		if v.Key() == "default/server" {
			l.service = netip.AddrPortFrom(v.ClusterIP, benchPort)
		}
	}
	return nil
}

// job is one measurement in the lab.
func (l *modeLab) job(w job, d, warmUp time.Duration) load.Job {
	j := load.Job{Workload: w.name, Client: l.client, Server: l.server, Duration: d, WarmUp: warmUp}
	if w.target == "clusterip" {
		j.To, j.Port = l.service, benchPort
	}
	return j
}

// down takes down every lab that was begun.
func (b *modes) down(ctx context.Context) error {
	var errs []error
	for _, l := range b.labs {
		for _, p := range []load.Place{l.client, l.server} {
			if p.NS != nil {
				_ = p.NS.Close() // a read-only descriptor
			}
		}
		errs = append(errs, takeDown(ctx, l.name))
	}
	return errors.Join(errs...)
}
