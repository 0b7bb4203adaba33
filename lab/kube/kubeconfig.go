package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"slipway/installer/pki"
	"slipway/lab"
)

// serverName is a name that every apiserver's certificate has, whatever address
// it is reached at.
const serverName = "kubernetes"

// ContextName is how kubeconfigs call a lab's cluster, its administrator and both.
func ContextName(name string) string { return "slipway-" + name }

// Kubeconfig is an administrator's way to a lab's API, through the relay.
func Kubeconfig(ctx context.Context, name string) (*clientcmdapi.Config, error) {
	address, err := RelayAddress(ctx, name)
	if err != nil {
		return nil, err
	}
	store := &pki.Store{Dir: lab.PKIDir(name)}
	ca, err := store.File(pki.KubernetesCA + ".crt")
	if err != nil {
		return nil, err
	}
	admin, err := store.Pair("admin")
	if err != nil {
		return nil, err
	}
	key, err := admin.KeyPEM()
	if err != nil {
		return nil, err
	}
	id := ContextName(name)
	c := clientcmdapi.NewConfig()
	c.Clusters[id] = &clientcmdapi.Cluster{Server: "https://" + address, TLSServerName: serverName, CertificateAuthorityData: ca}
	c.AuthInfos[id] = &clientcmdapi.AuthInfo{ClientCertificateData: admin.CertPEM(), ClientKeyData: key}
	c.Contexts[id] = &clientcmdapi.Context{Cluster: id, AuthInfo: id}
	c.CurrentContext = id
	return c, nil
}

// Merge puts a kubeconfig's entries into a file, which keeps all others, and is
// made if it is not there. It is replaced as a whole, for its owner alone to read.
func Merge(path string, with *clientcmdapi.Config) error {
	have, err := clientcmd.LoadFromFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		have, err = clientcmdapi.NewConfig(), nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for id := range with.Contexts {
		have.Clusters[id], have.AuthInfos[id], have.Contexts[id] = with.Clusters[id], with.AuthInfos[id], with.Contexts[id]
	}
	have.CurrentContext = with.CurrentContext
	return Write(path, have)
}

// Write makes a file of a kubeconfig, for its owner alone to read.
func Write(path string, c *clientcmdapi.Config) error {
	text, err := clientcmd.Write(*c)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return replace(path, text)
}

// replace writes a file of mode 0600 as a whole, through a link if it is one.
func replace(path string, text []byte) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
