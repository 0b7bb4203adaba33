package kubelet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"slipway/lab"
	"slipway/topology"
)

// world is the lab as its state says it is, which others change too: `mode`
// gives all pods new addresses.
type world struct {
	lab  string
	file fs.FileInfo // of the state that was read
	// snapshot is what the machine was last made equal to, if complete.
	snapshot *topology.Snapshot
	complete bool
	live     []byte // what the lab was last told, as JSON
	running  map[string]types.UID
}

// look reads the lab's state if it is another one than before.
func (w *world) look() (changed bool, err error) {
	file, err := os.Stat(filepath.Join(lab.Dir(w.lab), "state.json"))
	if err == nil && w.file != nil && os.SameFile(file, w.file) && file.ModTime().Equal(w.file.ModTime()) {
		return false, nil
	}
	st, err := lab.ReadState(w.lab) // says ErrNoLab if there is no file
	if err != nil {
		return false, err
	}
	if st.Live == nil {
		st.Live = &lab.Live{}
	}
	if w.live, err = json.Marshal(st.Live); err != nil {
		return false, fmt.Errorf("read state of lab %s: %w", w.lab, err)
	}
	w.file, w.snapshot, w.complete = file, st.Snapshot, st.Complete
	w.running = map[string]types.UID{}
	if st.Live.Objects != nil {
		for i := range st.Live.Objects.Pods {
			p := &st.Live.Objects.Pods[i]
			w.running[key(p)] = p.UID
		}
	}
	return true, nil
}

// tell makes the lab follow what the API has, unless it does. It waits for other
// commands that change the lab.
func (w *world) tell(ctx context.Context, live *lab.Live) error {
	raw, err := json.Marshal(live)
	if err != nil {
		return err
	}
	if w.complete && bytes.Equal(raw, w.live) {
		return nil
	}
	_, err = lab.Change(ctx, w.lab, nil, func(st *lab.State) error {
		st.Live = live
		return nil
	})
	if err != nil {
		return err
	}
	_, err = w.look()
	return err
}

// pods are those that are plugged in, by key.
func (w *world) pods() map[string]topology.Pod {
	out := map[string]topology.Pod{}
	if w.complete {
		for _, p := range w.snapshot.Pods {
			out[p.Key()] = p
		}
	}
	return out
}
