package lease

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	// leaseTTL is how long a node keeps its subnet without being heard of (flannel
	// pkg/subnet/etcd/local_manager.go, subnetTTL).
	leaseTTL = 24 * time.Hour
	// renewal is how often the node lets itself be heard.
	renewal = time.Hour
	// renewRest is the wait after a failed renewal or a broken watch.
	renewRest = time.Second
	// claimTries is how often a subnet is looked for that another node then takes
	// (flannel's raceRetries).
	claimTries = 10
)

// EtcdOptions say where the registry is.
type EtcdOptions struct {
	Endpoints     []string
	Prefix        string // of all keys: /coreos.com/network
	CA, Cert, Key string // files; empty: no TLS, or no certificate of our own
	// Former is the subnet that the node had before, to be taken again if it is free.
	Former netip.Prefix
	Log    *slog.Logger
}

// Etcd is an etcd with flannel's layout (flannel pkg/subnet/etcd): PREFIX/config
// is the network, and PREFIX/subnets/A.B.C.D-LEN a node's lease, which an etcd
// lease of 24 hours takes away.
type Etcd struct {
	client *clientv3.Client
	opts   EtcdOptions

	mu     sync.Mutex
	config etcdConfig
	id     clientv3.LeaseID // of our lease; 0: none, or one that does not end
}

// OpenEtcd prepares to use an etcd. Nothing is asked yet.
func OpenEtcd(o EtcdOptions) (*Etcd, error) {
	cfg := clientv3.Config{Endpoints: o.Endpoints, DialTimeout: callPatience, Logger: zap.NewNop(), DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: callPatience}
	if o.CA != "" || o.Cert != "" {
		t, err := tlsConfig(o)
		if err != nil {
			return nil, fmt.Errorf("open etcd: %w", err)
		}
		cfg.TLS = t
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("open etcd: %w", err)
	}
	return &Etcd{client: c, opts: o}, nil
}

// tlsConfig reads the certificates. Our own is read again for each connection,
// so that a renewed one is used.
func tlsConfig(o EtcdOptions) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		text, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", o.CA)
		}
	}
	if o.Cert != "" {
		load := func() (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(o.Cert, o.Key)
			return &c, err
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return t, nil
}

// Close ends the connections.
func (e *Etcd) Close() error { return e.client.Close() }

// attrs is a lease's value (flannel pkg/lease/lease.go, LeaseAttrs).
type attrs struct {
	PublicIP    netip.Addr
	PublicIPv6  *netip.Addr
	BackendType string
	BackendData json.RawMessage `json:",omitempty"`
}

func (e *Etcd) subnets() string { return path.Join(e.opts.Prefix, "subnets") + "/" }

// key is flannel's name of a subnet (flannel pkg/subnet/subnet.go, MakeSubnetKey).
func (e *Etcd) key(p netip.Prefix) string {
	return e.subnets() + strings.Replace(p.String(), "/", "-", 1)
}

// parse reads one key of a subnet. What follows an "&" is an IPv6 subnet.
func (e *Etcd) parse(key string, value []byte) (Lease, error) {
	name, _, _ := strings.Cut(strings.TrimPrefix(key, e.subnets()), "&")
	p, err := netip.ParsePrefix(strings.Replace(name, "-", "/", 1))
	if err != nil {
		return Lease{}, fmt.Errorf("key %s: %w", key, err)
	}
	var a attrs
	if err := json.Unmarshal(value, &a); err != nil {
		return Lease{}, fmt.Errorf("value of %s: %w", key, err)
	}
	l := Lease{Address: a.PublicIP, Subnet: p.Masked(), Backend: backendOf(a.BackendType)}
	if !l.Address.Is4() {
		return l, fmt.Errorf("value of %s: PublicIP %s is no IPv4 address", key, a.PublicIP)
	}
	return l, l.setBackendData(a.BackendData)
}

// Self is empty: a node has nothing in etcd before it claims it.
func (e *Etcd) Self(context.Context) (Lease, error) { return Lease{}, nil }

// Claim takes a subnet for the node with the lease's address: the one that it has
// already, the one that it had, or one that is free; and says the rest of it.
// Settle must have been called.
func (e *Etcd) Claim(ctx context.Context, l Lease) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	for range claimTries {
		got, err := e.claim(ctx, l)
		if !errors.Is(err, errRaced) {
			return got, err
		}
	}
	return l, fmt.Errorf("claim a subnet: others were faster %d times", claimTries)
}

// errRaced: another node has taken the subnet meanwhile.
var errRaced = errors.New("the subnet was taken meanwhile")

func (e *Etcd) claim(ctx context.Context, l Lease) (Lease, error) {
	r, err := e.client.Get(ctx, e.subnets(), clientv3.WithPrefix())
	if err != nil {
		return l, fmt.Errorf("list leases: %w", err)
	}
	e.mu.Lock()
	config := e.config
	e.mu.Unlock()
	taken := map[netip.Prefix]bool{}
	for _, kv := range r.Kvs {
		key, id := string(kv.Key), clientv3.LeaseID(kv.Lease)
		have, err := e.parse(key, kv.Value)
		switch {
		case err == nil && have.Address == l.Address && config.allows(have.Subnet):
			l.Subnet = have.Subnet
			return l, e.renewOwn(ctx, l, have, key, id)
		case err == nil && have.Address == l.Address: // of a network that is no more
			if _, err := e.client.Delete(ctx, key); err != nil {
				return l, fmt.Errorf("delete our former lease %s: %w", have.Subnet, err)
			}
		case have.Subnet.IsValid():
			taken[have.Subnet] = true
		}
	}
	if p := e.opts.Former; p.IsValid() && config.allows(p) && !taken[p] {
		l.Subnet = p
	} else if l.Subnet, err = config.free(taken); err != nil {
		return l, err
	}
	return l, e.put(ctx, l, e.key(l.Subnet), clientv3.Compare(clientv3.Version(e.key(l.Subnet)), "=", 0))
}

// renewOwn keeps a lease that is ours already, or writes what has changed of it.
// A key without an etcd lease is a reservation and stays one (flannel
// Documentation/reservations.md).
func (e *Etcd) renewOwn(ctx context.Context, l, have Lease, key string, id clientv3.LeaseID) error {
	have.Node = l.Node
	switch {
	case id == 0 && have.Equal(l):
		e.keep(0)
		return nil
	case id == 0:
		value, err := l.value()
		if err == nil {
			_, err = e.client.Put(ctx, key, value)
		}
		if err != nil {
			return fmt.Errorf("reservation of %s: %w", l.Subnet, err)
		}
		e.keep(0)
		return nil
	case have.Equal(l):
		if _, err := e.client.KeepAliveOnce(ctx, id); err == nil {
			e.keep(id)
			return nil
		}
	}
	return e.put(ctx, l, key)
}

// value is a lease in flannel's form.
func (l Lease) value() (string, error) {
	data, err := l.backendData()
	if err != nil {
		return "", err
	}
	v, err := json.Marshal(attrs{PublicIP: l.Address, BackendType: l.Backend, BackendData: data})
	return string(v), err
}

// put writes a lease under a new etcd lease, if the conditions hold.
func (e *Etcd) put(ctx context.Context, l Lease, key string, conditions ...clientv3.Cmp) error {
	value, err := l.value()
	if err != nil {
		return err
	}
	granted, err := e.client.Grant(ctx, int64(leaseTTL.Seconds()))
	if err != nil {
		return fmt.Errorf("lease of %s: %w", l.Subnet, err)
	}
	r, err := e.client.Txn(ctx).If(conditions...).Then(clientv3.OpPut(key, value, clientv3.WithLease(granted.ID))).Commit()
	if err == nil && !r.Succeeded {
		err = errRaced
	}
	if err != nil {
		_, _ = e.client.Revoke(ctx, granted.ID) // it would end by itself
		return fmt.Errorf("lease of %s: %w", l.Subnet, err)
	}
	e.keep(granted.ID)
	return nil
}

// keep remembers what to renew.
func (e *Etcd) keep(id clientv3.LeaseID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.id = id
}

// Release gives back what the node with the lease's address has. A reservation
// stays, without it.
func (e *Etcd) Release(ctx context.Context, l Lease) error {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	r, err := e.client.Get(ctx, e.subnets(), clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, kv := range r.Kvs {
		have, err := e.parse(string(kv.Key), kv.Value)
		if err != nil || have.Address != l.Address || kv.Lease == 0 {
			continue
		}
		if _, err := e.client.Delete(ctx, string(kv.Key)); err != nil {
			return fmt.Errorf("release %s: %w", have.Subnet, err)
		}
	}
	return nil
}

// Follow calls changed with all leases, first when they are known and then after
// every change, and keeps our own alive, until ctx ends. What is out of reach is
// tried again.
func (e *Etcd) Follow(ctx context.Context, changed func([]Lease)) error {
	go e.renew(ctx)
	for {
		err := e.follow(ctx, changed)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e.opts.Log.Warn("follow the leases: again", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(renewRest):
		}
	}
}

// follow lists and watches until something breaks.
func (e *Etcd) follow(ctx context.Context, changed func([]Lease)) error {
	get, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	r, err := e.client.Get(get, e.subnets(), clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	leases := map[string]Lease{}
	for _, kv := range r.Kvs {
		e.take(leases, string(kv.Key), kv.Value)
	}
	changed(list(leases))
	ctx, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer stop()
	for w := range e.client.Watch(ctx, e.subnets(), clientv3.WithPrefix(), clientv3.WithRev(r.Header.Revision+1)) {
		if err := w.Err(); err != nil {
			return fmt.Errorf("watch leases: %w", err)
		}
		for _, ev := range w.Events {
			if ev.Type == clientv3.EventTypeDelete {
				delete(leases, string(ev.Kv.Key))
				continue
			}
			e.take(leases, string(ev.Kv.Key), ev.Kv.Value)
		}
		if len(w.Events) > 0 {
			changed(list(leases))
		}
	}
	return errors.New("watch leases: it ended")
}

// take reads a lease; one that cannot be read is said and left out.
func (e *Etcd) take(leases map[string]Lease, key string, value []byte) {
	l, err := e.parse(key, value)
	if err != nil {
		e.opts.Log.Warn("a lease cannot be read", "err", err)
		delete(leases, key)
		return
	}
	leases[key] = l
}

func list(leases map[string]Lease) []Lease {
	out := make([]Lease, 0, len(leases))
	for _, l := range leases {
		out = append(out, l)
	}
	return sorted(out)
}

// renew keeps our lease alive. One that etcd has forgotten is claimed anew by
// whoever sees in Follow that it is gone.
func (e *Etcd) renew(ctx context.Context) {
	wait := renewal
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		e.mu.Lock()
		id := e.id
		e.mu.Unlock()
		if wait = renewal; id == 0 {
			continue
		}
		call, cancel := context.WithTimeout(ctx, callPatience)
		_, err := e.client.KeepAliveOnce(call, id)
		cancel()
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) && ctx.Err() == nil {
			e.opts.Log.Warn("renew the lease", "err", err)
			wait = time.Minute
		}
	}
}
