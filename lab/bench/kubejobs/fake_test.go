package kubejobs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	authv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"slipway/lab/bench/matrix"
)

// fakeAPI is a cluster: what it is asked to make is there at once, and its pods run
// what they would run, on addresses of the loopback device.
type fakeAPI struct {
	*testing.T
	*httptest.Server
	ctx   context.Context
	nodes []corev1.Node

	// What does not go as it should; each may be nil.
	forbids func(verb, resource string) bool
	spoils  func(p *corev1.Pod) bool // sets a pod's status, which does not run then

	mu        sync.Mutex
	namespace *corev1.Namespace
	pods      map[string]*corev1.Pod
	places    map[string]int // of their addresses
	stop      map[string]context.CancelFunc
	logs      map[string]*bytes.Buffer
	jobs      []batchv1.Job
	asked     []string // "DELETE /api/v1/namespaces/x"
	running   sync.WaitGroup
}

// addressOfPod is one that no other process's test has.
func addressOfPod(i int) string {
	return fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()/250%250, 1+os.Getpid()%250, i)
}

func readyNode(name string) corev1.Node {
	return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	}}
}

func newFakeAPI(t *testing.T, nodes ...string) *fakeAPI {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fakeAPI{T: t, ctx: ctx, pods: map[string]*corev1.Pod{}, places: map[string]int{}, stop: map[string]context.CancelFunc{}, logs: map[string]*bytes.Buffer{}}
	for _, n := range nodes {
		f.nodes = append(f.nodes, readyNode(n))
	}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(func() {
		cancel()
		f.running.Wait()
		f.Server.Close()
	})
	return f
}

// options are a bench's in this cluster.
func (f *fakeAPI) options(p Plan) Options {
	f.Helper()
	api, err := kubernetes.NewForConfig(&rest.Config{Host: f.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"}})
	if err != nil {
		f.Fatal(err)
	}
	return Options{Plan: p, API: api, Logs: api, Host: f.URL, Name: "fake", Owner: "test", Namespace: "slipway-bench", Image: "slipway.local/slipway:1", HostPort: 28990, Progress: quiet{}}
}

type quiet struct{}

func (quiet) Phase(string, int) {}
func (quiet) Step()             {}

var _ matrix.Progress = quiet{}

func (f *fakeAPI) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Method+" "+r.URL.Path)
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	last := parts[len(parts)-1]
	switch {
	case r.URL.Path == "/version":
		answer(w, map[string]string{"gitVersion": "v1.99.0"})
	case last == "selfsubjectaccessreviews":
		var q authv1.SelfSubjectAccessReview
		f.read(r, &q)
		a := q.Spec.ResourceAttributes
		q.Status.Allowed = f.forbids == nil || !f.forbids(a.Verb, a.Resource)
		answer(w, q)
	case last == "nodes":
		answer(w, corev1.NodeList{Items: f.nodes})
	case last == "namespaces":
		f.namespace = &corev1.Namespace{}
		f.read(r, f.namespace)
		f.namespace.UID = "made"
		answer(w, f.namespace)
	case len(parts) == 4 && parts[2] == "namespaces":
		f.oneNamespace(w, r)
	case last == "serviceaccounts":
		answer(w, corev1.ServiceAccount{})
	case last == "services":
		var s corev1.Service
		f.read(r, &s)
		s.Spec.ClusterIP = addressOfPod(f.places[s.Name]) // nobody is between
		answer(w, s)
	case last == "log":
		w.Write(f.logs[parts[len(parts)-2]].Bytes()) //nolint:errcheck // to a test
	case last == "pods":
		f.somePods(w, r)
	case last == "jobs" && r.Method == http.MethodPost:
		var j batchv1.Job
		f.read(r, &j)
		f.jobs = append(f.jobs, j)
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: j.Name + "-x", Labels: map[string]string{"job-name": j.Name}}, Spec: j.Spec.Template.Spec}
		f.start(p)
		answer(w, j)
	default: // what is deleted
		answer(w, metav1.Status{Status: metav1.StatusSuccess})
	}
}

func (f *fakeAPI) oneNamespace(w http.ResponseWriter, r *http.Request) {
	if f.namespace == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		answer(w, metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound})
		return
	}
	n := f.namespace
	if r.Method == http.MethodDelete {
		f.namespace = nil
		f.end()
	}
	answer(w, n)
}

func (f *fakeAPI) somePods(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodDelete:
		f.end()
		answer(w, metav1.Status{Status: metav1.StatusSuccess})
	case http.MethodPost:
		p := &corev1.Pod{}
		f.read(r, p)
		f.start(p)
		answer(w, p)
	default:
		key, value, _ := strings.Cut(r.URL.Query().Get("labelSelector"), "=")
		var list corev1.PodList
		for _, p := range f.pods {
			if p.Labels[key] == value {
				list.Items = append(list.Items, *p)
			}
		}
		answer(w, list)
	}
}

// start runs a pod.
//
//nolint:contextcheck // it outlives the request
func (f *fakeAPI) start(p *corev1.Pod) {
	f.pods[p.Name], f.logs[p.Name] = p, &bytes.Buffer{}
	p.Status.Phase = corev1.PodRunning
	f.places[p.Name] = len(f.places) + 1
	p.Status.PodIP = addressOfPod(f.places[p.Name])
	if f.spoils != nil && f.spoils(p) {
		return
	}
	ctx, cancel := context.WithCancel(f.ctx)
	f.stop[p.Name] = cancel
	env := map[string]string{}
	for _, e := range p.Spec.Containers[0].Env {
		env[e.Name] = e.Value
	}
	node := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
	address, out := netip.MustParseAddr(p.Status.PodIP), &bytes.Buffer{}
	f.running.Go(func() {
		defer cancel()
		var err error
		if told := env[ServerEnv]; told != "" {
			var c ServerConfig
			if err = json.Unmarshal([]byte(told), &c); err == nil {
				err = Serve(ctx, c, node, address)
			}
		} else {
			var t Task
			if err = json.Unmarshal([]byte(env[ClientEnv]), &t); err == nil {
				err = Measure(ctx, t, node, address, out)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.logs[p.Name] = out
		p.Status.Phase = corev1.PodSucceeded
		if err != nil && ctx.Err() == nil {
			f.Errorf("pod %s: %v", p.Name, err)
		}
	})
}

// end ends all pods.
func (f *fakeAPI) end() {
	for _, cancel := range f.stop {
		cancel()
	}
	f.pods = map[string]*corev1.Pod{}
}

func (f *fakeAPI) read(r *http.Request, into any) {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		f.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // to a test
}

// left reports whether anything of the bench's is still there.
func (f *fakeAPI) left() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.namespace != nil || len(f.pods) > 0
}

// mark puts somebody's namespace there.
func (f *fakeAPI) mark(labels, annotations map[string]string) {
	f.namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "slipway-bench", UID: "old", Labels: labels, Annotations: annotations}}
}

// soon is a patience for tests of what is dead.
const soon = 50 * time.Millisecond
