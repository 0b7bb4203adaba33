package kubejobs

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"slipway/internal/testnet"
	"slipway/lab/bench"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
)

// small is a plan of two short rounds between pods.
func small(paths ...string) Plan {
	return Decide(bench.ModesOptions{
		Workloads: []string{load.TCPStream, load.TCPRequests}, Paths: paths, Targets: []string{matrix.Pod, matrix.ClusterIP}, Streams: []int{1},
		Rounds: 2, MaxRounds: 2, Duration: 200 * time.Millisecond, Budget: 10 * time.Minute, Seed: 1, Version: "test", Generator: "slipway",
	})
}

// The whole of a bench with real traffic, in a cluster whose API is played: every
// case has figures, and nothing is left.
func TestRun(t *testing.T) {
	f := newFakeAPI(t, "b", "a", "c")
	rep, err := Run(t.Context(), f.options(small(matrix.OtherNode, matrix.SameNode)))
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Series) != 8 { // two workloads on two paths by two targets
		t.Errorf("%d series", len(rep.Series))
	}
	for _, s := range rep.Series {
		m := s.Metrics[0]
		if s.Variant != Cluster || m.Summary.N == 0 || m.Summary.Low <= 0 {
			t.Errorf("%s %s %s by %s: %+v", s.Variant, s.Workload, s.Path, s.Target, m.Summary)
		}
	}
	c := rep.Conditions
	if len(c.Nodes) != 2 || c.Nodes[0].Name != "a" || c.Nodes[1].Name != "b" || c.Nodes[0].Machine != c.Nodes[1].Machine {
		t.Errorf("nodes %+v", c.Nodes)
	}
	if want := "fake, Kubernetes v1.99.0: client on a, server on b"; c.Cluster != want || c.Generator != "slipway" {
		t.Errorf("cluster %q, want %q", c.Cluster, want)
	}
	if f.left() {
		t.Error("something is left")
	}
	if len(f.jobs) != 2 { // one a round: there is only one client
		t.Errorf("%d Jobs", len(f.jobs))
	}
}

// Interrupted, it removes what it made, and says how far it came.
func TestInterrupted(t *testing.T) {
	f := newFakeAPI(t, "a", "b")
	ctx, cancel := context.WithCancel(t.Context())
	o := f.options(small(matrix.OtherNode))
	o.Progress = stopper{cancel}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if f.left() {
		t.Error("something is left")
	}
}

// stopper interrupts when the first measurement has been made.
type stopper struct{ cancel context.CancelFunc }

func (s stopper) Phase(name string, _ int) {
	if strings.HasPrefix(name, "round 2") {
		s.cancel()
	}
}
func (stopper) Step() {}

// Every right that is lacking is named, before anything is made.
func TestForbidden(t *testing.T) {
	f := newFakeAPI(t, "a", "b")
	f.forbids = func(verb, resource string) bool {
		return verb == "create" && (resource == "jobs" || resource == "namespaces")
	}
	_, err := Run(t.Context(), f.options(small(matrix.OtherNode)))
	var forbidden *ForbiddenError
	if !errors.As(err, &forbidden) {
		t.Fatal(err)
	}
	if want := "the account of this kubeconfig may not create namespaces, nor create jobs.batch in namespace slipway-bench"; err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	for _, a := range f.asked {
		if strings.HasPrefix(a, "POST") && !strings.HasSuffix(a, "selfsubjectaccessreviews") {
			t.Error(a)
		}
	}
}

// What keeps a pod from running is the error, with what can be done about it, and
// nothing is left.
func TestPodsInTrouble(t *testing.T) {
	waiting := func(reason string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "because"}}}}}
	}
	for _, of := range []struct {
		name, pod string
		status    corev1.PodStatus
		is        any
		want      string
	}{
		{"no image", toOther, waiting("ImagePullBackOff"), new(*ImageError), "node b cannot have the image slipway.local/slipway:1: ImagePullBackOff: because"},
		{"a server that ends", toOther, corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: "no such file"}}}}},
			new(*PodError), "pod server-other on node b does not do its work: exit code 1 (Error): no such file"},
		{"a client's container", fromPod, waiting("CreateContainerConfigError"), new(*PodError), "pod client-pod-1-x on node a does not do its work: CreateContainerConfigError because"},
		{"evicted", fromPod, corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}, new(*PodError), "pod client-pod-1-x on node a does not do its work: Evicted"},
	} {
		t.Run(of.name, func(t *testing.T) {
			f := newFakeAPI(t, "a", "b")
			f.spoils = func(p *corev1.Pod) bool {
				if !strings.HasPrefix(p.Name, of.pod) {
					return false
				}
				p.Status = of.status
				return true
			}
			_, err := Run(t.Context(), f.options(small(matrix.OtherNode)))
			if err == nil || !errors.As(err, of.is) || err.Error() != of.want {
				t.Errorf("got  %v\nwant %s", err, of.want)
			}
			if f.left() {
				t.Error("something is left")
			}
		})
	}
}

func TestUnschedulable(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/2 nodes: Insufficient cpu"},
	}}}
	if err := troubleOf(p, "a", true); err != nil {
		t.Errorf("a scheduler that has only begun: %v", err)
	}
	if err := troubleOf(p, "a", false); err == nil || err.Error() != "pod x cannot be scheduled on node a: 0/2 nodes: Insufficient cpu" {
		t.Error(err)
	}
}

func TestNodes(t *testing.T) {
	tainted, cordoned, sick := readyNode("t"), readyNode("c"), readyNode("s")
	tainted.Spec.Taints = []corev1.Taint{{Key: "node-role", Effect: corev1.TaintEffectNoSchedule}}
	cordoned.Spec.Unschedulable = true
	sick.Status.Conditions[0].Status = corev1.ConditionUnknown
	for _, of := range []struct {
		name  string
		nodes []corev1.Node
		given []string
		paths []string
		want  string // in the error; empty: none
	}{
		{"one node", []corev1.Node{readyNode("a")}, nil, []string{matrix.OtherNode}, "1 of the cluster's 1 nodes can take pods, and 2 are needed"},
		{"unfit ones", []corev1.Node{readyNode("a"), tainted, cordoned, sick}, nil, []string{matrix.OtherNode}, "t: tainted node-role; c: cordoned; s: not ready"},
		{"one is enough on one", []corev1.Node{readyNode("a"), sick}, nil, []string{matrix.SameNode}, ""},
		{"a tainted one by name", []corev1.Node{readyNode("a"), tainted}, []string{"t", "a"}, []string{matrix.OtherNode}, ""},
		{"one that is not there", []corev1.Node{readyNode("a"), tainted}, []string{"x", "a"}, []string{matrix.OtherNode}, "there is no node x, only a, t"},
		{"one that is not ready", []corev1.Node{readyNode("a"), sick}, []string{"a", "s"}, []string{matrix.OtherNode}, "node s is not ready"},
		{"the same twice", []corev1.Node{readyNode("a")}, []string{"a", "a"}, []string{matrix.OtherNode}, "--nodes are two"},
	} {
		t.Run(of.name, func(t *testing.T) {
			f := newFakeAPI(t)
			f.nodes = of.nodes
			o := f.options(small(of.paths...))
			o.Nodes = of.given
			r := &running{Options: o}
			_, err := r.look(t.Context())
			if of.want == "" && err != nil || of.want != "" && (!errors.Is(err, ErrNodes) || !strings.Contains(err.Error(), of.want)) {
				t.Errorf("got %v, want %q", err, of.want)
			}
		})
	}
}

// Only a dead run's leftovers are removed.
func TestLeftovers(t *testing.T) {
	claim := func(f *fakeAPI) error {
		r := &running{Options: f.options(small(matrix.OtherNode)), deadAfter: soon}
		return r.claim(t.Context(), false)
	}
	ours := map[string]string{Label: "true"}
	t.Run("dead", func(t *testing.T) {
		f := newFakeAPI(t)
		f.mark(ours, map[string]string{beatMark: "7"})
		if err := claim(f); err != nil || f.namespace == nil || f.namespace.UID != "made" {
			t.Errorf("%v, %+v", err, f.namespace)
		}
	})
	t.Run("alive", func(t *testing.T) {
		f := newFakeAPI(t)
		f.mark(ours, map[string]string{beatMark: "7", ownerMark: "somebody"})
		r := &running{Options: f.options(small(matrix.OtherNode)), deadAfter: time.Minute}
		go func() {
			testnet.Eventually(t, time.Minute, "somebody looks", func() (bool, string) {
				f.mu.Lock()
				defer f.mu.Unlock()
				return len(f.asked) > 1, ""
			})
			f.mu.Lock()
			defer f.mu.Unlock()
			f.mark(ours, map[string]string{beatMark: "8", ownerMark: "somebody"})
		}()
		if err := r.claim(t.Context(), false); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "somebody") {
			t.Error(err)
		}
		if f.namespace == nil || f.namespace.UID != "old" {
			t.Error("a live bench's namespace was removed")
		}
	})
	t.Run("somebody else's", func(t *testing.T) {
		f := newFakeAPI(t)
		f.mark(nil, nil)
		if err := claim(f); !errors.Is(err, ErrForeign) || f.namespace == nil || f.namespace.UID != "old" {
			t.Errorf("%v, %+v", err, f.namespace)
		}
	})
}

func TestUnreachable(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	api, err := kubernetes.NewForConfig(&rest.Config{Host: gone.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), Options{Plan: small(matrix.OtherNode), API: api, Logs: api, Host: gone.URL, Progress: quiet{}})
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), gone.URL) {
		t.Error(err)
	}
}

// A log may come in pieces, twice, and with what others say in it.
func TestCollected(t *testing.T) {
	steps := 0
	c := &collected{answers: make([]matrix.Answer, 3), at: []int{2, 0}, step: func() { steps++ }}
	whole := `{"machine":{"node":"a"}}
time="…" level=warning msg="a runtime's"
{"n":0,"figures":{"rate":5}}
{"n":1,"error":"no way"}
{"n":9,"figures":{"rate":1}}
{"machines":[{"node":"a"}]}
`
	if err := c.take(strings.NewReader(whole[:strings.Index(whole, `{"n":1`)])); err != nil || c.done {
		t.Errorf("half of it: %v, done %t", err, c.done)
	}
	if err := c.take(strings.NewReader(whole)); err != nil || !c.done || steps != 2 {
		t.Errorf("all of it: %v, done %t, %d steps", err, c.done, steps)
	}
	if a := c.answers; a[2].Figures["rate"] != 5 || a[0].Err == nil || a[1].Figures != nil || c.machine.Node != "a" {
		t.Errorf("%+v", a)
	}
}

// By default the pod network is measured by the pod's address and by ClusterIP, on
// one node and on two, and beside the nodes' own; nothing that a cluster has not.
func TestDecide(t *testing.T) {
	p := Decide(bench.ModesOptions{Workloads: bench.Workloads(), Streams: []int{1, 4}, Rounds: 6, MaxRounds: 15, Duration: 400 * time.Millisecond, WarmUp: 50 * time.Millisecond})
	has := map[string]int{}
	for _, c := range p.Cases {
		has[c.Path+"/"+c.Target+"/"+c.Job.Workload]++
	}
	for _, want := range []string{
		"other-node/pod/tcp-stream", "other-node/clusterip/tcp-stream", "other-node/pod/tcp-rr", "other-node/clusterip/tcp-rr", "other-node/clusterip/tcp-crr",
		"same-node/pod/tcp-stream", "same-node/pod/tcp-rr", "node//tcp-stream", "node//tcp-rr", "other-node/pod/udp-pps",
	} {
		if has[want] == 0 {
			t.Errorf("no %s", want)
		}
	}
	for _, c := range p.Cases {
		if c.Job.Workload == load.Idle || c.Target == matrix.NodePort || c.Path == matrix.Hairpin || c.Path == matrix.Loopback {
			t.Errorf("a cluster is asked for %s on %s by %s", c.Job.Workload, c.Path, c.Target)
		}
	}
	if has["other-node/clusterip/tcp-rr"] != 1 || p.Jobs != 2 || !p.two() {
		t.Errorf("%v, %d Jobs", has, p.Jobs)
	}
}
