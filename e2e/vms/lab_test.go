package vms

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/internal/testnet"
)

// suite is tests of a package that run in a machine. What they are for stands
// there; here they meet another kernel.
type suite struct{ pkg, run string }

// Before the module ipip is loaded, whose tunl0 is in every namespace, and after.
// Hooks are not seen before Linux 6.4, so that of skbtrace only what needs none.
var (
	suites = []suite{
		{"datapath/bpf", "."},
		{"datapath/skbtrace", "^(TestTracepointsOnly|TestBehind)$"},
		{"datapath/ruletrace", "."},
		{"datapath/observe", "."},
		{"datapath/linux", "."},
		{"datapath/udptun", "."},
		{"lab/shape", "."},
	}
	withIPIP = []suite{
		{"datapath/linux", "^TestKernelTunnelDevice$"},
		{"e2e", "^TestModes$"},
		{"e2e/tracing", "^TestAgreement$"},
	}
)

// machineHas is what tests in the machine must not skip for: its kernel is
// Debian's own, with netem and SCTP as modules.
const machineHas = "root,vxlan,tun,bpf,iptables,ping,curl,nft,conntrack,netem,sctp"

// TestSuites runs the project's own tests on a stock kernel: what labs are made
// of, the reachability matrix in every mode, and traces in every mode.
func TestSuites(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.VMs)
	files := build(t)
	r := Start(t, Options{Machines: 1, MemoryMB: 2048, Files: files})
	m := r.Machines[0]
	t.Logf("%s booted in %s: %s", m.Name(), m.Booted.Round(time.Second), m.Must("uname -r; cat /proc/loadavg"))
	m.Must("modprobe br_netfilter") // which labs do not load for anybody
	for _, s := range suites {
		t.Run(s.pkg, func(t *testing.T) { runSuite(t, m, s, machineHas) })
	}
	m.Must("modprobe ipip")
	for _, s := range withIPIP {
		t.Run("with ipip/"+s.pkg, func(t *testing.T) { runSuite(t, m, s, machineHas+",ipip") })
	}
	if left := m.Must("ip netns list; find /run -maxdepth 1 -name 'slipway*'"); strings.TrimSpace(left) != "" {
		t.Errorf("left in the machine:\n%s", left)
	}
}

// build builds the program and the suites.
func build(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"slipway": buildSlipway(t)}
	for _, s := range append(slices.Clone(suites), withIPIP...) {
		name := suiteName(s.pkg)
		if files[name] != "" {
			continue
		}
		files[name] = filepath.Join(dir, name)
		cmd := command("go", "test", "-c", "-ldflags", "-s -w", "-o", files[name], "slipway/"+s.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go test -c %s: %v\n%s", s.pkg, err, out)
		}
		testdata, _ := filepath.Abs(filepath.Join("..", "..", s.pkg, "testdata"))
		if _, err := os.Stat(testdata); err == nil {
			files[name+".tar"] = files[name] + ".tar"
			if out, err := exec.Command("tar", "-C", filepath.Dir(testdata), "-cf", files[name+".tar"], "testdata").CombinedOutput(); err != nil {
				t.Fatalf("tar %s: %v\n%s", testdata, err, out)
			}
		}
	}
	return files
}

func suiteName(pkg string) string { return strings.ReplaceAll(pkg, "/", "-") + ".test" }

// suitePatience is what one suite may take in a machine that is emulated.
const suitePatience = time.Hour

var skipped = regexp.MustCompile(`(?m)^\s*--- SKIP.*\n.*`)

func runSuite(t *testing.T, m *Machine, s suite, has string) {
	name, pkg, run := suiteName(s.pkg), s.pkg, s.run
	began := time.Now()
	out, code := m.ShWithin(suitePatience, `set -e
dir=/tmp/`+name+`.d
mkdir -p $dir && cd $dir
[ ! -e `+FilesDir+`/`+name+`.tar ] || tar -xf `+FilesDir+`/`+name+`.tar
export `+testnet.BuiltEnv+`=`+FilesDir+`/slipway `+testnet.RequireEnv+`=`+has+`
`+FilesDir+`/`+name+` -test.v -test.timeout `+suitePatience.String()+` -test.run '`+run+`'
`)
	t.Logf("%s in %s", pkg, time.Since(began).Round(time.Second))
	for _, s := range skipped.FindAllString(out, -1) {
		t.Log(strings.TrimSpace(s))
	}
	if code != 0 {
		t.Errorf("%s: exit code %d\n%s", pkg, code, failures(out))
	}
}

// failures leaves out what passed.
func failures(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		if w := strings.TrimSpace(line); !strings.HasPrefix(w, "=== ") && !strings.HasPrefix(w, "--- PASS") {
			b.WriteString(line)
		}
	}
	return b.String()
}
