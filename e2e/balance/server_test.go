package balance

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"slipway/e2e/rig"
)

// serveAs plays an API server on a master, with the master's certificate: ready,
// and says who it is.
func serveAs(t testing.TB, r *rig.Rig, master string) {
	t.Helper()
	pair, err := r.Inputs.PKI.Pair(master + "/apiserver")
	if err != nil {
		t.Fatal(err)
	}
	key, err := pair.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.CertPEM(), key)
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	at := netip.AddrPortFrom(addressOf(t, r, master), 6443).String()
	if err := r.Nodes[master].NS.Do(func() error { l, err = net.Listen("tcp", at); return err }); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{
		ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, master) }),
	}
	go func() {
		if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { _ = s.Close() })
}

func addressOf(t testing.TB, r *rig.Rig, node string) netip.Addr {
	t.Helper()
	for _, n := range r.Inputs.Snapshot.Nodes {
		if n.Name == node {
			return n.Interface.Prefix.Addr()
		}
	}
	t.Fatalf("there is no node %s", node)
	return netip.Addr{}
}
