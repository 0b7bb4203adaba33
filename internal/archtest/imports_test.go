package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layers is the package map from top to bottom: a package may import only
// packages of layers above its own (and of internal). Packages that share a
// layer do not know each other.
var layers = [][]string{
	{"examples", "topology"},
	{"datapath"},
	{"datapath/flannel", "datapath/calico", "datapath/kubeproxy", "datapath/nft"},
	{"datapath/netfilter", "datapath/modes"},
	{"datapath/linux"},
	{"datapath/udptun", "datapath/ipiptun", "datapath/bgp", "datapath/bpf"},
	{"datapath/running"},
	{"datapath/trace"},
	{"datapath/skbtrace", "datapath/ruletrace"},
	{"datapath/observe"},
	{"datapath/cni", "datapath/lease", "datapath/hostview"},
	{"datapath/agent"},
	{"installer/components", "installer/pki"},
	{"installer"},
	{"installer/ssh", "installer/images", "installer/facts", "installer/verify"},
	{"installer/cluster", "installer/bundle", "installer/backup"},
	{"installer/preflight", "installer/mesh", "installer/daytwo", "installer/site"},
	{"lab/journal", "lab/procs", "lab/shape", "lab/echo", "lab/clusterdns", "lab/podexec", "lab/graph", "lab/units", "lab/cgroup"},
	{"lab/daemon", "lab/initd"},
	{"lab"},
	{"lab/kubeapi"},
	{"lab/kubelet", "lab/kube"},
	{"lab/bench/report", "lab/bench/load", "lab/bench/footprint", "lab/bench/realproxy"},
	{"lab/bench/matrix"},
	{"lab/doctor", "lab/bench", "lab/netview", "lab/traceview", "lab/remote"},
	{"lab/bench/peers", "lab/bench/curve", "lab/bench/kubejobs"},
	{"lab/tracer", "lab/capture", "lab/services", "lab/timeline"},
	{"lab/scenario", "lab/outage"},
	{"lab/demo", "lab/ui"},
	{"cmd/slipway"},
	{"e2e/rig", "e2e/program"}, // machines for the tests of the installer; the program for the tests of the whole
	{"e2e/hosts", "e2e/vms"},   // machines that are reached by SSH
	{"e2e", "e2e/kubeproxy", "e2e/robust", "e2e/tracing", "e2e/installer", "e2e/interop", "e2e/machines", "e2e/balance", "e2e/conformance", "e2e/components", "e2e/daytwo", "e2e/pages", "e2e/foreign"}, // tests of the whole
}

// pure packages compute and never look at a kernel: none of these may be in
// their imports, directly.
var (
	pure      = []string{"topology", "datapath", "datapath/flannel", "datapath/calico", "datapath/kubeproxy", "datapath/nft", "datapath/netfilter", "datapath/trace", "lab/traceview", "lab/bench/report"}
	impureDep = []string{"os/exec", "net", "syscall", "golang.org/x/sys/unix", "github.com/vishvananda/netlink", "slipway/internal/netns", "slipway/internal/nl", "slipway/internal/run", "slipway/internal/filelock"}
)

type listed struct {
	ImportPath string
	Imports    []string
}

func list(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "slipway/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []listed
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func layerOf(pkg string) (int, bool) {
	for i, l := range layers {
		for _, p := range l {
			if pkg == "slipway/"+p {
				return i, true
			}
		}
	}
	return 0, false
}

func TestImportsPointUpwards(t *testing.T) {
	seen := 0
	for _, p := range list(t) {
		if strings.HasPrefix(p.ImportPath, "slipway/internal/") {
			for _, dep := range p.Imports {
				if p.ImportPath == "slipway/internal/plantest" { // snapshots for tests
					break
				}
				if strings.HasPrefix(dep, "slipway/") && !strings.HasPrefix(dep, "slipway/internal/") {
					t.Errorf("%s imports %s: internal packages know nothing of the product", p.ImportPath, dep)
				}
			}
			continue
		}
		at, ok := layerOf(p.ImportPath)
		if !ok {
			t.Errorf("%s stands in no layer: give it its place in this test and in docs/architecture.md", p.ImportPath)
			continue
		}
		seen++
		for _, dep := range p.Imports {
			if !strings.HasPrefix(dep, "slipway/") || strings.HasPrefix(dep, "slipway/internal/") {
				continue
			}
			if l, ok := layerOf(dep); ok && l >= at {
				t.Errorf("%s imports %s, which does not stand above it", p.ImportPath, dep)
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages were looked at: the list must be wrong", seen)
	}
}

func TestPurePackagesStayPure(t *testing.T) {
	for _, p := range list(t) {
		for _, name := range pure {
			if p.ImportPath != "slipway/"+name {
				continue
			}
			for _, dep := range p.Imports {
				for _, bad := range impureDep {
					if dep == bad {
						t.Errorf("%s imports %s but must stay pure", p.ImportPath, dep)
					}
				}
			}
		}
	}
}
