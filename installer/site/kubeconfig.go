package site

import (
	"fmt"

	"slipway/installer/cluster"
	"slipway/topology"
)

// Kubeconfig is an administrator's way to the cluster's API from elsewhere than
// its nodes: by the virtual address if there is one, else by a master's.
func (s *Site) Kubeconfig() ([]byte, error) {
	server, err := s.server()
	if err != nil {
		return nil, err
	}
	return s.PKI().Kubeconfig(s.Name, server, "kubernetes-admin", "admin")
}

func (s *Site) server() (string, error) {
	snap, _, err := topology.Allocate(s.Cluster, &topology.Objects{}, s.kept.Allocation)
	if err != nil {
		return "", err
	}
	server := cluster.PublicEndpoint(cluster.Inputs{Cluster: s.Cluster, Snapshot: snap})
	if server == "" {
		return "", fmt.Errorf("site %s has no control plane", s.Name)
	}
	return server, nil
}
