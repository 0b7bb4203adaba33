package kubelet

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"slipway/datapath/lease"
	"slipway/topology"
)

// machineInfo is what all nodes of a lab have in common: the machine.
type machineInfo struct {
	version              string // of Kubernetes
	kernel, bootID, arch string
	cpus                 int
	memoryBytes          uint64
}

// lightSuffix is appended to the version of Kubernetes: nobody shall take these
// for kubelets.
const lightSuffix = "-slipway-light"

// thisMachine looks at the machine that the lab is on.
func thisMachine(version string) (machineInfo, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return machineInfo{}, fmt.Errorf("read the kernel's version: %w", err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return machineInfo{}, fmt.Errorf("read the memory's size: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return machineInfo{}, err
	}
	return machineInfo{
		version: version + lightSuffix, kernel: unix.ByteSliceToString(uts.Release[:]), bootID: strings.TrimSpace(string(boot)),
		arch: runtime.GOARCH, cpus: runtime.NumCPU(), memoryBytes: info.Totalram * uint64(info.Unit),
	}, nil
}

// played are the nodes whose kubelets a light lab plays: all of the datapath.
func played(s *topology.Snapshot) (out []topology.NodeState) {
	for _, n := range s.Nodes {
		if n.InDatapath() {
			out = append(out, n)
		}
	}
	return out
}

// room is how many pods a node has addresses for.
func room(s *topology.Snapshot, n topology.NodeState) int {
	if n.PodCIDR.IsValid() {
		return max(1<<(32-n.PodCIDR.Bits())-3, 0) // the subnet's, the bridge's, the broadcast address
	}
	// Blocks come as they are needed; each node may have its share of them.
	blocks := 1 << max(topology.CalicoBlockLength-s.Network.PodCIDR.Bits(), 0)
	return max(blocks/max(len(played(s)), 1), len(n.Blocks))<<(32-topology.CalicoBlockLength) - 1
}

// nodeObject is a node as its kubelet registers it.
func nodeObject(s *topology.Snapshot, n topology.NodeState, m machineInfo, now metav1.Time) (*corev1.Node, error) {
	out := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: maps.Clone(n.Labels)}}
	var err error
	if out.Annotations, err = annotations(s, n); err != nil {
		return nil, err
	}
	if n.PodCIDR.IsValid() {
		out.Spec.PodCIDR, out.Spec.PodCIDRs = n.PodCIDR.String(), []string{n.PodCIDR.String()}
	}
	if !n.RunsPods() && slices.ContainsFunc(s.Nodes, func(o topology.NodeState) bool { return o.RunsPods() }) {
		for _, r := range n.Roles {
			out.Spec.Taints = append(out.Spec.Taints, corev1.Taint{Key: "node-role.kubernetes.io/" + string(r), Effect: corev1.TaintEffectNoSchedule})
		}
	}
	out.Status = nodeStatus(n, room(s, n), m, now)
	return out, nil
}

// leaseAnnotations are all that annotations writes, in whichever mode.
var leaseAnnotations = []string{
	lease.BackendTypeAnnotation, lease.BackendDataAnnotation, lease.PublicIPAnnotation, lease.ManagedAnnotation, lease.BlocksAnnotation,
}

// annotations are flannel's, as a node with flanneld has them, or a node's blocks.
func annotations(s *topology.Snapshot, n topology.NodeState) (map[string]string, error) {
	if s.Network.Mode.IsCalico() {
		return map[string]string{lease.BlocksAnnotation: joined(n.Blocks)}, nil
	}
	backend := strings.TrimPrefix(string(s.Network.Mode), "flannel-")
	data := []byte("null")
	if s.Network.Mode == topology.FlannelVXLAN {
		var err error
		// flannel pkg/backend/vxlan/vxlan.go, vxlanLeaseAttrs
		data, err = json.Marshal(struct{ VNI, VtepMAC any }{s.Network.VXLAN.VNI, n.VTEPMAC})
		if err != nil {
			return nil, err
		}
	}
	return map[string]string{
		lease.BackendTypeAnnotation: backend, lease.BackendDataAnnotation: string(data),
		lease.PublicIPAnnotation: n.Interface.Prefix.Addr().String(), lease.ManagedAnnotation: "true",
	}, nil
}

func joined(blocks []netip.Prefix) string {
	var out []string
	for _, b := range blocks {
		out = append(out, b.String())
	}
	return strings.Join(out, ",")
}

// nodeStatus says that a node is well, and how big.
func nodeStatus(n topology.NodeState, pods int, m machineInfo, now metav1.Time) corev1.NodeStatus {
	size := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(m.cpus), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(int64(m.memoryBytes), resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(int64(pods), resource.DecimalSI),
	}
	is := func(kind corev1.NodeConditionType, holds bool, why, said string) corev1.NodeCondition {
		c := corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: why, Message: said, LastHeartbeatTime: now, LastTransitionTime: now}
		if holds {
			c.Status = corev1.ConditionTrue
		}
		return c
	}
	return corev1.NodeStatus{
		Capacity: size, Allocatable: size.DeepCopy(),
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.Interface.Prefix.Addr().String()}, {Type: corev1.NodeHostName, Address: n.Name}},
		Conditions: []corev1.NodeCondition{
			is(corev1.NodeMemoryPressure, false, "LightNode", "nothing runs on a light node"),
			is(corev1.NodeDiskPressure, false, "LightNode", "nothing runs on a light node"),
			is(corev1.NodePIDPressure, false, "LightNode", "nothing runs on a light node"),
			is(corev1.NodeReady, true, "LightNodeReady", "pods are plugged in and answered for; no container is run"),
		},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion: m.version, KernelVersion: m.kernel, OSImage: "Slipway light node", ContainerRuntimeVersion: "slipway://none",
			OperatingSystem: "linux", Architecture: m.arch, BootID: m.bootID, MachineID: n.Name, SystemUUID: n.Name,
		},
	}
}

// heartbeat is how often conditions are written again that have not changed
// (k8s.io/kubernetes pkg/kubelet/apis/config, nodeStatusReportFrequency). That a
// node lives its lease says.
const heartbeat = 5 * time.Minute

// nodePatches are what makes a node that is registered the wanted one: of its
// metadata and spec, and of its status; nil where it is. What others have put
// there stays, but for the leases of another mode.
func nodePatches(have, want *corev1.Node) (meta, status []byte, err error) {
	to := have.DeepCopy()
	for _, own := range leaseAnnotations {
		delete(to.Annotations, own)
	}
	to.Labels, to.Annotations = withAll(to.Labels, want.Labels), withAll(to.Annotations, want.Annotations)
	if to.Spec.PodCIDR == "" {
		to.Spec.PodCIDR, to.Spec.PodCIDRs = want.Spec.PodCIDR, want.Spec.PodCIDRs
	}
	if meta, err = nodePatch(have, to); err != nil {
		return nil, nil, err
	}
	to = have.DeepCopy()
	w := want.Status.DeepCopy()
	for i := range w.Conditions {
		keepTimes(have.Status.Conditions, &w.Conditions[i])
	}
	to.Status.Capacity, to.Status.Allocatable, to.Status.Addresses, to.Status.NodeInfo = w.Capacity, w.Allocatable, w.Addresses, w.NodeInfo
	for _, c := range w.Conditions {
		to.Status.Conditions = slices.DeleteFunc(to.Status.Conditions, func(o corev1.NodeCondition) bool { return o.Type == c.Type })
		to.Status.Conditions = append(to.Status.Conditions, c)
	}
	status, err = nodePatch(have, to)
	return meta, status, err
}

func withAll(to, from map[string]string) map[string]string {
	if to == nil {
		return from
	}
	maps.Copy(to, from)
	return to
}

// keepTimes takes over from a condition's former self what has not changed.
func keepTimes(have []corev1.NodeCondition, c *corev1.NodeCondition) {
	for _, o := range have {
		if o.Type != c.Type {
			continue
		}
		if o.Status == c.Status {
			c.LastTransitionTime = o.LastTransitionTime
		}
		if o.Status == c.Status && o.Reason == c.Reason && c.LastHeartbeatTime.Sub(o.LastHeartbeatTime.Time) < heartbeat {
			c.LastHeartbeatTime = o.LastHeartbeatTime
		}
	}
}

func nodePatch(from, to *corev1.Node) ([]byte, error) {
	a, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(to)
	if err != nil {
		return nil, err
	}
	p, err := strategicpatch.CreateTwoWayMergePatch(a, b, corev1.Node{})
	if err != nil || string(p) == "{}" {
		return nil, err
	}
	return p, nil
}
