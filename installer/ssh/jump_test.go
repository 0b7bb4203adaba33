package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"slipway/installer"
	"slipway/internal/testnet"
)

// Hosts behind others are reached through them, by one connection for all; each
// has its own host key, and the way back is let go of.
func TestThroughJumpHosts(t *testing.T) {
	o := newOperator(t)
	first := newMachine(t, o, "first", "", "")
	second := newMachine(t, o, "second", "", "")
	inner := newMachine(t, o, "inner", "", "")
	testnet.Wire(t, first.ns, "in0", "10.72.1.1/24", second.ns, "out0", "10.72.1.2/24")
	testnet.Wire(t, second.ns, "in0", "10.72.2.1/24", inner.ns, "out0", "10.72.2.2/24")
	write(t, o.path("config"), fmt.Sprintf(`Host first
  HostName %s
Host second
  HostName 10.72.1.2
  ProxyJump first
Host inner*
  HostName 10.72.2.2
  ProxyJump second
Host listed
  HostName 10.72.2.2
  ProxyJump root@first:22,second
Host closed
  HostName 10.72.2.2
  Port 23
  ProxyJump second
Host *
  User root
`, first.address))
	opts := o.options()
	opts.ConfigFile = o.path("config")
	dialled := atomic.Int32{}
	opts.Tell = func(e Event) {
		if e.Kind == NewKey {
			dialled.Add(1)
		}
	}
	hosts, err := OpenAll(t.Context(), []Target{{Name: "inner1"}, {Name: "inner2"}, {Name: "n3", Host: "inner3"}, {Name: "listed"}}, opts)
	defer CloseAll(hosts)
	if err != nil {
		t.Fatal(err)
	}
	blob, data := newBlob(t, 1<<20)
	for name, h := range hosts {
		r, err := h.Run(t.Context(), sh("ip -br addr show dev out0"))
		if err != nil || !strings.Contains(string(r.Stdout), "10.72.2.2/24") {
			t.Errorf("%s: %q, %v", name, r.Stdout, err)
		}
	}
	var back bytes.Buffer
	if err := errors.Join(hosts["n3"].Store(t.Context(), blob), hosts["listed"].Fetch(t.Context(), installer.StorePath(blob.Sum), &back)); err != nil || !bytes.Equal(back.Bytes(), data) {
		t.Errorf("%d bytes, %v", back.Len(), err)
	}
	if n := len(o.conns); n > 2 { // one for each way that is spelled differently
		t.Errorf("%d connections to the first host", n)
	}
	if n := dialled.Load(); n != 3 {
		t.Errorf("%d keys are new", n)
	}
	var e *ConnectError
	if _, err := Open(t.Context(), Target{Name: "closed"}, opts); !errors.As(err, &e) || !strings.Contains(err.Error(), "closed: connect to 10.72.2.2:23 through second: ") {
		t.Errorf("closed port: %v", err)
	}
	CloseAll(hosts)
	testnet.Eventually(t, patience, "all connections end", func() (bool, string) {
		got := first.sh(t, "pgrep -f '[s]shd: root' || true")
		return got == "", got
	})
}
