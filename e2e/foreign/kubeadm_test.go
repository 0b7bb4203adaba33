package foreign

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/e2e/hosts"
	"slipway/installer"
	"slipway/installer/components"
	"slipway/installer/preflight"
	"slipway/installer/verify"
	"slipway/internal/testnet"
	"slipway/lab/bench/report"
	"slipway/lab/kube"
	"slipway/topology"
)

func TestMain(m *testing.M) { os.Exit(hosts.Main(m)) }

// machineScript makes a machine one that kubeadm expects.
//
//go:embed machine.sh
var machineScript []byte

// inotify is what kubeadm's cluster of two nodes takes: its programs take what ours do
// ([kube.InotifyNeed] of a control plane and a worker, 33), and some of CoreDNS's two.
const inotify = 40

// patience is for what takes seconds on a machine that has nothing else to do.
const patience = 5 * time.Minute

// kubectl is run on the control plane.
const kubectl = "kubectl --kubeconfig /etc/kubernetes/admin.conf "

// config is what kubeadm is told. The machines share their kernel: its settings and
// its memory are not for one of them to manage.
const config = `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: %[1]s}
nodeRegistration:
  criSocket: unix:///run/containerd/containerd.sock
  taints: []
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: %[2]s
networking: {podSubnet: 10.50.0.0/16, serviceSubnet: 10.97.0.0/16}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
protectKernelDefaults: true
oomScoreAdj: 0
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi}
`

// cluster is kubeadm's, on host1, the control plane, and host2. Both run pods.
type cluster struct {
	*hosts.Rig
	kubeconfig string // the operator's
}

// TestKubeadm uses a cluster that kubeadm made as somebody does who has nothing of it
// but a kubeconfig; and the installer leaves such machines alone.
func TestKubeadm(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.Nspawn)
	c := start(t)
	t.Run("verify", c.verifies)
	t.Run("bench", c.measures)
	t.Run("preflight", c.refuses)
}

// start has kubeadm make the cluster.
func start(t *testing.T) *cluster {
	programs, images, version := supply(t)
	c := &cluster{Rig: hosts.Start(t, 2, inotify)}
	first, second := c.Machines[0], c.Machines[1]
	send(t, first, programs, images)
	send(t, second, programs, images)
	began := time.Now()
	for i, m := range c.Machines {
		write(t, m, "/root/kubeadm.yaml", fmt.Appendf(nil, config, first.Address, version))
		write(t, m, "/root/machine.sh", machineScript)
		m.Must(fmt.Sprintf("programs=/root/programs images=/root/images config=/root/kubeadm.yaml bash /root/machine.sh 10.50.%d.0/24 10.50.%d.0/24 %s", i, 1-i, c.Machines[1-i].Address))
	}
	t.Logf("the machines are prepared: %s", time.Since(began).Round(time.Second/10))
	// kube-proxy's image is Debian's, with iptables: it runs beside kubelet instead.
	said := first.Must("kubeadm init --config /root/kubeadm.yaml --skip-phases addon/kube-proxy --ignore-preflight-errors all 2>&1")
	join := ""
	for line := range strings.Lines(strings.ReplaceAll(said, "\\\n", "")) {
		if strings.HasPrefix(line, "kubeadm join ") {
			join = strings.TrimSpace(line)
		}
	}
	if join == "" {
		t.Fatalf("kubeadm says nobody how to join:\n%s", said)
	}
	second.Must(join + " --ignore-preflight-errors all 2>&1")
	admin := first.Must("cat /etc/kubernetes/admin.conf")
	for _, m := range c.Machines {
		write(t, m, "/etc/kubernetes/kube-proxy.conf", []byte(admin))
		m.Must("systemctl start kube-proxy")
	}
	c.kubeconfig = filepath.Join(c.Home, "admin.conf")
	if err := os.WriteFile(c.kubeconfig, []byte(admin), 0o600); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, patience, "both nodes are ready", func() (bool, string) {
		out, _ := first.Sh(kubectl + "get nodes --no-headers")
		return strings.Count(out, " Ready ") == 2, out
	})
	testnet.Eventually(t, patience, "CoreDNS runs", func() (bool, string) {
		out, code := first.Sh(kubectl + "-n kube-system rollout status deployment/coredns --timeout 5s")
		return code == 0, out
	})
	t.Logf("kubeadm's cluster works after %s", time.Since(began).Round(time.Second/10))
	return c
}

// supply are the programs of nodes and of the control plane, and archives of images.
func supply(t *testing.T) (programs map[string]string, images []string, version string) {
	t.Helper()
	f, diags := topology.Parse("cluster.yaml", []byte("apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: foreign}\nspec: {components: full}\n"))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	blobs, archives, err := kube.Supply(t.Context(), f, nil)
	if err != nil {
		testnet.Lacks(t, testnet.Kubernetes, err)
	}
	kubeadm, err := components.Verify(t.Context(), "kubeadm")
	if err != nil {
		testnet.Lacks(t, testnet.Kubeadm, err)
	}
	programs = map[string]string{"kubeadm": kubeadm.Path("kubeadm")}
	for _, name := range []string{"kubernetes", "etcd", "etcdctl", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "bridge", "host-local", "loopback"} {
		programs[name] = blobs[name].Path
	}
	for _, a := range archives {
		images = append(images, a.Path)
	}
	slices.Sort(images)
	return programs, slices.Compact(images), kubeadm.Version
}

// send copies files to where a machine's script finds them.
func send(t *testing.T, m *hosts.Machine, programs map[string]string, images []string) {
	t.Helper()
	files := map[string]string{}
	for name, from := range programs {
		files["/root/programs/"+name] = from
	}
	for _, from := range images {
		files["/root/images/"+filepath.Base(from)] = from
	}
	for to, from := range files {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, m, to, data)
	}
}

// write puts a file on a machine, as root.
func write(t *testing.T, m *hosts.Machine, to string, data []byte) {
	t.Helper()
	r, err := m.Run(t.Context(), installer.Command{Argv: []string{"sh", "-c", "umask 077; mkdir -p " + path.Dir(to) + " && cat >" + to}, Stdin: data})
	if err != nil || r.Code != 0 {
		t.Fatalf("%s: %s: %v %s", m.Name(), to, err, r.Stderr)
	}
}

// image gives both nodes an image as the documentation says, and returns its name.
func (c *cluster) image(t *testing.T, name string) (ref string) {
	t.Helper()
	file := filepath.Join(c.Home, name+".tar")
	o := c.SlipwayMust("components", "image", name, "-w", file, "-o", "json")
	var written struct{ Image string }
	if err := json.Unmarshal([]byte(o.Stdout), &written); err != nil || written.Image == "" {
		t.Fatalf("%v: %v", err, o)
	}
	for _, m := range c.Machines {
		send(t, m, nil, []string{file})
		m.Must("ctr -n k8s.io images import /root/images/" + name + ".tar")
	}
	return written.Image
}

// verifies asks every server from everywhere.
func (c *cluster) verifies(t *testing.T) {
	c.Use(t)
	o := c.Slipway("install", "verify", "--kubeconfig", c.kubeconfig, "--image", c.image(t, "echo"), "--patience", "1m", "-o", "json")
	var r verify.Report
	if err := json.Unmarshal([]byte(o.Stdout), &r); err != nil {
		t.Fatalf("%v: %v", err, o)
	}
	for _, cell := range r.Failed() {
		t.Errorf("%s: %s", cell, cell.Reason)
	}
	if o.Code != 0 || len(r.Cells) == 0 {
		t.Errorf("%d cells: %v", len(r.Cells), o)
	}
	c.nothingLeft(t)
}

// measures runs the bench's Jobs.
func (c *cluster) measures(t *testing.T) {
	c.Use(t)
	o := c.Slipway("bench", "--kubeconfig", c.kubeconfig, "--image", c.image(t, "slipway"), "--workloads", "tcp-stream,tcp-rr", "--streams", "1",
		"--duration", "1s", "--rounds", "1", "--max-rounds", "1", "--budget", "0", "-o", "json")
	r, err := report.Read(bytes.NewReader([]byte(o.Stdout)), "stdout")
	if err != nil || o.Code != 0 {
		t.Fatalf("%v: %v", err, o)
	}
	var rows []string
	for _, s := range r.Series {
		rows = append(rows, strings.TrimSpace(strings.Join([]string{s.Workload, s.Path, s.Target}, " ")))
		if i := slices.IndexFunc(s.Metrics, func(m report.Metric) bool { return m.Name == s.Main }); i < 0 || s.Metrics[i].Summary.Median <= 0 {
			t.Errorf("%s has no %s: %+v", rows[len(rows)-1], s.Main, s.Metrics)
		}
	}
	slices.Sort(rows)
	var want []string
	for _, load := range []string{"tcp-rr", "tcp-stream"} {
		want = append(want, load+" node", load+" other-node clusterip", load+" other-node pod", load+" same-node pod")
	}
	if !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q", rows, want)
	}
	c.nothingLeft(t)
}

// nothingLeft checks that the cluster has the namespaces that kubeadm made.
func (c *cluster) nothingLeft(t *testing.T) {
	t.Helper()
	out := c.Machines[0].Must(kubectl + "get namespaces -o name")
	if want := "namespace/default\nnamespace/kube-node-lease\nnamespace/kube-public\nnamespace/kube-system\n"; out != want {
		t.Errorf("there are %q", out)
	}
}

// refuses has the installer asked whether it can make a cluster of its own there. It
// says what is in the way as long as something is: all of kubeadm's cluster, then what
// kubeadm's own reset leaves, then nothing, when that is gone as the hints say.
func (c *cluster) refuses(t *testing.T) {
	c.Use(t)
	file := c.ClusterFile("flannel-vxlan")
	c.inTheWay(t, file, "cni-leftovers host1", "cni-leftovers host2", "other-cluster host1", "other-cluster host2", "ports host1")
	for _, m := range c.Machines {
		m.Must("systemctl stop kube-proxy; kubeadm reset -f --cri-socket unix:///run/containerd/containerd.sock 2>&1")
	}
	c.inTheWay(t, file, "cni-leftovers host1", "cni-leftovers host2")
	for _, m := range c.Machines {
		m.Must("for i in iptables ip6tables; do $i-save | grep -vE 'KUBE-' | $i-restore; done; rm -r /etc/cni/net.d/10-bridge.conflist /var/lib/cni/networks/pods")
	}
	c.inTheWay(t, file)
}

// inTheWay checks which of the preflight's checks fail, and on which machines.
func (c *cluster) inTheWay(t *testing.T, file string, want ...string) {
	t.Helper()
	o := c.Slipway("install", "preflight", "-f", file, "-o", "json")
	var p struct {
		OK       bool
		Findings []preflight.Finding
	}
	if err := json.Unmarshal([]byte(o.Stdout), &p); err != nil {
		t.Fatalf("%v: %v", err, o)
	}
	var got []string
	for _, f := range p.Findings {
		if f.Severity == preflight.Error {
			got = append(got, f.Check+" "+f.Host)
		}
	}
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) || p.OK != (len(want) == 0) || (o.Code == 0) != p.OK {
		t.Errorf("%q are in the way, want %q; exit code %d\n%s", got, want, o.Code, o.Stdout)
	}
}
