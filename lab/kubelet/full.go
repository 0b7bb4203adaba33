package kubelet

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"slipway/lab"
	"slipway/topology"
)

// sandboxEvery is how often a sandbox is looked for that a pod with an address
// must have.
const sandboxEvery = 200 * time.Millisecond

// full has a lab with real kubelets know what is there: the pods with the
// addresses that they were given, and where their networks are.
type full struct {
	loop
	// paths are the pods' network namespaces, by pod and address.
	paths map[attachment]string
}

// attachment is a pod's place in the network: a new sandbox has a new address.
type attachment struct {
	uid     types.UID
	address string
}

func (f *full) run(ctx context.Context) error { return f.passes(ctx, f.pass) }

// pass tells the lab what the API has now.
func (f *full) pass(ctx context.Context) error {
	pods, services, slices, ok := f.have.now()
	if !ok {
		return nil
	}
	live := &lab.Live{Objects: &topology.Objects{}, Sandboxes: f.sandboxes(ctx, pods)}
	for _, p := range pods {
		live.Objects.Pods = append(live.Objects.Pods, realPod(p))
	}
	for _, s := range services {
		live.Objects.Services = append(live.Objects.Services, plainService(s))
	}
	for _, s := range slices {
		live.Objects.EndpointSlices = append(live.Objects.EndpointSlices, plainSlice(s))
	}
	if err := f.tell(ctx, live); err != nil {
		return fmt.Errorf("tell the lab: %w", err)
	}
	return nil
}

// realPod is the part of a pod that a lab works with and a real kubelet has
// written.
func realPod(p *corev1.Pod) corev1.Pod {
	out := plainPod(p)
	out.CreationTimestamp, out.DeletionTimestamp = p.CreationTimestamp, p.DeletionTimestamp
	out.Status.Phase, out.Status.PodIP = p.Status.Phase, p.Status.PodIP
	return out
}

// sandboxes finds the network namespaces of the pods that have an address. What
// is not found now is looked for again soon.
func (f *full) sandboxes(ctx context.Context, pods []*corev1.Pod) map[string]string {
	known, missing := map[attachment]string{}, map[string]bool{}
	for _, p := range pods {
		if at, ok := f.attached(p); !ok {
			continue
		} else if path, ok := f.paths[at]; ok && exists(path) {
			known[at] = path
		} else {
			missing[p.Spec.NodeName] = true
		}
	}
	found := map[types.UID]string{}
	for node := range missing {
		in, err := sandboxesIn(ctx, lab.OpenMachine(f.lab, node).Client())
		if err != nil {
			f.log.Debug("look for sandboxes", "node", node, "err", err)
		}
		maps.Copy(found, in)
	}
	out := map[string]string{}
	for _, p := range pods {
		at, ok := f.attached(p)
		if !ok {
			continue
		}
		if known[at] == "" && found[p.UID] != "" {
			known[at] = found[p.UID]
		}
		if known[at] == "" {
			f.passIn(sandboxEvery)
			continue
		}
		out[key(p)] = known[at]
	}
	f.paths = known
	return out
}

// attached is a pod's place in the network, if it has one of its own now.
func (f *full) attached(p *corev1.Pod) (attachment, bool) {
	n, ok := f.snapshot.NodeByName(p.Spec.NodeName)
	return attachment{p.UID, p.Status.PodIP}, ok && n.InDatapath() && !p.Spec.HostNetwork && !over(p) && p.Status.PodIP != ""
}
