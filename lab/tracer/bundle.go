package tracer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"slipway/datapath/observe"
	"slipway/datapath/trace"
	"slipway/internal/ordered"
	"slipway/topology"
)

// The files of a bundle.
const (
	traceFile    = "trace.json"    // the trace, as `-o json` prints it
	topologyFile = "topology.json" // the cluster with everything decided
	stateFile    = "state.json"    // every namespace on the way, as it was
	captureFile  = "packets.pcapng"
	rulesDir     = "rules" // NAMESPACE.rules: iptables-save of each
)

// Bundle is a trace with everything that it was made from.
type Bundle struct {
	Trace    *trace.Trace
	Snapshot *topology.Snapshot
	Network  *trace.Recorded
	Packets  []observe.Event // empty when read back: the capture stays a file
}

// BundleError says that a directory cannot be read or written as a bundle.
type BundleError struct {
	Dir string
	Why string
}

// Error names the directory.
func (e *BundleError) Error() string { return fmt.Sprintf("%s: %s", e.Dir, e.Why) }

// Write makes the directory, which must not be there yet or be a bundle, which
// is replaced. It is complete or not there at all.
func (b *Bundle) Write(dir string) (err error) {
	dir = filepath.Clean(dir)
	if err := writable(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".")
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := b.fill(tmp); err != nil {
		return fmt.Errorf("write bundle %s: %w", dir, err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // a bundle is there to be handed on
		return fmt.Errorf("write bundle %s: %w", dir, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("replace bundle %s: %w", dir, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// writable refuses to replace what is no bundle.
func writable(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return &BundleError{dir, "exists and is no directory that can be read: " + err.Error()}
	case len(entries) == 0:
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, traceFile)); err != nil {
		return &BundleError{dir, "exists, holds other files, and is left alone: choose another directory"}
	}
	return nil
}

func (b *Bundle) fill(dir string) error {
	for name, v := range map[string]any{traceFile: b.Trace, topologyFile: b.Snapshot, stateFile: b.Network} {
		if err := writeJSON(filepath.Join(dir, name), v); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, rulesDir), 0o755); err != nil {
		return err
	}
	for _, namespace := range ordered.Keys(b.Network.States) {
		saved := b.Network.States[namespace].RuleSave
		if nft := b.Network.States[namespace].NFTables; nft != "" {
			if err := os.WriteFile(filepath.Join(dir, rulesDir, namespace+".nft.json"), []byte(nft+"\n"), 0o644); err != nil { //nolint:gosec // to be handed on
				return err
			}
		}
		if len(saved) == 0 {
			continue
		}
		var text strings.Builder
		for _, table := range ordered.Keys(saved) {
			text.WriteString(strings.TrimRight(saved[table], "\n") + "\n")
		}
		if err := os.WriteFile(filepath.Join(dir, rulesDir, namespace+".rules"), []byte(text.String()), 0o644); err != nil { //nolint:gosec // to be handed on
			return err
		}
	}
	if len(b.Packets) == 0 {
		return nil
	}
	f, err := os.Create(filepath.Join(dir, captureFile))
	if err != nil {
		return err
	}
	return errors.Join(b.WritePcapng(f), f.Close())
}

// WritePcapng writes the packets as they were on each device, with comments
// that say which hop that was and which rule decided there.
func (b *Bundle) WritePcapng(w io.Writer) error {
	observe.Annotate(b.Packets, b.Trace.Observed, b.Trace.Reply.Observed, b.Trace.Copies)
	return observe.WritePcapng(w, b.Packets)
}

func writeJSON(path string, v any) error {
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(out, '\n'), 0o644) //nolint:gosec // to be handed on
}

// ReadBundle reads a directory that Write made, on any machine.
func ReadBundle(dir string) (*Bundle, error) {
	b := &Bundle{Trace: &trace.Trace{}, Snapshot: &topology.Snapshot{}, Network: &trace.Recorded{}}
	for _, part := range []struct {
		name string
		into any
	}{{traceFile, b.Trace}, {topologyFile, b.Snapshot}, {stateFile, b.Network}} {
		raw, err := os.ReadFile(filepath.Join(dir, part.name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &BundleError{dir, "is no recorded trace: it has no " + part.name + " (`slipway trace … --record DIR` makes one)"}
		}
		if err != nil {
			return nil, fmt.Errorf("read bundle: %w", err)
		}
		if err := json.Unmarshal(raw, part.into); err != nil {
			return nil, &BundleError{filepath.Join(dir, part.name), "cannot be read: " + err.Error()}
		}
	}
	if b.Trace.Kind != Kind {
		return nil, &BundleError{filepath.Join(dir, traceFile), fmt.Sprintf("kind is %q, not %q", b.Trace.Kind, Kind)}
	}
	return b, nil
}

// Repredict predicts a recorded packet's way anew, on the recorded state with
// edits. What was observed then is left out: it was another state's.
func Repredict(b *Bundle, whatIf []string) (*Bundle, error) {
	old := b.Trace
	t := &trace.Trace{
		APIVersion: APIVersion, Kind: Kind, Lab: old.Lab, Mode: old.Mode, Source: old.Source, Destination: old.Destination,
		WhatIf: whatIf, Notes: []string{"predicted on the recorded state"},
	}
	if len(old.Predicted) == 0 {
		return nil, &BundleError{old.Lab, "the recorded trace has no prediction to begin with"}
	}
	first := old.Predicted[0]
	edits, err := trace.ParseEdits(whatIf)
	if err != nil {
		return nil, err
	}
	network, err := trace.Edited(b.Network, b.Snapshot, edits)
	if err != nil {
		return nil, err
	}
	fill(t, trace.Predict(network, first.Namespace, first.Packet, trace.Options{}), nil, b.Snapshot)
	return &Bundle{Trace: t, Snapshot: b.Snapshot, Network: b.Network}, nil
}
