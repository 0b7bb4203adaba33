package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fake is a cluster as kubectl shows it: its pods run at once, unless they do not,
// and whoever asks gets an answer, unless the way is closed.
type fake struct {
	t     *testing.T
	nodes []corev1.Node
	// closed says of a client's pod and a server's pod why there is no way; it may be nil.
	closed func(client, host string) string
	exec   func() error

	mu       sync.Mutex
	objects  []json.RawMessage
	deleted  []string
	old      []corev1.Namespace
	deathbed error // of delete
}

func newFake(t *testing.T, nodes ...string) *fake {
	f := &fake{t: t}
	for i, n := range nodes {
		f.nodes = append(f.nodes, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}, Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: n}, {Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.0.2.%d", i+1)}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		}})
	}
	return f
}

func (f *fake) kubectl(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case args[0] == "apply":
		for _, part := range bytes.Split(bytes.TrimSpace(stdin), []byte("\n---")) {
			if part = bytes.TrimSpace(part); len(part) > 0 {
				f.objects = append(f.objects, part)
			}
		}
		return nil, nil
	case args[0] == "delete":
		f.deleted = append(f.deleted, args[2])
		return nil, f.deathbed
	case args[0] == "exec":
		return f.answer(args[4], stdin)
	case slices.Contains(args, "nodes"):
		return json.Marshal(corev1.NodeList{Items: f.nodes})
	case slices.Contains(args, "namespaces"):
		return json.Marshal(corev1.NamespaceList{Items: f.old})
	case slices.Contains(args, "kube-dns"):
		return json.Marshal(corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10"}})
	}
	return f.list()
}

// list shows what was applied, with the statuses that a cluster would give it.
func (f *fake) list() ([]byte, error) {
	var items []any
	for i, raw := range f.objects {
		var m metav1.TypeMeta
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, err
		}
		switch m.Kind {
		case "Pod":
			var p corev1.Pod
			if err := json.Unmarshal(raw, &p); err != nil {
				return nil, err
			}
			p.Status.Phase, p.Status.PodIP = corev1.PodRunning, fmt.Sprintf("10.0.0.%d", i)
			items = append(items, p)
		case "Service":
			var s corev1.Service
			if err := json.Unmarshal(raw, &s); err != nil {
				return nil, err
			}
			s.Spec.ClusterIP = fmt.Sprintf("10.96.0.%d", 100+i)
			s.Spec.Ports[0].NodePort = int32(30000 + i)
			items = append(items, s, discoveryv1.EndpointSlice{
				TypeMeta:   metav1.TypeMeta{Kind: "EndpointSlice"},
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}}, Endpoints: []discoveryv1.Endpoint{{}},
			})
		}
	}
	return json.Marshal(map[string]any{"items": items})
}

// answer is that of the echo program.
func (f *fake) answer(client string, stdin []byte) ([]byte, error) {
	if f.exec != nil {
		if err := f.exec(); err != nil {
			return nil, err
		}
	}
	var q questions
	if err := json.Unmarshal(stdin, &q); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("Defaulted container \"echo\"\n") // what else may be said
	for _, c := range q.Cells {
		o := outcome{ID: c.ID, OK: true, Tries: 1}
		if f.closed != nil {
			if why := f.closed(client, c.Pod); why != "" {
				o.OK, o.Reason = false, why
			}
		}
		if err := json.NewEncoder(&out).Encode(o); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

func (f *fake) run(ctx context.Context) (*Report, error) {
	return Run(ctx, Options{Kubectl: f.kubectl, Image: "echo", Outside: func(_ context.Context, stdin []byte) ([]byte, error) { return f.answer("outside", stdin) }})
}

// gone checks that the namespace that was made was removed.
func (f *fake) gone(r *Report) {
	f.t.Helper()
	if len(f.deleted) != 1 || !strings.HasPrefix(f.deleted[0], "slipway-verify-") || r != nil && f.deleted[0] != r.Namespace {
		f.t.Errorf("removed: %v", f.deleted)
	}
}

// failed counts what is not open, by reason.
func failed(r *Report) map[string]int {
	out := map[string]int{}
	for _, c := range r.Failed() {
		out[c.Reason]++
	}
	return out
}

func TestAllIsOpen(t *testing.T) {
	f := newFake(t, "a", "b")
	r, err := f.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Two nodes ask for two servers at five addresses, from a pod and from the node
	// itself; outside asks for two servers at two nodes.
	if !r.OK || len(r.Cells) != 2*2*2*5+2*2 {
		t.Errorf("ok %t, %d cells", r.OK, len(r.Cells))
	}
	if got := r.Square(FromPod, ToName, false).String() + r.Square(FromOutside, ToClusterIP, true).String(); got != "✓–" {
		t.Errorf("squares: %s", got)
	}
	f.gone(r)
}

func TestClosedWays(t *testing.T) {
	f := newFake(t, "a", "b")
	f.closed = func(client, server string) string {
		if client == "from-0" && server == "to-1" {
			return "no answer"
		}
		return ""
	}
	r, err := f.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"pod on a → pod on b", "pod on a → ClusterIP of a pod on b", "pod on a → headless of a pod on b",
		"pod on a → NodePort of a pod on b", "pod on a → DNS name of a pod on b",
	}
	var got []string
	for _, c := range r.Failed() {
		got = append(got, c.String())
	}
	if diff := cmp.Diff(want, got); diff != "" || r.OK {
		t.Errorf("not open (-want +got), ok %t:\n%s", r.OK, diff)
	}
	if s := r.Square(FromPod, ToPod, false).String(); s != "✗ 1 of 2" {
		t.Errorf("the square says %s", s)
	}
}

// What cannot be asked is not open, and says why.
func TestNodesInTrouble(t *testing.T) {
	f := newFake(t, "a", "b")
	f.nodes[1].Status.Conditions[0].Status = corev1.ConditionUnknown
	r, err := f.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// From and to b: of the 2*5 cells of each pair, those of three pairs, and three
	// of the four ways from outside.
	if diff := cmp.Diff(map[string]int{"the node is not ready": 3*10 + 3}, failed(r)); diff != "" {
		t.Error(diff)
	}
	for _, raw := range f.objects {
		if bytes.Contains(raw, []byte(`"nodeName":"b"`)) {
			t.Errorf("something was put on b: %s", raw)
		}
	}
}

func TestClientThatDoesNotRun(t *testing.T) {
	f := newFake(t, "a")
	f.exec = func() error { return errors.New("exec: no\nsuch file") }
	r, err := f.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	why := "nothing could be asked from here: exec: no such file"
	if diff := cmp.Diff(map[string]int{why: 2*5 + 1}, failed(r)); diff != "" {
		t.Error(diff)
	}
	f.gone(r)
}

func TestTroubleOfPods(t *testing.T) {
	for want, s := range map[string]corev1.PodStatus{
		"": {Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
		"the pod does not run: ErrImagePull not found": {Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not found"}}}}},
		"the pod does not run: no CNI":                 {Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Status: corev1.ConditionFalse, Message: "no CNI"}}},
		"the pod does not run: it is Running":          {Phase: corev1.PodRunning},
	} {
		if got := troubleOf(&corev1.Pod{Status: s}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Whatever ends it, the namespace goes.
func TestNothingStays(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := newFake(t, "a")
	f.exec = func() error { cancel(); return ctx.Err() }
	if _, err := f.run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	f.gone(nil)

	f = newFake(t, "a")
	f.deathbed = errors.New("the server is gone")
	r, err := f.run(t.Context())
	if !errors.Is(err, ErrLeft) || r == nil || !strings.Contains(err.Error(), "kubectl delete namespace "+r.Namespace) {
		t.Errorf("what cannot be removed: %v", err)
	}
}

// An old namespace is that of a verification that was killed; a new one is not.
func TestKilledVerifications(t *testing.T) {
	f := newFake(t, "a")
	young := metav1.Now()
	f.old = []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "slipway-verify-old"}}, {ObjectMeta: metav1.ObjectMeta{Name: "slipway-verify-new", CreationTimestamp: young}}}
	r, err := f.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"slipway-verify-old", r.Namespace}, f.deleted); diff != "" {
		t.Error(diff)
	}
}

// Many nodes do not ask all others, but each is asked by as many as it asks.
func TestOthers(t *testing.T) {
	if got := others(1, 3); !slices.Equal(got, []int{1, 2, 0}) {
		t.Errorf("of three: %v", got)
	}
	asked := map[int]int{}
	for i := range 100 {
		got := others(i, 100)
		if got[0] != i || len(got) != 1+7 { // 1, 2, 4 … 64
			t.Fatalf("%d asks %v", i, got)
		}
		for _, j := range got {
			asked[j]++
		}
	}
	for j, n := range asked {
		if n != 8 {
			t.Errorf("%d is asked by %d", j, n)
		}
	}
}

// What kubectl says to people is told, and what its library says to developers only
// if there is nothing else.
func TestSaidByKubectl(t *testing.T) {
	for stderr, want := range map[string]string{
		"E1121 16:53:48.5 1 memcache.go:265] couldn't\nE1121 16:53:48.6 1 memcache.go:265] couldn't\nThe connection was refused\n": "kubectl get: The connection was refused",
		"Error from server (Forbidden): nodes is forbidden":                                                                        "kubectl get: Error from server (Forbidden): nodes is forbidden",
		"E1121 16:53:48.5 1 memcache.go:265] couldn't":                                                                             "kubectl get: E1121 16:53:48.5 1 memcache.go:265] couldn't",
		"": "kubectl get: it failed without a word",
	} {
		if got := saidBy([]string{"get"}, []byte(stderr)).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Every question has a limit; what waits for something has that, and what is executed
// in a pod is its caller's to bound.
func TestBounds(t *testing.T) {
	for command, want := range map[string][]string{"get": {"--request-timeout", "20s"}, "delete": {"--request-timeout", "1m20s"}, "exec": nil} {
		if got := bounds([]string{command}); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", command, got, want)
		}
	}
}
