package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"slipway/lab"
)

// KubeletsCommand is the hidden command under which this program plays the
// kubelets of a light lab, watches those of a full one, and relays to the API.
const KubeletsCommand = "kubelets"

// startPatience is how long that process may take until its relay answers, on a
// machine that emulates each of its instructions too.
const startPatience = time.Minute

// RelayPath is the UNIX socket at which a lab's relay is asked for its address.
func relayPath(name string) string { return filepath.Join(lab.Dir(name), "api") }

// startKubelets starts the process, unless it runs.
func startKubelets(ctx context.Context, st *lab.State) error {
	if _, err := RelayAddress(ctx, st.Lab); err == nil {
		return nil
	}
	if err := lab.Spawn(st, KubeletsCommand); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		_, err := RelayAddress(ctx, st.Lab)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start `slipway %s`: %w (its log is %s)", KubeletsCommand, err, filepath.Join(lab.Dir(st.Lab), KubeletsCommand+".log"))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ErrNoRelay reports that nothing relays to a lab's API.
var ErrNoRelay = errors.New("the lab's relay to its API does not run (`slipway up` starts it again)")

// RelayAddress is the loopback address of this machine at which a lab's API
// answers while the lab is up.
func RelayAddress(ctx context.Context, name string) (string, error) {
	raw, err := os.ReadFile(relayPath(name))
	if errors.Is(err, os.ErrNotExist) {
		return "", ErrNoRelay
	}
	if err != nil {
		return "", err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", string(raw))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoRelay, err)
	}
	return string(raw), c.Close()
}
