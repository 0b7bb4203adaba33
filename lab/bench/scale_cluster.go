package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"slipway/topology"
)

// clusterText is a cluster file of one control-plane node that runs pods, too,
// and workers, all on one segment that is large enough, with one manifest.
func clusterText(name string, nodes int, manifest string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: %s\nkind: %s\nmetadata: {name: %q}\nspec:\n", topology.APIVersion, topology.KindCluster, name)
	b.WriteString("  underlay: {segments: [{name: rack1, subnet: 192.168.0.0/16}]}\n  nodes:\n")
	for i := range nodes {
		roles := "[worker]"
		if i == 0 {
			roles = "[control-plane, etcd, worker]"
		}
		fmt.Fprintf(&b, "    - {name: node%03d, roles: %s}\n", i+1, roles)
	}
	fmt.Fprintf(&b, "  manifests: [%s]\n", manifest)
	return b.String()
}

const (
	workload = "Deployment/web" // the owner of all pods that are made
	podPort  = 8080             // where they answer HTTP
)

// workloadText is a Deployment of pods that answer HTTP.
func workloadText(pods int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: nginx:1.27
          ports: [{containerPort: %d}]
`, pods, podPort)
}

// servicePort is the port of the made services.
const servicePort = 80

// servicesText are services that all have the Deployment's pods as endpoints:
// each has chains and endpoint rules of its own, as if the pods were its own.
func servicesText(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Service\nmetadata: {name: svc-%05d}\nspec: {selector: {app: web}, ports: [{port: %d, targetPort: %d}]}\n", i, servicePort, podPort)
	}
	return b.String()
}

// writeCluster writes a cluster file and its manifest and returns the file's path.
func (s *scale) writeCluster(name string, nodes int, manifest string) (string, error) {
	file, objects := filepath.Join(s.dir, name+".yaml"), name+"-objects.yaml"
	if err := os.WriteFile(filepath.Join(s.dir, objects), []byte(manifest), 0o600); err != nil {
		return "", fmt.Errorf("write manifest: %w", err)
	}
	if err := os.WriteFile(file, []byte(clusterText(name, nodes, objects)), 0o600); err != nil {
		return "", fmt.Errorf("write cluster file: %w", err)
	}
	return file, nil
}
