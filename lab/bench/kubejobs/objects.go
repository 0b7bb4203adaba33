package kubejobs

import (
	"encoding/json"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What the bench's objects are known by. The namespace's label is the one that
// `slipway bench --here` has, too: each finds what the other left.
const (
	Label     = "slipway/bench"
	beatMark  = "slipway/bench-beat"  // changes while its maker lives
	ownerMark = "slipway/bench-owner" // who that is
	roleLabel = "slipway/bench-role"
	account   = "bench"
)

// The environment of the bench's pods.
const (
	ServerEnv  = "SLIPWAY_BENCH_SERVER"
	ClientEnv  = "SLIPWAY_BENCH_CLIENT"
	AddressEnv = "SLIPWAY_BENCH_ADDRESS"
	NodeEnv    = "SLIPWAY_BENCH_NODE"
	// The commands, which the image's entry point has.
	ServerCommand = "bench-server"
	ClientCommand = "bench-client"
)

// The ports of servers in pods, which nobody else has there.
const (
	podControl = 5300
	podData    = 5301
)

// grace is how long the bench's pods get to end, in seconds: they end at once.
const grace = 2

// nobody owns the bench's processes (the user of that name has 65534, which some
// images give to files).
const nobody = 65532

// place is where a pod of the bench's is.
type place struct {
	name   string // of the pod, or its Job
	role   string
	node   string
	onNode bool // with the node's network
}

// tolerant says that a node was asked for by name, whatever it is tainted with.
type pods struct {
	namespace, image string
	tolerant         bool
}

func (o pods) meta(name, role string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: o.namespace, Labels: map[string]string{Label: "true", roleLabel: role}}
}

// namespaceFor is the bench's. Pods with the node's network are refused in one that
// does not say so; without them the strictest profile does (Pod Security Standards).
func namespaceFor(name, owner string, onNode bool) *corev1.Namespace {
	level := "restricted"
	if onNode {
		level = "privileged"
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{Label: "true", "pod-security.kubernetes.io/enforce": level},
		Annotations: map[string]string{ownerMark: owner, beatMark: "0"},
	}}
}

// accountFor has no rights, and its pods no token. The account that every namespace
// gets comes a moment later.
func (o pods) accountFor() *corev1.ServiceAccount {
	token := false
	return &corev1.ServiceAccount{ObjectMeta: o.meta(account, account), AutomountServiceAccountToken: &token}
}

// server is a server's pod: it ends by itself, also when nobody ends it.
func (o pods) server(p place, c ServerConfig) (*corev1.Pod, error) {
	spec, err := o.spec(p, ServerCommand, ServerEnv, c)
	if err != nil {
		return nil, err
	}
	life := int64(time.Duration(c.LifeNs)/time.Second) + grace
	spec.ActiveDeadlineSeconds = &life
	if !p.onNode {
		spec.Containers[0].Ports = []corev1.ContainerPort{
			{Name: "control", ContainerPort: podControl}, {Name: "tcp", ContainerPort: podData}, {Name: "udp", ContainerPort: podData, Protocol: corev1.ProtocolUDP},
		}
	}
	return &corev1.Pod{ObjectMeta: o.meta(p.name, p.role), Spec: spec}, nil
}

// service leads to a server by a ClusterIP.
func (o pods) service(p place) *corev1.Service {
	port := func(name string, proto corev1.Protocol) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Protocol: proto, Port: podData, TargetPort: intstr.FromString(name)}
	}
	return &corev1.Service{ObjectMeta: o.meta(p.name, p.role), Spec: corev1.ServiceSpec{
		Selector: map[string]string{roleLabel: p.role}, Ports: []corev1.ServicePort{port("tcp", corev1.ProtocolTCP), port("udp", corev1.ProtocolUDP)},
	}}
}

// job is a client's: it runs once, and goes by itself if nobody takes it away.
func (o pods) job(p place, t Task, within time.Duration) (*batchv1.Job, error) {
	spec, err := o.spec(p, ClientCommand, ClientEnv, t)
	if err != nil {
		return nil, err
	}
	none, keep, most := int32(0), int32(600), int64(within/time.Second)
	meta := o.meta(p.name, p.role)
	return &batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{
		BackoffLimit: &none, TTLSecondsAfterFinished: &keep, ActiveDeadlineSeconds: &most,
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels}, Spec: spec},
	}}, nil
}

// spec is of a pod that runs one of the hidden commands, told by its environment,
// with no more rights than a socket needs. It goes to its node by the scheduler,
// which knows whether there is room.
func (o pods) spec(p place, command, env string, told any) (corev1.PodSpec, error) {
	raw, err := json.Marshal(told)
	if err != nil {
		return corev1.PodSpec{}, err
	}
	no, yes, user, seconds := false, true, int64(nobody), int64(grace)
	c := corev1.Container{
		Name: "slipway", Image: o.image, ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{command},
		Env: []corev1.EnvVar{
			{Name: env, Value: string(raw)},
			{Name: AddressEnv, ValueFrom: fieldRef("status.podIP")},
			{Name: NodeEnv, ValueFrom: fieldRef("spec.nodeName")},
		},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")}, // none of CPU: it would be measured
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
	spec := corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, HostNetwork: p.onNode, Containers: []corev1.Container{c},
		ServiceAccountName: account, AutomountServiceAccountToken: &no, EnableServiceLinks: &no, TerminationGracePeriodSeconds: &seconds,
		SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{p.node}},
			}}},
		}}},
	}
	if o.tolerant {
		spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}
	return spec, nil
}

func fieldRef(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

// jobName is of a client's Job in a round.
func jobName(role string, round int) string { return role + "-" + strconv.Itoa(round+1) }
