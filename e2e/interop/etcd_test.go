package interop

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/testnet"
	"slipway/topology"
)

// TestEtcdBesideFlanneld: nodes of ours and one of flanneld's, with etcd between
// them; ours comes first and writes the network's configuration.
func TestEtcdBesideFlanneld(t *testing.T) {
	for _, mode := range flannelModes {
		t.Run(string(mode), func(t *testing.T) {
			testnet.Need(t, testnet.VXLAN, testnet.TUN, testnet.Flanneld)
			b := newEtcdBed(t, mode)
			ours, theirs := b.node("ours", 11, ""), b.node("theirs", 12, "")
			ours.startAgent(b.registry())
			ours.run("c1", "first")
			backend := strings.TrimPrefix(string(mode), "flannel-")
			if got := b.config(); got != backend {
				t.Errorf("the backend in etcd is %q, want %q", got, backend)
			}
			real := b.startFlanneld(theirs)
			theirs.plug()
			b.talk("ours", "theirs")

			third := b.node("third", 13, "") // one more joins
			third.startAgent(b.registry())
			third.run("c2", "second")
			b.talk("ours", "theirs", "third")

			if mode == topology.FlannelVXLAN {
				b.anotherVTEP(theirs, real)
				b.talk("ours", "theirs", "third")
			}
			subnet, _, _ := b.lease(third) // and goes
			third.agent.end(t, syscall.SIGTERM)
			if mode != topology.FlannelUDP { // the tunnel is the agent's own process
				b.talk("ours", "third") // as long as it has not said so
			}
			third.cleanup()
			b.noRoute(ours, subnet)
			b.talk("ours", "theirs")
		})
	}
}

// config is the backend in etcd.
func (b *etcdBed) config() string {
	b.t.Helper()
	var c struct{ Backend struct{ Type string } }
	if err := json.Unmarshal([]byte(b.keys()["config"]), &c); err != nil {
		b.t.Fatal(err)
	}
	return c.Backend.Type
}

// anotherVTEP starts flanneld again without the VTEP that it had.
func (b *etcdBed) anotherVTEP(m *machine, flanneld *process) {
	b.t.Helper()
	_, _, before := b.lease(m)
	flanneld.end(b.t, syscall.SIGKILL)
	h := testnet.Handle(b.t, m.ns)
	l, err := h.LinkByName("flannel.1")
	if err == nil {
		err = h.LinkDel(l)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.startFlanneld(m)
	if _, _, now := b.lease(m); now == before || now == "" {
		b.t.Errorf("flanneld's VTEP has the MAC %q as before (%q): nothing to follow", now, before)
	}
}
