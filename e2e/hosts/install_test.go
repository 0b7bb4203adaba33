package hosts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/installer/components"
	"slipway/installer/site"
	"slipway/internal/testnet"
)

// kubectl is a test's, which leaves nothing in root's home.
const kubectl = "kubectl --cache-dir /tmp/kubectl --kubeconfig /etc/kubernetes/admin.conf "

// built skips a test unless the programs of a cluster are there, which take
// minutes to build.
func built(t *testing.T) {
	t.Helper()
	for _, name := range []string{"kubernetes", "etcd", "containerd", "runc", "cni-plugins", "coredns", "pause", "echo"} {
		if _, err := components.Lookup(t.Context(), name); err != nil {
			testnet.Lacks(t, testnet.Kubernetes, err)
		}
	}
}

// A cluster comes about on bare machines by SSH alone: planned, rehearsed, applied
// step for step as it was rehearsed, a second time without a change; and when it
// is reset, the machines are what they were.
func TestInstall(t *testing.T) {
	built(t)
	r := Start(t, 3, inotifyCluster+inotifyUbuntu+inotifyRedHat, Ubuntu("host2"), RedHat("host3"))
	r.Names(beyond)
	r.settled(t)
	file := r.ClusterFile("flannel-vxlan")
	bare := r.states(t)
	untouched := func(t *testing.T) { t.Helper(); r.same(t, bare, nil) }
	step := func(name string, f func(t *testing.T)) {
		began := time.Now()
		t.Run(name, func(t *testing.T) { r.Use(t); f(t) })
		t.Logf("%s: %v", name, time.Since(began).Round(time.Second/10))
	}

	step("a plan changes nothing", func(t *testing.T) {
		o := r.SlipwayMust("install", "plan", "-f", file)
		for _, want := range []string{"/etc/kubernetes/pki/ca.crt", "unit etcd.service", "host3", "rehearsed: no"} {
			if !strings.Contains(o.Stdout, want) {
				t.Errorf("the plan does not say %q:\n%s", want, o.Stdout)
			}
		}
		r.secretsIn(t, "the plan", o.Stdout+o.Stderr)
	})
	step("it is not applied unrehearsed", func(t *testing.T) {
		if o := r.Slipway("install", "apply", "-f", file); o.Code == 0 || !strings.Contains(o.Stderr, "rehearse") {
			t.Errorf("%v", o)
		}
		untouched(t)
	})
	step("rehearsed", func(t *testing.T) {
		r.SlipwayMust("install", "rehearse", "-f", file, "--down")
		untouched(t)
	})
	step("applied", func(t *testing.T) {
		r.offline(t, file)
		r.ready(t)
		r.SlipwayMust("install", "verify", "-f", file)
	})
	if t.Failed() { // there is no cluster
		t.FailNow()
	}
	step("pods look up names beyond the cluster, from a host with systemd-resolved too", func(t *testing.T) { r.looksUp(t) })
	step("NetworkManager leaves the cluster's devices alone", func(t *testing.T) { r.unmanaged(t) })
	step("as it was rehearsed", func(t *testing.T) { r.sameJournals(t) })
	var installed map[string][]string
	step("a second time nothing changes", func(t *testing.T) {
		installed = r.states(t)
		if n := r.apply(t, file).Changed; n != 0 {
			t.Errorf("%d items were changed", n)
		}
		r.SlipwayMust("install", "diff", "-f", file)
	})
	step("what somebody changes is seen and mended", func(t *testing.T) { r.drifts(t, file) })
	step("packets are traced where they go", func(t *testing.T) { r.traces(t, file) })
	step("no key leaves its file", func(t *testing.T) { r.secrets(t) })
	step("reset: the machines are as they were", func(t *testing.T) { r.resetByParts(t, bare) })
	step("the connection ends in the middle of each phase", func(t *testing.T) {
		r.cutOff(t, file)
		r.ready(t)
		r.same(t, installed, itsOwn)
	})
	step("kept, upgraded, taken apart and brought back", func(t *testing.T) {
		testnet.Need(t, testnet.DayTwo)
		r.dayTwo(t, file, bare)
	})
	step("reset again", func(t *testing.T) {
		r.SlipwayMust("install", "reset", "-f", file, "--purge")
		untouched(t)
		if left, _ := filepath.Glob(r.State + "/sites/*"); len(left) > 0 {
			t.Errorf("after --purge there is %v", left)
		}
	})
}

// settled waits until NetworkManager has set up host3's device, and the kernel has found
// the machines' own IPv6 addresses to be nobody else's (RFC 4862 §5.4).
func (r *Rig) settled(t *testing.T) {
	t.Helper()
	r.Machine("host3").Must("nm-online -s -q -t 60")
	for _, m := range r.Machines {
		testnet.Eventually(t, patience, "the addresses of "+m.name+" are its own", func() (bool, string) {
			out := m.Must("ip -6 -o addr show tentative")
			return out == "", out
		})
	}
}

// beyond is the address of all names of the network around (RFC 5737).
var beyond = [4]byte{192, 0, 2, 7}

// ask asks the cluster's DNS for beyond.example, with bash alone, and prints the end of
// the answer.
const ask = `exec 3<>/dev/udp/10.96.0.10/53
printf '\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06beyond\x07example\x00\x00\x01\x00\x01' >&3
timeout 5 dd bs=512 count=1 <&3 2>/dev/null | tail -c 4 | od -An -tu1 | xargs`

// looksUp has each of CoreDNS's pods asked, whichever host it is on: one that asked
// its host's stub would ask itself.
func (r *Rig) looksUp(t *testing.T) {
	t.Helper()
	host2 := r.Machines[1]
	if to := strings.TrimSpace(host2.Must("readlink -f /etc/resolv.conf; grep ^nameserver /etc/resolv.conf")); to != "/run/systemd/resolve/stub-resolv.conf\nnameserver 127.0.0.53" {
		t.Fatalf("host2 is not as Ubuntu's hosts are: %s", to)
	}
	if conf := host2.Must("cat /etc/systemd/networkd.conf.d/90-slipway.conf"); !strings.Contains(conf, "ManageForeignRoutes=no") {
		t.Errorf("systemd-networkd would take routes away: %s", conf)
	}
	// What kubelet there makes pods' own of, CoreDNS's too if one is there.
	if conf := host2.Must("grep ^resolvConf: /etc/kubernetes/kubelet.yaml; grep ^nameserver /run/systemd/resolve/resolv.conf"); conf != "resolvConf: /run/systemd/resolve/resolv.conf\nnameserver "+address(1).Addr().String()+"\n" {
		t.Errorf("pods of host2 have the name servers of %s", conf)
	}
	for range 12 { // some go to each
		if got := strings.TrimSpace(host2.Must(ask)); got != "192 0 2 7" {
			t.Errorf("the cluster's DNS says %q", got)
		}
	}
}

// unmanaged has NetworkManager, which is not asked by anybody else, say whose devices
// are its own: the machine's, and none of the cluster's. It is started again, as when
// it is upgraded, and pods are reached still.
func (r *Rig) unmanaged(t *testing.T) {
	t.Helper()
	host3 := r.Machines[2]
	host3.Must("systemctl restart NetworkManager && nm-online -q -t 60")
	states := map[string]string{}
	for line := range strings.Lines(host3.Must("nmcli -t -f DEVICE,STATE device")) {
		device, state, _ := strings.Cut(strings.TrimSpace(line), ":")
		states[strings.TrimRight(device, "0123456789abcdef")] = state
	}
	for device, want := range map[string]string{"eth": "connected", "cni": "unmanaged", "flannel.": "unmanaged"} {
		if states[device] != want {
			t.Errorf("%s… is %q to NetworkManager, want %s: %v", device, states[device], want, states)
		}
	}
	r.SlipwayMust("install", "verify", "--site", "site")
}

// itsOwn is what no two installations have in common: what programs keep, names
// that they draw by lot, pods' interfaces and mounts, and what of a bridge depends
// on whether a pod was ever plugged into it.
var itsOwn = regexp.MustCompile(strings.Join([]string{
	`^(file|sum) /(var/lib|var/log|run|tmp)/`, `^(file|sum) /etc/kubernetes/kubelet\.conf`, // kubelet's certificate
	`KUBE-(SEP|SVC)-`, `kubepods`, `^network namespace cni-`, `^(mount /|unit )(run|var[-/]lib)`, `veth[0-9a-f]{8}`,
	`^(file|sum) /opt/slipway/store/[0-9a-f]{64}\.part `, // what of an upload came before it was cut off, until reset
	`^address cni0 `, `^route .*dev cni0 .*(fe80|ff00)|^route .*(fe80|ff00).*dev cni0`,
	`^listens tcp 127\.0\.0\.1:[3-6][0-9]{4}`, // where containerd and kubelet stream from
}, "|"))

// apply applies and returns what was done.
func (r *Rig) apply(t *testing.T, file string, args ...string) site.Result {
	t.Helper()
	o := r.SlipwayMust(append([]string{"install", "apply", "-f", file, "-o", "json"}, args...)...)
	var res site.Result
	if err := json.Unmarshal([]byte(o.Stdout), &res); err != nil {
		t.Fatalf("%v: %v", err, o)
	}
	return res
}

// ready waits until all machines are nodes that are ready, and pods answer.
func (r *Rig) ready(t *testing.T) {
	t.Helper()
	testnet.Eventually(t, patience, "all nodes are ready", func() (bool, string) {
		out, _ := r.Machines[0].Sh(kubectl + "get nodes --no-headers")
		return strings.Count(out, " Ready ") == len(r.Machines), out
	})
	testnet.Eventually(t, patience, "DNS answers", func() (bool, string) {
		out, _ := r.Machines[0].Sh(kubectl + "-n kube-system get deployment coredns -o jsonpath='{.spec.replicas} {.status.readyReplicas}'")
		want, got, _ := strings.Cut(out, " ")
		return want != "" && got == want, out
	})
}

// drifts changes what was installed in several ways, which diff names and apply
// mends.
func (r *Rig) drifts(t *testing.T, file string) {
	m := r.Machine("host3")
	// The agent would set forwarding again by itself, sooner or later.
	m.Must("systemctl stop slipway-agent; echo '# by hand' >>/etc/kubernetes/kubelet.yaml; systemctl disable --now kube-proxy; sysctl -qw net.ipv4.ip_forward=0")
	o := r.Slipway("install", "diff", "-f", file)
	for _, want := range []string{"host3", "/etc/kubernetes/kubelet.yaml", "# by hand", "kube-proxy.service", "slipway-agent.service", "net.ipv4.ip_forward"} {
		if !strings.Contains(o.Stdout, want) {
			t.Errorf("diff does not say %q: %v", want, o)
		}
	}
	if o.Code != 1 {
		t.Errorf("%v", o)
	}
	if res := r.apply(t, file); len(res.ByHost) != 1 || res.ByHost["host3"] < 4 {
		t.Errorf("%+v", res)
	}
	r.SlipwayMust("install", "diff", "-f", file)
}

// line is a journal's, in the words that a rehearsal and an apply have in common.
type line struct{ Phase, Step, Host, Item, Want string }

// sameJournals compares what was done in the lab with what was done on the
// machines: the same items of the same steps on the same hosts in the same order.
func (r *Rig) sameJournals(t *testing.T) {
	t.Helper()
	var rehearsal site.Rehearsal
	r.read(t, "rehearsal.json", &rehearsal)
	var applied []site.Entry
	for text := range strings.Lines(r.file(t, "journal.jsonl")) {
		var e site.Entry
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if e.Run != "" { // each command's begins anew
			applied = nil
		}
		applied = append(applied, e)
	}
	want, got := lines(rehearsal.Journal), lines(applied)
	if len(want) < 100 {
		t.Errorf("the rehearsal has %d lines", len(want))
	}
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Errorf("line %d is another (of %d rehearsed and %d applied):\nrehearsed %+v\napplied   %+v", i, len(want), len(got), at(want, i), at(got, i))
			break
		}
	}
	if rehearsal.Hash == "" || rehearsal.Hash != applied[0].Hash {
		t.Errorf("plan %q was rehearsed, plan %q applied", rehearsal.Hash, applied[0].Hash)
	}
}

func at(all []line, i int) line {
	if i < len(all) {
		return all[i]
	}
	return line{Item: "(no such line)"}
}

// ofTheMachine are files that follow from what a machine is: in a lab's nodes
// control groups begin within this machine's (cgroupRoot), and DNS forwards nothing.
var ofTheMachine = []string{"file /etc/kubernetes/kubelet.yaml", "file /etc/kubernetes/slipway/coredns.yaml"}

// lines are those of items. Hosts of a step work at once: by step and host they
// have an order.
func lines(all []site.Entry) []line {
	var out []line
	for _, e := range all {
		if slices.Contains(ofTheMachine, e.Item) {
			e.Want = ""
		}
		if e.Item != "" {
			out = append(out, line{e.Phase, e.Step, e.Host, e.Item, e.Want})
		}
	}
	slices.SortStableFunc(out, func(a, b line) int {
		return strings.Compare(a.Phase+a.Step+a.Host+a.Item, b.Phase+b.Step+b.Host+b.Item)
	})
	return out
}

func (r *Rig) file(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.State, "sites", "site", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (r *Rig) read(t *testing.T, name string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.file(t, name)), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
