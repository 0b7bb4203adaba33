package cluster

import (
	"fmt"
	"path"

	"slipway/installer"
)

// Manifest is a file of Kubernetes objects.
type Manifest struct {
	Name string // its path in the cluster file
	Data []byte
}

// addons are the workloads that the cluster file names.
func (p *planner) addons() (installer.Phase, error) {
	ph := installer.Phase{Title: "Add-ons", About: "The manifests that the cluster file names, in its order, as anybody would apply them."}
	for i, m := range p.Manifests {
		ph.Steps = append(ph.Steps, installer.Step{
			Name: m.Name, Why: "Applied by the API server, which remembers who set what.",
			Work: p.applied(fmt.Sprintf("addons/%02d-%s", i+1, path.Base(m.Name)), m.Data),
		})
	}
	return ph, nil
}
