package realproxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// Kubernetes' binary form (apimachinery pkg/runtime/serializer/protobuf): whole
// objects have an envelope that names their kind; the events of a watch have
// none, and a length before each.
var (
	enveloped = protobuf.NewSerializer(nil, nil)
	bare      = protobuf.NewRawSerializer(nil, nil)
)

const contentType = "application/vnd.kubernetes.protobuf"

func writeList(w http.ResponseWriter, list runtime.Object, version int) error {
	m, err := meta.ListAccessor(list)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	m.SetResourceVersion(strconv.Itoa(version))
	w.Header().Set("Content-Type", contentType)
	return enveloped.Encode(list, w)
}

// watch sends what is there, if the client asks for that, then every change
// until the client leaves.
func (a *API) watch(w http.ResponseWriter, r *http.Request, k *kind, want func(Object) bool) {
	q := r.URL.Query()
	from, err := strconv.Atoi(q.Get("resourceVersion"))
	if err != nil && q.Get("resourceVersion") != "" {
		http.Error(w, "resourceVersion: not a number", http.StatusBadRequest)
		return
	}
	ctx := r.Context()
	if seconds, err := strconv.Atoi(q.Get("timeoutSeconds")); err == nil && seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
		defer cancel()
	}
	w.Header().Set("Content-Type", contentType+";stream=watch")
	out := &frames{to: w, framed: protobuf.LengthDelimitedFramer.NewFrameWriter(w)}
	if q.Get("sendInitialEvents") == "true" {
		from = a.initial(out, k, want)
	}
	for out.flush(); out.err == nil; out.flush() {
		a.mu.Lock()
		changed := a.changed
		for _, e := range k.events {
			if e.version > from {
				out.change(e, want)
			}
		}
		from = max(from, a.version)
		a.mu.Unlock()
		out.flush()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// initial sends everything that is there and then the mark that it was all
// (sendInitialEvents of the API), and returns the version that this was at.
func (a *API) initial(out *frames, k *kind, want func(Object) bool) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range k.objects {
		if want(o) {
			out.event("ADDED", o)
		}
	}
	end, ok := k.single.DeepCopyObject().(Object)
	if !ok { // impossible: it was one
		return a.version
	}
	end.SetResourceVersion(strconv.Itoa(a.version))
	end.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	out.event("BOOKMARK", end)
	return a.version
}

// frames writes the events of a watch; after an error it writes nothing more.
type frames struct {
	to     http.ResponseWriter
	framed io.Writer
	err    error
}

// change writes what an event is to a watch that wants some of the objects only.
func (f *frames) change(e event, want func(Object) bool) {
	was, is := e.before != nil && want(e.before), e.after != nil && want(e.after)
	switch {
	case was && is:
		f.event("MODIFIED", e.after)
	case is:
		f.event("ADDED", e.after)
	case was:
		gone, ok := e.before.DeepCopyObject().(Object)
		if !ok { // impossible: it was one
			return
		}
		gone.SetResourceVersion(strconv.Itoa(e.version))
		f.event("DELETED", gone)
	}
}

func (f *frames) event(what string, o runtime.Object) {
	if f.err != nil {
		return
	}
	var object, frame bytes.Buffer
	if f.err = enveloped.Encode(o, &object); f.err != nil {
		return
	}
	if f.err = bare.Encode(&metav1.WatchEvent{Type: what, Object: runtime.RawExtension{Raw: object.Bytes()}}, &frame); f.err != nil {
		return
	}
	_, f.err = f.framed.Write(frame.Bytes())
}

func (f *frames) flush() {
	if flusher, ok := f.to.(http.Flusher); ok {
		flusher.Flush()
	}
}
