package remote

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/lab"
	"slipway/topology"
)

// State names everything in a cluster on real hosts as a lab's state would: the
// nodes of its file, and the pods and services that its API has now. kubectl runs
// kubectl as an administrator.
func State(ctx context.Context, c *topology.Cluster, a *topology.Allocation, kubectl func(context.Context, []byte, ...string) ([]byte, error)) (*lab.State, error) {
	raw, err := kubectl(ctx, nil, "get", "pods,services,endpointslices", "--all-namespaces", "-o", "json")
	if err != nil {
		return nil, err
	}
	o, err := objects(raw)
	if err != nil {
		return nil, err
	}
	return stateOf(c, o, a)
}

// Nodes is a [State] without pods and services, where nobody can be asked for them.
func Nodes(c *topology.Cluster, a *topology.Allocation) (*lab.State, error) {
	return stateOf(c, nil, a)
}

func stateOf(c *topology.Cluster, o *topology.Objects, a *topology.Allocation) (*lab.State, error) {
	s, _, err := topology.Allocate(c, o, a)
	if err != nil {
		return nil, fmt.Errorf("name what the API has: %w", err)
	}
	return &lab.State{Lab: c.Metadata.Name, Complete: true, Cluster: c, Snapshot: s, Allocation: a}, nil
}

func objects(raw []byte) (*topology.Objects, error) {
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("read what kubectl says: %w", err)
	}
	o := &topology.Objects{}
	for _, item := range list.Items {
		var kind metav1.TypeMeta
		err := json.Unmarshal(item, &kind)
		switch {
		case err != nil:
		case kind.Kind == "Pod":
			var p corev1.Pod
			if err = json.Unmarshal(item, &p); p.Status.PodIP != "" && p.Status.Phase == corev1.PodRunning {
				o.Pods = append(o.Pods, p)
			}
		case kind.Kind == "Service":
			var s corev1.Service
			err = json.Unmarshal(item, &s)
			o.Services = append(o.Services, s)
		case kind.Kind == "EndpointSlice":
			var e discoveryv1.EndpointSlice
			err = json.Unmarshal(item, &e)
			o.EndpointSlices = append(o.EndpointSlices, e)
		}
		if err != nil {
			return nil, fmt.Errorf("read a %s: %w", kind.Kind, err)
		}
	}
	return o, nil
}
