package kubejobs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ErrNodes reports nodes that cannot be measured.
var ErrNodes = errors.New("these nodes cannot be measured")

// chosen are the client's node and the other one's; a single one where nothing is
// measured between two.
func (r *running) choose(ctx context.Context, two bool) ([]corev1.Node, error) {
	list, err := r.API.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, r.failed("list nodes", err)
	}
	if len(r.Nodes) > 0 {
		return given(list.Items, r.Nodes, two)
	}
	var fit []corev1.Node
	var why []string
	for _, n := range list.Items {
		if reason := unfit(n); reason != "" {
			why = append(why, n.Name+": "+reason)
			continue
		}
		fit = append(fit, n)
	}
	want := 1
	if two {
		want = 2
	}
	if len(fit) < want {
		text := fmt.Sprintf("%d of the cluster's %d nodes can take pods, and %d are needed", len(fit), len(list.Items), want)
		if two {
			text += " (--paths same-node needs one)"
		}
		if len(why) > 0 {
			text += ": " + strings.Join(why, "; ")
		}
		return nil, fmt.Errorf("%w: %s", ErrNodes, text)
	}
	slices.SortFunc(fit, func(a, b corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	return fit[:want], nil
}

// given are the nodes that were asked for, which have to be ready, and no more.
func given(all []corev1.Node, names []string, two bool) ([]corev1.Node, error) {
	if two && len(names) != 2 || len(names) > 2 || len(names) == 2 && names[0] == names[1] {
		return nil, fmt.Errorf("%w: --nodes are two, the client's and the server's (--paths same-node needs one)", ErrNodes)
	}
	var out []corev1.Node
	for _, name := range names {
		i := slices.IndexFunc(all, func(n corev1.Node) bool { return n.Name == name })
		if i < 0 {
			var known []string
			for _, n := range all {
				known = append(known, n.Name)
			}
			return nil, fmt.Errorf("%w: there is no node %s, only %s", ErrNodes, name, strings.Join(known, ", "))
		}
		if !isReady(all[i]) {
			return nil, fmt.Errorf("%w: node %s is not ready", ErrNodes, name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// unfit is why a node is not chosen by itself.
func unfit(n corev1.Node) string {
	if !isReady(n) {
		return "not ready"
	}
	if n.Spec.Unschedulable {
		return "cordoned"
	}
	if n.Labels[corev1.LabelOSStable] != "" && n.Labels[corev1.LabelOSStable] != "linux" {
		return n.Labels[corev1.LabelOSStable]
	}
	for _, t := range n.Spec.Taints {
		if t.Effect != corev1.TaintEffectPreferNoSchedule {
			return "tainted " + t.Key
		}
	}
	return ""
}

func isReady(n corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// addressOf is a node's own.
func addressOf(n corev1.Node) (netip.Addr, error) {
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Is4() && a.Type == corev1.NodeInternalIP {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: node %s has no internal IPv4 address", ErrNodes, n.Name)
}
