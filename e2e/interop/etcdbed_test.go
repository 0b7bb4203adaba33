package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"slipway/internal/testnet"
	"slipway/topology"
)

// etcdBed is a bed whose registry is an etcd as flannel uses it.
type etcdBed struct {
	*bed
	client *clientv3.Client
}

func newEtcdBed(t *testing.T, mode topology.ModeName) *etcdBed {
	t.Helper()
	b := &etcdBed{bed: newBed(t, mode)}
	b.iface = "eth0" // there is no default route, and nobody else knows the nodes
	b.startEtcd()
	var err error
	b.client, err = clientv3.New(clientv3.Config{
		Endpoints: []string{b.url()}, Logger: zap.NewNop(), DialTimeout: patience,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return b.ctl.dial(ctx, "tcp4", addr)
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.client.Close() })
	testnet.Eventually(t, patience, "etcd", func() (bool, string) {
		if b.etcd.ended() {
			t.Fatal("etcd ended")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := b.client.Get(ctx, "x")
		return err == nil, fmt.Sprint(err)
	})
	return b
}

func (b *etcdBed) url() string { return "http://" + b.ctl.addr.String() + ":2379" }

// registry is the agents' part of the configuration.
func (b *etcdBed) registry() string {
	return fmt.Sprintf("{etcd: {endpoints: [%q], createConfig: true}}", b.url())
}

// keys are what etcd holds below flannel's prefix, without it.
func (b *etcdBed) keys() map[string]string {
	b.t.Helper()
	const prefix = "/coreos.com/network/"
	r, err := b.client.Get(b.t.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		b.t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range r.Kvs {
		out[strings.TrimPrefix(string(kv.Key), prefix)] = string(kv.Value)
	}
	return out
}

// lease is a node's, as etcd has it.
func (b *etcdBed) lease(m *machine) (subnet netip.Prefix, backend string, vtep string) {
	b.t.Helper()
	for key, value := range b.keys() {
		var v struct {
			PublicIP    netip.Addr
			BackendType string
			BackendData struct{ VtepMAC string }
		}
		if err := json.Unmarshal([]byte(value), &v); err != nil {
			b.t.Fatal(err)
		}
		if name, ok := strings.CutPrefix(key, "subnets/"); ok && v.PublicIP == m.addr {
			return netip.MustParsePrefix(strings.Replace(name, "-", "/", 1)), v.BackendType, v.BackendData.VtepMAC
		}
	}
	return
}

// startFlanneld starts the real one and waits until it has its subnet.
func (b *etcdBed) startFlanneld(m *machine) *process {
	b.t.Helper()
	if err := os.Remove(m.path("subnet.env")); err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	p := m.start("flanneld", nil, program(b.t, "flannel", "flanneld"), "--etcd-endpoints", b.url(), "--iface", "eth0",
		"--subnet-file", m.path("subnet.env"), "--ip-masq=false", "--iptables-forward-rules=false", "--healthz-port=0")
	testnet.Eventually(b.t, patience, "flanneld on "+m.name, func() (bool, string) {
		if p.ended() {
			b.t.Fatal("flanneld ended")
		}
		raw, err := os.ReadFile(m.path("subnet.env"))
		return bytes.Contains(raw, []byte("FLANNEL_MTU=")), fmt.Sprint(string(raw), err)
	})
	m.subnet, _, _ = b.lease(m)
	return p
}
