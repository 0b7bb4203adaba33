package kubelet

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"slipway/lab"
	"slipway/topology"
)

// linger is how long a pod that is being deleted goes on answering: until the
// kube-proxies have heard of it, as a server does that ends in good order. A pod
// whose grace is shorter gets no more than that.
const linger = 500 * time.Millisecond

// kept is the part of an object's metadata that a lab works with.
func kept(m metav1.ObjectMeta) metav1.ObjectMeta {
	out := metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, Labels: m.Labels, Annotations: maps.Clone(m.Annotations)}
	delete(out.Annotations, corev1.LastAppliedConfigAnnotation)
	if len(out.Annotations) == 0 {
		out.Annotations = nil
	}
	for _, o := range m.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			out.OwnerReferences = append(out.OwnerReferences, o)
		}
	}
	return out
}

// plainPod is the part of a pod that a lab works with. What changes with its
// status is left out: the lab has nothing to do then.
func plainPod(p *corev1.Pod) corev1.Pod {
	out := corev1.Pod{ObjectMeta: kept(p.ObjectMeta)}
	out.Spec.NodeName, out.Spec.Hostname, out.Spec.Subdomain = p.Spec.NodeName, p.Spec.Hostname, p.Spec.Subdomain
	out.Spec.HostNetwork = p.Spec.HostNetwork
	for _, c := range p.Spec.Containers {
		out.Spec.Containers = append(out.Spec.Containers, corev1.Container{Name: c.Name, Ports: c.Ports})
	}
	if len(out.Spec.Containers) > 0 && !slices.ContainsFunc(out.Spec.Containers, func(c corev1.Container) bool { return len(c.Ports) > 0 }) {
		out.Spec.Containers[0].Ports = unsaidPorts
	}
	return out
}

// unsaidPorts are where a pod answers that declares no ports, as the stand-in for
// images of a full lab does (installer/images StandIns): `kubectl create
// deployment web --image=nginx` makes such a pod, and nginx listens all the same.
var unsaidPorts = []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 8080}}

func plainService(s *corev1.Service) corev1.Service {
	return corev1.Service{ObjectMeta: kept(s.ObjectMeta), Spec: s.Spec, Status: corev1.ServiceStatus{LoadBalancer: s.Status.LoadBalancer}}
}

func plainSlice(s *discoveryv1.EndpointSlice) discoveryv1.EndpointSlice {
	m := kept(s.ObjectMeta)
	m.Annotations, m.OwnerReferences = nil, nil // the time of the last change, and the service
	return discoveryv1.EndpointSlice{ObjectMeta: m, AddressType: s.AddressType, Endpoints: s.Endpoints, Ports: s.Ports}
}

// admission decides which of the pods that are on a light lab's nodes are to be
// plugged in.
type admission struct {
	lab string
	// room is how many pods each node may have; nodes that are not in it are not ours.
	room map[string]int
	// running are the pods that are plugged in, by key.
	running map[string]types.UID
	// leaving is since when pods are known to be on their way out.
	leaving map[types.UID]time.Time
	now     time.Time
}

// verdict is what becomes of a pod.
type verdict struct {
	in bool
	// problem is why a pod that should be in is not, in words for its events.
	problem string
	// again is when to look again; zero: when something changes.
	again time.Time
}

// over reports whether a pod has come to its end, after which no node runs it.
func over(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// judge looks at pods in the order in which they were made, so that of too many
// the last ones wait.
func (a admission) judge(pods []*corev1.Pod) map[types.UID]verdict {
	pods = slices.Clone(pods)
	slices.SortStableFunc(pods, func(x, y *corev1.Pod) int { return x.CreationTimestamp.Compare(y.CreationTimestamp.Time) })
	used, out := map[string]int{}, make(map[types.UID]verdict, len(pods))
	for _, p := range pods {
		if _, ours := a.room[p.Spec.NodeName]; !ours || over(p) {
			continue
		}
		v := a.one(p)
		if v.in && !p.Spec.HostNetwork {
			if used[p.Spec.NodeName]++; used[p.Spec.NodeName] > a.room[p.Spec.NodeName] {
				v = verdict{problem: "the node's subnet has no address left"}
			}
		}
		out[p.UID] = v
	}
	return out
}

func (a admission) one(p *corev1.Pod) verdict {
	if p.DeletionTimestamp != nil {
		end := a.leaving[p.UID].Add(min(grace(p), linger))
		return verdict{in: a.now.Before(end) && a.running[key(p)] == p.UID, again: end}
	}
	if p.Spec.HostNetwork {
		return verdict{in: true}
	}
	if was, ok := a.running[key(p)]; ok && was != p.UID {
		return verdict{again: a.now} // another one of this name has to go first
	}
	if len(lab.NSOfPod(a.lab, key(p))) > maxFileName {
		return verdict{problem: "the name of its network namespace would be too long for a file"}
	}
	return verdict{in: true}
}

// maxFileName is NAME_MAX (linux include/uapi/linux/limits.h).
const maxFileName = 255

// grace is how long a pod that is being deleted may take.
func grace(p *corev1.Pod) time.Duration {
	if s := p.DeletionGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// dnsLabels are those of the cluster's DNS, as kubeadm's and CoreDNS's manifests
// name it.
const (
	dnsNamespace = metav1.NamespaceSystem
	dnsLabel     = "k8s-app"
	dnsApp       = "kube-dns"
)

// isDNS reports whether a pod is one of the cluster's DNS servers, which a light
// lab is itself.
func isDNS(p *corev1.Pod) bool { return p.Namespace == dnsNamespace && p.Labels[dnsLabel] == dnsApp }

// objects are the lab's, of what the API has and was let in.
func objects(pods []*corev1.Pod, verdicts map[types.UID]verdict, services []*corev1.Service, slices []*discoveryv1.EndpointSlice) *topology.Objects {
	out := &topology.Objects{}
	for _, p := range pods {
		if !verdicts[p.UID].in {
			continue
		}
		plain := plainPod(p)
		if isDNS(p) {
			if plain.Annotations == nil {
				plain.Annotations = map[string]string{}
			}
			plain.Annotations[topology.PodKindAnnotation] = string(topology.PodDNS)
		}
		out.Pods = append(out.Pods, plain)
	}
	for _, s := range services {
		out.Services = append(out.Services, plainService(s))
	}
	for _, s := range slices {
		out.EndpointSlices = append(out.EndpointSlices, plainSlice(s))
	}
	return out
}
