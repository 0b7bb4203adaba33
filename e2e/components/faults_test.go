package components

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/initd"
	"slipway/lab/procs"
)

const threeMasters = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: NAME}
spec:
  components: light
  nodes:
    - {name: m1, roles: [control-plane, etcd]}
    - {name: m2, roles: [control-plane, etcd]}
    - {name: m3, roles: [control-plane, etcd]}
    - {name: n1, roles: [worker]}
    - {name: n2, roles: [worker]}
`

// TestFaults walks through a tutorial on a cluster of three masters, and then
// breaks the cluster, piece by piece and at last all of it at once. What it had before goes on as far as it can, and afterwards
// everything works again. One cluster goes through all, since a fault that leaves
// something behind is one that the next may find.
func TestFaults(t *testing.T) {
	u := newUser(t, threeMasters)
	f := &faults{user: u}
	u.kubectl(t, "create", "configmap", "kept", "--from-literal=what=all of it")
	u.kubectl(t, "create", "deployment", "web", "--image=nginx", "--replicas=2")
	u.kubectl(t, "expose", "deployment", "web", "--type=NodePort", "--port=80")
	f.web = u.pods(t, "web", 2)
	f.port = u.nodePort(t, "web")
	u.answers(t, f.port, f.web, u.nodes...)
	t.Run("none", func(t *testing.T) { u.tutorial(t) })
	t.Run("components", f.components)
	t.Run("one etcd member", f.oneMember)
	t.Run("two etcd members", f.twoMembers)
	t.Run("an API server", f.oneServer)
	t.Run("the lab's daemon", f.daemon)
	t.Run("the process of the kubelets", f.kubelets)
	t.Run("power", f.power)
}

// faults is the cluster that they happen to.
type faults struct {
	*user
	web  map[string]string // pods that are there all the time
	port string            // the node port of their service
}

// components: each is killed on all nodes at once. The nodes' supervisors start
// it again.
func (f *faults) components(t *testing.T) {
	for _, units := range [][]string{
		{"etcd"}, {"kube-apiserver"}, {"api-balancer"}, {"kube-proxy"},
		// Who led among these does for fifteen seconds, even when dead: both at once.
		{"kube-controller-manager", "kube-scheduler"},
	} {
		t.Run(strings.Join(units, " and "), func(t *testing.T) {
			was := map[string]int{}
			for _, node := range f.nodes {
				for _, unit := range units {
					if s, ok := f.unit(t, node, unit); ok {
						was[node+" "+unit] = s.PID
						f.kill(t, node, s.PID)
					}
				}
			}
			if len(was) < 3 {
				t.Fatalf("%v run %d times", units, len(was))
			}
			for what, pid := range was {
				node, unit, _ := strings.Cut(what, " ")
				f.active(t, node, unit, pid)
			}
			f.answers(t, f.port, f.web, f.nodes...)
			f.anew(t)
		})
	}
}

// oneMember: one of three members is gone. Writes go on.
func (f *faults) oneMember(t *testing.T) {
	f.gone(t, "m3", "etcd")
	f.kubectl(t, "create", "configmap", "without-m3")
	f.anew(t)
}

// twoMembers: a second is gone, and with it the majority. Nothing can be written
// and nothing read that has to be new; what the last member and the API servers
// remember can be read, and services go on. When one comes back, so does all.
func (f *faults) twoMembers(t *testing.T) {
	f.gone(t, "m2", "etcd")
	// The member keeps what it was asked for and may pass it on later: an answer that
	// does not come says neither yes nor no. It must not be yes.
	if out, code := f.slipway("kubectl", "create", "configmap", "refused", "--request-timeout=15s"); code == 0 {
		t.Errorf("a write without a majority is taken: %s", out)
	}
	if out, code := f.slipway("kubectl", "get", "configmap", "without-m3", "--request-timeout=3s"); code == 0 {
		t.Errorf("a read that has to be new is answered without a majority: %s", out)
	}
	services := f.kubectl(t, "get", "--raw", "/api/v1/namespaces/default/services?resourceVersion=0")
	if !strings.Contains(services, `"name":"web"`) {
		t.Errorf("the API server's memory of services lacks one: %s", services)
	}
	key := "/registry/configmaps/default/without-m3"
	if out, code := f.etcdctl(t, "m1", "get", "--keys-only", "--consistency=s", key); code != 0 || !strings.Contains(out, key) {
		t.Errorf("a read that may be old: %d %s", code, out)
	}
	if out, code := f.etcdctl(t, "m1", "get", "--keys-only", "--command-timeout=2s", key); code == 0 {
		t.Errorf("a read that has to be new is answered by a member alone: %s", out)
	}
	f.answers(t, f.port, f.web, f.nodes...)

	f.run(t, "m2", "systemctl", "start", "etcd")
	f.anew(t)
	f.run(t, "m3", "systemctl", "start", "etcd")
	testnet.Eventually(t, patience, "the member that was away has what was written meanwhile", func() (bool, string) {
		out, code := f.etcdctl(t, "m3", "get", "--keys-only", "--consistency=s", key)
		return code == 0 && strings.Contains(out, key), out
	})
}

// oneServer: one of three API servers is gone. Clients on all nodes and outside
// go on through the others.
func (f *faults) oneServer(t *testing.T) {
	f.gone(t, "m1", "kube-apiserver")
	f.anew(t)
	for _, node := range f.nodes {
		out, code := f.in(t, node, "curl", "-sSk", "-m", "5", "https://127.0.0.1:8443/livez")
		if code != 0 || out != "ok" {
			t.Errorf("an API server from %s: %d %s", node, code, out)
		}
	}
	f.run(t, "m1", "systemctl", "start", "kube-apiserver")
	f.anew(t)
}

// daemon: the lab's daemon is killed. Nothing else dies with it, and `up` takes
// up what is there.
func (f *faults) daemon(t *testing.T) {
	before := f.marked(t)
	pid := f.own(t, "slipwayd")
	f.kill(t, "", pid)
	testnet.Eventually(t, patience, "the daemon to be gone", func() (bool, string) { return f.find(t, "slipwayd") == 0, "" })
	delete(before, pid)
	f.stand(t, before)
	f.kubectl(t, "get", "nodes")
	f.do(t, "up", "-f", f.file)
	f.stand(t, before)
	if diff := cmp.Diff(f.web, f.pods(t, "web", 2)); diff != "" {
		t.Errorf("pods are others now (-before +after):\n%s", diff)
	}
	f.answers(t, f.port, f.web, f.nodes...)
	f.anew(t)
}

// kubelets: the process that plays the kubelets is killed. Services go on, and
// `up` starts it again.
func (f *faults) kubelets(t *testing.T) {
	before := f.marked(t)
	pid := f.own(t, "kubelets")
	f.kill(t, "", pid)
	delete(before, pid)
	f.answers(t, f.port, f.web, f.nodes...)
	f.do(t, "up", "-f", f.file)
	f.stand(t, before)
	if diff := cmp.Diff(f.web, f.pods(t, "web", 2)); diff != "" {
		t.Errorf("pods are others now (-before +after):\n%s", diff)
	}
	f.anew(t)
}

// power: every process of the lab is killed at once, as by a power cut. `up`
// brings it back with all that it knew.
func (f *faults) power(t *testing.T) {
	uid := f.kubectl(t, "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
	before := f.marked(t)
	for pid := range before {
		_ = syscall.Kill(pid, syscall.SIGKILL) // a node's first process takes the others along
	}
	testnet.Eventually(t, patience, "all processes to be gone", func() (bool, string) {
		left := f.marked(t)
		return len(left) == 0, fmt.Sprint(slices.Collect(maps.Values(left)))
	})
	f.do(t, "up", "-f", f.file)
	if now := f.kubectl(t, "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"); now != uid {
		t.Errorf("the cluster is another one: %s was %s", now, uid)
	}
	if got := f.field(t, "{.data.what}", "configmap", "kept"); got != "all of it" {
		t.Errorf("what etcd was given before is %q now", got)
	}
	if diff := cmp.Diff(f.web, f.pods(t, "web", 2)); diff != "" {
		t.Errorf("pods are others now (-before +after):\n%s", diff)
	}
	f.answers(t, f.port, f.web, f.nodes...)
	f.anew(t)
	// While the process of the kubelets is at work, the lab is on its way.
	testnet.Eventually(t, patience, "the lab to be as it should", func() (bool, string) {
		out, code := f.slipway("status")
		return code == 0, out
	})
}

// unit is a node's service; false if it has none of this name.
func (f *faults) unit(t *testing.T, node, name string) (initd.Status, bool) {
	t.Helper()
	all, err := lab.OpenMachine(f.name, node).Client().Services(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(s initd.Status) bool { return s.Name == name+".service" })
	if i < 0 || all[i].State != "active" {
		return initd.Status{}, false
	}
	return all[i], true
}

// active waits until a unit runs again, as another process.
func (f *faults) active(t *testing.T, node, unit string, was int) {
	t.Helper()
	testnet.Eventually(t, patience, unit+" on "+node+" to run again", func() (bool, string) {
		s, ok := f.unit(t, node, unit)
		return ok && s.PID != was, fmt.Sprintf("%+v", s)
	})
}

// gone kills a unit and keeps the supervisor from starting it again.
func (f *faults) gone(t *testing.T, node, unit string) {
	t.Helper()
	s, ok := f.unit(t, node, unit)
	if !ok {
		t.Fatalf("%s does not run on %s", unit, node)
	}
	f.kill(t, node, s.PID)
	f.run(t, node, "systemctl", "stop", unit)
}

// kill ends a process of a node, or of the machine, without warning.
func (f *faults) kill(t *testing.T, node string, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("kill process %d of %q", pid, node)
	}
	if node != "" {
		f.run(t, node, "kill", "-9", strconv.Itoa(pid))
	} else if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// in runs a command in a node.
func (f *faults) in(t *testing.T, node string, argv ...string) (string, int) {
	t.Helper()
	r, err := lab.OpenMachine(f.name, node).Client().Run(t.Context(), argv, nil)
	if err != nil {
		t.Fatalf("%s on %s: %v", argv[0], node, err)
	}
	return string(r.Stdout) + string(r.Stderr), r.Code
}

// run runs a command in a node that has to succeed.
func (f *faults) run(t *testing.T, node string, argv ...string) {
	t.Helper()
	if out, code := f.in(t, node, argv...); code != 0 {
		t.Fatalf("%v on %s: %d %s", argv, node, code, out)
	}
}

// etcdctl asks the member of a node, and no other.
func (f *faults) etcdctl(t *testing.T, node string, args ...string) (string, int) {
	t.Helper()
	const dir = "/etc/kubernetes/pki/"
	return f.in(t, node, append([]string{
		"etcdctl", "--endpoints=https://127.0.0.1:2379", "--cacert=" + dir + "etcd/ca.crt",
		"--cert=" + dir + "apiserver-etcd-client.crt", "--key=" + dir + "apiserver-etcd-client.key",
	}, args...)...)
}

// lasting are the programs that run until they are ended; others of a lab's
// processes come and go.
var lasting = []string{"slipway", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "nginx:", "nginx"}

// marked are the lab's processes that last, by number.
func (f *faults) marked(t *testing.T) map[int]string {
	t.Helper()
	all, err := procs.With(lab.Mark(f.state(t)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]string{}
	for _, p := range all {
		if program, _, _ := strings.Cut(p.Command, " "); slices.Contains(lasting, filepath.Base(program)) {
			out[p.PID] = p.Command
		}
	}
	// One that a process of slipway's has just forked to run another program has the same
	// arguments until it does, and is none that lasts.
	maps.DeleteFunc(out, func(pid int, command string) bool {
		program, _, _ := strings.Cut(command, " ")
		return filepath.Base(program) == "slipway" && out[parent(pid)] == command
	})
	return out
}

// parent is the process that a process was forked by; 0 for one that is gone.
func parent(pid int) (of int) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "PPid: %d", &of); n == 1 {
			return of
		}
	}
	return 0
}

// stand checks that all of these processes still run.
func (f *faults) stand(t *testing.T, want map[int]string) {
	t.Helper()
	now := f.marked(t)
	for pid, command := range want {
		if _, ok := now[pid]; !ok {
			t.Errorf("process %d is gone: %s", pid, command)
		}
	}
}

// own is the process of the lab that runs a command of slipway.
func (f *faults) own(t *testing.T, command string) int {
	t.Helper()
	pid := f.find(t, command)
	if pid == 0 {
		t.Fatalf("no process runs `slipway %s`", command)
	}
	return pid
}

func (f *faults) find(t *testing.T, command string) int {
	t.Helper()
	for pid, c := range f.marked(t) {
		if words := strings.Fields(c); len(words) > 1 && words[1] == command {
			return pid
		}
	}
	return 0
}
