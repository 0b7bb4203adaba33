package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/installer"
	"slipway/installer/facts"
	"slipway/topology"
)

const file = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: prod}
spec:
  components: full
  underlay: {segments: [{name: lan, subnet: 10.20.0.0/24}]}
  nodes:
    - {name: master01, roles: [control-plane, etcd], address: 10.20.0.11, ssh: {user: admin}}
    - {name: node01, roles: [worker], address: 10.20.0.21, ssh: {user: admin}}
`

func open(t *testing.T, text string) *Site {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", []byte(text))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	s, err := Open(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// machine is a host's facts, with a device of some MTU.
func machine(address string, mtu int) facts.Facts {
	return facts.Facts{Links: []facts.Link{
		{Name: "lo", MTU: 65536, Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{Name: "enp1s0", MTU: mtu, Addresses: []netip.Prefix{netip.MustParsePrefix(address + "/24")}},
	}}
}

func hosts(mtu int) map[string]facts.Facts {
	return map[string]facts.Facts{"master01": machine("10.20.0.11", mtu), "node01": machine("10.20.0.21", 1500)}
}

func supply(context.Context, *topology.Cluster) (programs, images map[string]installer.Blob, err error) {
	programs = map[string]installer.Blob{}
	for _, name := range strings.Fields("kubernetes etcd etcdctl etcdutl slipway containerd containerd-shim-runc-v2 ctr runc host-local loopback portmap bridge flanneld") {
		programs[name] = installer.Blob{Sum: strings.Repeat(name[:1], 64)}
	}
	return programs, map[string]installer.Blob{"slipway.local/pause:v1": {Sum: strings.Repeat("p", 64)}}, nil
}

func plan(t *testing.T, s *Site, found map[string]facts.Facts) *Planned {
	t.Helper()
	p, err := s.Plan(t.Context(), From{Facts: found, Supply: supply})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAPlanIsTheSameUntilSomethingThatMattersChanges(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	s := open(t, file)
	first := plan(t, s, hosts(1500))
	if again := plan(t, open(t, file), hosts(1500)); again.Hash != first.Hash || len(again.Certificates) != 0 {
		t.Errorf("%v, %v", again.Items.Changed(first.Items), again.Certificates)
	}
	busy := hosts(1500)
	f := busy["node01"]
	f.Memory, f.Listening = 1<<33, []facts.Socket{{Protocol: "tcp", Port: 22}}
	busy["node01"] = f
	if p := plan(t, s, busy); p.Hash != first.Hash {
		t.Errorf("a host with more memory: %v", p.Items.Changed(first.Items))
	}
	small := plan(t, s, hosts(1400))
	if small.Hash == first.Hash {
		t.Error("a device with another MTU makes no other plan")
	}
	if got := small.Inputs.Snapshot.Network.MTU; got != 1400-topology.OverheadVXLAN {
		t.Errorf("pods have MTU %d", got)
	}
	if got := small.Inputs.Snapshot.Nodes[0].Interface.Name; got != "enp1s0" {
		t.Errorf("the device is called %s", got)
	}
	other := plan(t, open(t, strings.Replace(file, "components: full", "components: full\n  network: {mode: flannel-host-gw}", 1)), hosts(1500))
	changed := strings.Join(other.Items.Changed(first.Items), "\n")
	if other.Hash == first.Hash || !strings.Contains(changed, "node01, 09-network, agent, file /etc/slipway/cluster.yaml: another") {
		t.Errorf("%s", changed)
	}
	if _, err := s.Plan(t.Context(), From{Facts: map[string]facts.Facts{"master01": {}}, Supply: supply}); err == nil || !strings.Contains(err.Error(), "node01") {
		t.Errorf("a host that nobody knows: %v", err)
	}
}

func TestOnlyWhatWasRehearsedIsApplied(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	s := open(t, file)
	p := plan(t, s, hosts(1500))
	refused := func(want string) {
		t.Helper()
		var un *UnrehearsedError
		if err := s.CheckRehearsed(p); !errors.As(err, &un) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused("never rehearsed")
	keep := func(r Rehearsal) {
		t.Helper()
		if err := s.KeepRehearsal(&r); err != nil {
			t.Fatal(err)
		}
	}
	keep(Rehearsal{Hash: p.Hash, Items: p.Items, Error: "node01: 04-etcd, members"})
	refused("its rehearsal failed: node01: 04-etcd, members")
	before := Digests{}
	for k, v := range p.Items {
		before[k] = v
	}
	const item = "node01, 01-base, settings, block slipway of /etc/hosts"
	before[item] = "0"
	keep(Rehearsal{Hash: "0", Items: before, OK: true})
	refused(item + ": another")
	keep(Rehearsal{Hash: "0", Items: p.Items, OK: true})
	refused("what the hosts are")
	keep(Rehearsal{Hash: p.Hash, Items: p.Items, OK: true})
	if err := s.CheckRehearsed(p); err != nil {
		t.Error(err)
	}
}

// fake is a host that does what it is told and answers as the engine wants.
type fake struct{ name string }

func (f fake) Name() string { return f.name }

func (f fake) Run(context.Context, installer.Command) (installer.Result, error) {
	return installer.Result{Code: 7, Stderr: []byte("no space left on device\n")}, nil
}

func (f fake) Store(context.Context, installer.Blob) error { return nil }

func TestWhatFailsIsWrittenDown(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	s := open(t, file)
	p := plan(t, s, hosts(1500))
	on := map[string]installer.Host{"master01": fake{"master01"}, "node01": fake{"node01"}}
	_, err := s.Apply(t.Context(), on, p, p.Whole, nil)
	var failed *installer.StepError
	if !errors.As(err, &failed) || failed.Phase != "00-preflight" || !strings.Contains(err.Error(), "no space left on device") {
		t.Fatal(err)
	}
	all, err := s.Entries()
	if err != nil || len(all) != 2 || all[0].Run != "apply" || all[0].Hash != p.Hash || all[1].Run != "apply stopped" || all[1].Phase != "00-preflight" {
		t.Errorf("%+v, %v", all, err)
	}
	again, err := Load("")
	if err != nil || again.Name != "prod" || again.Applied().Complete {
		t.Errorf("%+v, %v", again, err)
	}
	if again := plan(t, again, hosts(1500)); again.Hash != p.Hash {
		t.Errorf("kept and read, the plan is another: %v", again.Items.Changed(p.Items))
	}
}

// What is kept is its owner's alone, and one command's at a time.
func TestState(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(StateDirEnv, dir)
	s := open(t, file)
	p := plan(t, s, hosts(1500))
	if err := errors.Join(s.Remember(p, true), s.KeepFacts(p.Facts), s.KeepView(&View{})); err != nil {
		t.Fatal(err)
	}
	release, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, file).Lock(); !errors.Is(err, ErrBusy) {
		t.Errorf("locked twice: %v", err)
	}
	release()
	if release, err = open(t, file).Lock(); err != nil {
		t.Fatal(err)
	}
	release()
	err = filepath.WalkDir(filepath.Join(dir, "sites"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && path != filepath.Join(dir, "sites") {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.KnownFacts()
	if d := cmp.Diff(fmt.Sprint(p.Facts), fmt.Sprint(found)); err != nil || d != "" {
		t.Error(err, d)
	}
	if names, err := Names(); err != nil || !slices.Equal(names, []string{"prod"}) {
		t.Error(names, err)
	}
	conf, err := s.Kubeconfig()
	if err != nil || !strings.Contains(string(conf), "server: https://10.20.0.11:6443") {
		t.Errorf("%v\n%s", err, conf)
	}
	if err := s.Forget(); err != nil {
		t.Fatal(err)
	}
	if _, err := Load("prod"); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "sites")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("forgotten, and there is still something: %v", err)
	}
}

// A view of a plan has every file's difference, every command, and no secret.
func TestAViewHasNoSecrets(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	s := open(t, file)
	p := plan(t, s, hosts(1500))
	var text strings.Builder
	for _, ph := range p.Whole.Phases {
		for _, st := range ph.Steps {
			for _, w := range st.Work {
				for _, it := range w.Items {
					c := change(installer.State{Phase: ph.ID, Step: st.Name, Why: st.Why, Host: w.Host, Item: it, Before: "absent"}, map[string][]byte{"node01 /etc/kubernetes/kubelet.yaml": []byte("old\n")})
					raw, err := json.Marshal(c)
					if err != nil {
						t.Fatal(err)
					}
					text.Write(raw)
				}
			}
		}
	}
	for _, want := range []string{"-old", "+kind: KubeletConfiguration", "ExecStart=/usr/local/bin/etcd", "modprobe br_netfilter", "sysctl -w net.ipv4.ip_forward"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not shown", want)
		}
	}
	key, err := s.PKI().EncryptionKey()
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.PKI().BootstrapToken()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"PRIVATE KEY", "client-key-data", key, token.Secret} {
		if strings.Contains(text.String(), secret) {
			t.Errorf("%q is shown", secret)
		}
	}
}

func TestWhatHostsRunIsPlayed(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	s := open(t, file)
	found := hosts(1500)
	at := func(protocol, address string, port int) facts.Socket {
		a := netip.Addr{}
		if address != "" {
			a = netip.MustParseAddr(address)
		}
		return facts.Socket{Protocol: protocol, Address: a, Port: port}
	}
	f := found["node01"]
	f.Listening = []facts.Socket{at("tcp", "0.0.0.0", 22), at("tcp", "::", 22), at("tcp", "127.0.0.1", 631), at("udp", "10.20.0.21", 123), at("tcp", "172.17.0.1", 5000), at("tcp", "127.0.0.1", 10250)}
	found["node01"] = f
	want := map[string][]string{"master01": nil, "node01": {"tcp/:22", "tcp/127.0.0.1:631", "udp/10.20.0.21:123", "tcp/127.0.0.1:10250"}}
	if d := cmp.Diff(want, Taken(plan(t, s, found))); d != "" {
		t.Error(d)
	}
	// Where the cluster is installed already, its own ports are its own.
	f.Own = map[string]string{"/var/lib/slipway/undo": ""}
	found["node01"] = f
	want["node01"] = want["node01"][:3]
	if d := cmp.Diff(want, Taken(plan(t, s, found))); d != "" {
		t.Error(d)
	}
}

// bare is a machine on which nothing was ever installed.
type bare struct{ name string }

func (b bare) Name() string { return b.name }
func (b bare) Run(context.Context, installer.Command) (installer.Result, error) {
	return installer.Result{}, nil
}
func (b bare) Store(context.Context, installer.Blob) error { return nil }

// A reset remembers which hosts are done, and is over when all of them are.
func TestResetByParts(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	s := open(t, file)
	if err := s.Remember(plan(t, s, hosts(1500)), true); err != nil {
		t.Fatal(err)
	}
	// One that was about to join when somebody cut that off.
	if err := s.Join([]topology.Node{{Name: "node02"}}); err != nil {
		t.Fatal(err)
	}
	reset := func(names ...string) *Site {
		t.Helper()
		s, err := Load("prod")
		if err != nil {
			t.Fatal(err)
		}
		on := map[string]installer.Host{}
		for _, n := range names {
			on[n] = bare{n}
		}
		if err := s.Reset(t.Context(), on, func(string, []string, error) {}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if d := cmp.Diff([]string{"node01", "node02"}, reset("master01").Remaining()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"node01"}, reset("node02").Remaining()); d != "" {
		t.Error(d)
	}
	if left := reset("node01").Remaining(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := Load("prod"); !errors.Is(err, ErrNone) {
		t.Errorf("after the last: %v", err)
	}
}

// What is installed again has to be reset again.
func TestApplyAfterAPartialReset(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	s := open(t, file)
	p := plan(t, s, hosts(1500))
	if err := errors.Join(s.Remember(p, true), s.Reset(t.Context(), map[string]installer.Host{"node01": bare{"node01"}}, func(string, []string, error) {}), s.Remember(p, false)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"master01", "node01"}, s.Remaining()); d != "" {
		t.Error(d)
	}
}
