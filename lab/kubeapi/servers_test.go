package kubeapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/client-go/rest"

	"slipway/installer/cluster"
	"slipway/installer/pki"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/topology"
)

// A lab of three masters, of which two have a namespace and something that
// answers at the API's port with the real certificates.
func TestAnotherServerAnswers(t *testing.T) {
	testnet.Need(t, testnet.Root)
	name := fmt.Sprintf("ka%d", os.Getpid())
	st, store := stateOf(t, name)
	a, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(a.Config)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(patience time.Duration) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Host+"/", nil)
		if err != nil {
			return "", err
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		who, err := io.ReadAll(resp.Body)
		return string(who), errors.Join(err, resp.Body.Close())
	}
	expect := func(what, who string) {
		t.Helper()
		// A request may meet a connection that has just been closed.
		testnet.Eventually(t, time.Minute, what, func() (bool, string) {
			got, err := ask(time.Minute)
			if err == nil && got != who {
				t.Fatalf("%s: %s answers, not %s", what, got, who)
			}
			return err == nil, fmt.Sprint(err)
		})
	}

	if _, err := ask(time.Minute); err == nil {
		t.Fatal("there is no server, and one answers")
	}
	m1, m2 := newMaster(t, name, st, store, "m1"), newMaster(t, name, st, store, "m2")
	m1.serve()
	m2.serve()
	expect("all are up", "m1")
	m1.stop()
	expect("m1 is down", "m2")
	m1.serve()
	expect("m1 is back", "m2")
	m2.hangs.Store(true)
	if got, err := ask(200 * time.Millisecond); err == nil {
		t.Fatalf("m2 hangs, and %s answers", got)
	}
	a.Leave()
	expect("m2 was left", "m1") // m3 comes before, and is not there
}

// stateOf makes what is on disk of a lab: its state and its certificates.
func stateOf(t *testing.T, name string) (*lab.State, *pki.Store) {
	t.Helper()
	t.Setenv(lab.StateDirEnv, t.TempDir())
	c, diags := topology.Parse("cluster.yaml", []byte(three))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	s, _, err := topology.Allocate(c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	st := &lab.State{Lab: name, Cluster: c, Snapshot: s, Complete: true}
	store := &pki.Store{Dir: lab.PKIDir(name), Algorithm: pki.ECDSA, Now: time.Now}
	if _, err := store.Ensure(cluster.Certificates(cluster.Inputs{Cluster: c, Snapshot: s, PKI: store})); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lab.Dir(name), "state.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return st, store
}

// master is a namespace with a server in it that says its name to administrators.
type master struct {
	t      *testing.T
	name   string
	ns     *netns.NS
	at     string
	config *tls.Config
	hangs  atomic.Bool
	server *http.Server
}

func newMaster(t *testing.T, labName string, st *lab.State, store *pki.Store, name string) *master {
	t.Helper()
	if err := netns.EnsureDir(); err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Create(lab.NSOfMachine(labName, name))
	if err != nil {
		t.Fatal(err)
	}
	m := &master{t: t, name: name, ns: ns}
	t.Cleanup(func() {
		m.stop()
		if err := errors.Join(ns.Close(), netns.Delete(ns.Name())); err != nil {
			t.Error(err)
		}
	})
	n, _ := st.Snapshot.NodeByName(name)
	own := n.Interface.Prefix.Addr()
	m.at = netip.AddrPortFrom(own, apiPort).String()
	h := testnet.Handle(t, ns)
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = errors.Join(h.LinkSetUp(lo), h.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: own.AsSlice(), Mask: net.CIDRMask(32, 32)}}))
	}
	if err != nil {
		t.Fatal(err)
	}
	pair, err := store.Pair(name + "/apiserver")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := store.Pair(pki.KubernetesCA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	m.config = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{pair.Cert.Raw}, PrivateKey: pair.Key}},
		ClientCAs:    pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
	return m
}

func (m *master) serve() {
	m.t.Helper()
	var l net.Listener
	if err := m.ns.Do(func() (err error) { l, err = net.Listen("tcp", m.at); return err }); err != nil {
		m.t.Fatal(err)
	}
	m.server = &http.Server{TLSConfig: m.config, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.hangs.Load() {
			<-r.Context().Done()
			return
		}
		if !slices.Contains(r.TLS.PeerCertificates[0].Subject.Organization, pki.AdminGroup) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, m.name)
	})}
	go m.server.ServeTLS(l, "", "") //nolint:errcheck // it ends with stop
}

func (m *master) stop() {
	if m.server != nil {
		_ = m.server.Close()
	}
}
