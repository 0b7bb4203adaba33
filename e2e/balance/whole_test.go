package balance

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"slipway/e2e/program"
	"slipway/installer/components"
	"slipway/internal/testnet"
	"slipway/lab"
)

const whole = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: NAME}
spec:
  components: light
  nodes:
    - {name: master01, roles: [control-plane]}
    - {name: master02, roles: [control-plane]}
    - {name: master03, roles: [control-plane]}
    - {name: etcd01, roles: [etcd]}
    - {name: etcd02, roles: [etcd]}
    - {name: etcd03, roles: [etcd]}
    - {name: lb01, roles: [load-balancer]}
    - {name: lb02, roles: [load-balancer]}
    - {name: node01, roles: [worker]}
    - {name: node02, roles: [worker]}
    - {name: node03, roles: [worker]}
  controlPlane: {loadBalancer: {mode: external, software: haproxy, vip: ` + vip + `}}
`

// enough is the memory of a machine that has to do for the whole, in bytes.
const enough = 8 << 30

// Eleven machines by the command line: separate masters, etcd, balancers and
// workers, and what they take of the machine's memory.
func TestWhole(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.HAProxy, testnet.Keepalived, testnet.Curl, testnet.Conntrack)
	if _, err := components.Lookup(t.Context(), "kubernetes"); err != nil {
		testnet.Lacks(t, testnet.Kubernetes, err)
	}
	name := fmt.Sprintf("ba%d", os.Getpid())
	content := []byte(strings.Replace(whole, "NAME", name, 1))
	program.Room(t, content)
	dir, err := os.MkdirTemp("/run", "slipway-ba")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "cluster.yaml")
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "slipway")
	if err := testnet.Build(binary, "slipway/cmd/slipway"); err != nil {
		t.Fatal(err)
	}
	slipway := func(args ...string) (string, error) {
		cmd := exec.Command(binary, args...)
		cmd.Env = append(os.Environ(), lab.StateDirEnv+"="+dir)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := slipway(args...)
		if err != nil {
			t.Fatalf("slipway %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return out
	}
	t.Cleanup(func() {
		if out, err := slipway("down", "--all"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	began := time.Now()
	run("up", "-q", "-f", file)
	t.Logf("up in %v", time.Since(began).Round(100*time.Millisecond))

	use := proportional(t, name)
	t.Logf("%d MB of memory, shared pages counted once", use>>20)
	if use > enough || use < 500<<20 { // less cannot be the whole
		t.Errorf("the cluster takes %d MB", use>>20)
	}
	has := func(node string) bool {
		_, err := slipway("exec", node, "--", "sh", "-c", "ip -o addr show dev eth0 | grep -qw 'inet "+vip+"/32'")
		return err == nil
	}
	moved := func(to string) {
		t.Helper()
		testnet.Eventually(t, time.Minute, "the VIP is on "+to, func() (bool, string) {
			first, second := has("lb01"), has("lb02")
			return first != second && first == (to == "lb01"), fmt.Sprintf("lb01 %v, lb02 %v", first, second)
		})
	}
	moved("lb01")
	// An `up` that finds nothing to repair leaves the VIP where it is.
	holder := run("exec", "lb01", "--", "systemctl", "show", "api-vip", "-p", "MainPID")
	if out := run("up", "-f", file); !strings.Contains(out, "no changes") || run("exec", "lb01", "--", "systemctl", "show", "api-vip", "-p", "MainPID") != holder {
		t.Errorf("a second up: %s", out)
	}
	moved("lb01")
	run("exec", "lb01", "--", "systemctl", "stop", "api-balancer")
	moved("lb02")
	// The cluster goes on: what is asked for becomes pods on workers.
	run("kubectl", "create", "deployment", "web", "--image=nginx", "--replicas=3")
	testnet.Eventually(t, 2*time.Minute, "three pods run", func() (bool, string) {
		out, err := slipway("kubectl", "get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}")
		return err == nil && out == "3", out
	})
	run("exec", "lb01", "--", "systemctl", "start", "api-balancer")
	moved("lb01")
}

// proportional is the memory of a lab's processes, in bytes: pages that several
// share are shared out among them (proc_pid_smaps(5), Pss).
func proportional(t *testing.T, name string) (sum int64) {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range environs {
		env, err := os.ReadFile(path)
		if err != nil || !slices.ContainsFunc(strings.Split(string(env), "\x00"), func(v string) bool {
			_, value, _ := strings.Cut(v, "=")
			return strings.HasPrefix(v, "SLIPWAY_LAB_") && strings.HasPrefix(value, name+"/")
		}) {
			continue
		}
		f, err := os.Open(filepath.Join(filepath.Dir(path), "smaps_rollup"))
		if err != nil {
			continue // it has ended
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
				kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				sum += kb << 10
			}
		}
		_ = f.Close()
	}
	return sum
}
