package kubeapi

import (
	"fmt"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"

	"slipway/installer/pki"
	"slipway/lab"
)

// serverName is a name that every apiserver's certificate has, whatever address
// it is reached at (kubeadm cmd/kubeadm/app/util/pkiutil, GetAPIServerAltNames).
const serverName = "kubernetes"

// protobuf is what the built-in types travel as where nobody reads along: a
// third of JSON's bytes (k8s.io/apimachinery pkg/runtime, ContentTypeProtobuf).
const protobuf = "application/vnd.kubernetes.protobuf"

// Access is the administrator's to a lab's API.
type Access struct {
	*rest.Config
	dialer *dialer
}

// Open prepares access to a lab's API. Connections are made inside the lab's
// namespaces, to another API server when one does not answer; a limit of requests
// there is none. Nothing is asked yet, and the API need not be there.
func Open(labName string) (*Access, error) {
	st, err := lab.ReadState(labName)
	if err != nil {
		return nil, err
	}
	ways, err := waysOf(st)
	if err != nil {
		return nil, err
	}
	store := &pki.Store{Dir: lab.PKIDir(labName)}
	ca, err := store.File(pki.KubernetesCA + ".crt")
	if err != nil {
		return nil, fmt.Errorf("access to the API of lab %s: %w", labName, err)
	}
	admin, err := store.Pair("admin")
	if err != nil {
		return nil, fmt.Errorf("access to the API of lab %s: %w", labName, err)
	}
	key, err := admin.KeyPEM()
	if err != nil {
		return nil, fmt.Errorf("access to the API of lab %s: %w", labName, err)
	}
	d := &dialer{lab: labName}
	rotation := connrotation.NewDialer(d.dial)
	d.closeAll = rotation.CloseAll
	return &Access{dialer: d, Config: &rest.Config{
		Host: "https://" + ways[0].to.String(), UserAgent: "slipway", QPS: -1, Dial: rotation.DialContext,
		TLSClientConfig: rest.TLSClientConfig{ServerName: serverName, CAData: ca, CertData: admin.CertPEM(), KeyData: key},
	}}, nil
}

// Leave closes all connections, and has the next one made to another API server
// if there is one: for a server that hangs, whose connections stand.
func (a *Access) Leave() { a.dialer.leave() }

// Client is a typed client of the API.
func (a *Access) Client() (*kubernetes.Clientset, error) {
	c := rest.CopyConfig(a.Config)
	c.ContentType, c.AcceptContentTypes = protobuf, protobuf+",application/json"
	return kubernetes.NewForConfig(c)
}

// Config is access to a lab's API, see [Open].
func Config(labName string) (*rest.Config, error) {
	a, err := Open(labName)
	if err != nil {
		return nil, err
	}
	return a.Config, nil
}

// Client is a typed client of a lab's API, see [Open].
func Client(labName string) (*kubernetes.Clientset, error) {
	a, err := Open(labName)
	if err != nil {
		return nil, err
	}
	return a.Client()
}
