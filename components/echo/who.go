package main

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
)

// identity is what a container knows of itself.
type identity struct{ pod, namespace, node string }

// accountDir is where kubelet puts a pod's service account.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount/"

// identify finds out in which pod, namespace and node this runs. What the
// environment says counts most (POD_NAME, POD_NAMESPACE, NODE_NAME, as the
// downward API is mostly used); then what the pod's own token says of it; then the
// host name, which is the pod's.
func identify() identity {
	host, _ := os.Hostname() //nolint:errcheck // an empty name is shown
	token, _ := os.ReadFile(accountDir + "token")
	c := claims(string(token))
	return identity{
		pod:       cmp.Or(os.Getenv("POD_NAME"), c.pod, host),
		namespace: cmp.Or(os.Getenv("POD_NAMESPACE"), c.namespace),
		node:      cmp.Or(os.Getenv("NODE_NAME"), c.node),
	}
}

// claims reads what a service account's token (RFC 7519) says of its pod; the
// apiserver puts the pod and its node in (KEP-4193). The signature is not looked
// at: nothing is allowed by it.
func claims(token string) identity {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return identity{}
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return identity{}
	}
	type named struct {
		Name string `json:"name"`
	}
	var c struct {
		Kubernetes struct {
			Namespace string `json:"namespace"`
			Pod       named  `json:"pod"`
			Node      named  `json:"node"`
		} `json:"kubernetes.io"`
	}
	if json.Unmarshal(raw, &c) != nil {
		return identity{}
	}
	k := c.Kubernetes
	return identity{pod: k.Pod.Name, namespace: k.Namespace, node: k.Node.Name}
}
