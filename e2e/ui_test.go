package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"slipway/internal/testnet"
)

// uiLab has two racks, a service of three endpoints and one client.
const uiLab = `
  network: {mode: flannel-vxlan}
  underlay:
    segments:
      - {name: rack1, subnet: 192.168.101.0/24}
      - {name: rack2, subnet: 192.168.102.0/24}
    routers:
      - {name: r1, segments: [rack1, rack2]}
  nodes:
    - {name: node01, roles: [control-plane, etcd, worker], segment: rack1}
    - {name: node02, roles: [worker], segment: rack1}
    - {name: node03, roles: [worker], segment: rack2}
`

const uiPods = `
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node01, containers: [{name: c, image: busybox}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations: [{operator: Exists}]
      containers: [{name: web, image: nginx, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
`

const uiLatecomer = `
apiVersion: v1
kind: Pod
metadata: {name: latecomer}
spec: {nodeName: node03, containers: [{name: c, image: busybox}]}
`

// uiPatience bounds the whole walk through the page, on a busy machine.
const uiPatience = 15 * time.Minute

// TestPage walks through the page of a real lab in a real browser; what it looks at
// is in ui/e2e/page.mjs.
func TestPage(t *testing.T) {
	testnet.Need(t, testnet.Chromium, testnet.Playwright)
	l := up(t, "ui", uiLab, uiPods)
	extra := filepath.Join(l.dir, "latecomer.yaml")
	if err := os.WriteFile(extra, []byte(uiLatecomer), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slipway(t, "down", "sc-lost-route") }) // if the walk ended in it
	ctx, cancel := context.WithTimeout(t.Context(), uiPatience)
	defer cancel()
	url := servePage(ctx, t, l.name)
	walk := exec.CommandContext(ctx, "node", "../ui/e2e/page.mjs", url, l.name, binary)
	walk.Env = append(os.Environ(), "EXTRA_POD="+extra, "CLUSTER="+l.file())
	out, err := walk.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("the page is not as it should be: %v", err)
	}
}

// servePage serves a lab's page until the test ends, and returns its address.
func servePage(ctx context.Context, t *testing.T, lab string) string {
	t.Helper()
	serving, stop := context.WithCancel(ctx)
	cmd := exec.CommandContext(serving, binary, "ui", lab, "--allow-change", "--no-open", "-o", "json")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("slipway ui, interrupted: %v, want exit code 0", err)
		}
	})
	var got struct {
		Lab string `json:"lab"`
		URL string `json:"url"`
	}
	if err := json.NewDecoder(bufio.NewReader(said)).Decode(&got); err != nil || got.Lab != lab {
		t.Fatalf("slipway ui -o json: %+v, %v", got, err)
	}
	return got.URL
}
