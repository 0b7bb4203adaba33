package pki

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
)

// kubeconfig is the file that clients of the API read (k8s.io/client-go
// tools/clientcmd/api/v1), as far as it is used here.
type kubeconfig struct {
	APIVersion     string  `yaml:"apiVersion"`
	Kind           string  `yaml:"kind"`
	Clusters       []named `yaml:"clusters"`
	Users          []named `yaml:"users"`
	Contexts       []named `yaml:"contexts"`
	CurrentContext string  `yaml:"current-context"`
}

type named struct {
	Name    string            `yaml:"name"`
	Cluster map[string]string `yaml:"cluster,omitempty"`
	User    map[string]string `yaml:"user,omitempty"`
	Context map[string]string `yaml:"context,omitempty"`
}

// Kubeconfig is a file with everything in it: who the user is, and whom to trust.
// Server is a URL; cluster and user are how the file calls the two.
func (s *Store) Kubeconfig(cluster, server, user, certificate string) ([]byte, error) {
	p, err := s.Pair(certificate)
	if err != nil {
		return nil, err
	}
	key, err := p.KeyPEM()
	if err != nil {
		return nil, err
	}
	return s.kubeconfig(cluster, server, user, map[string]string{"client-certificate-data": encode(p.CertPEM()), "client-key-data": encode(key)})
}

// TokenKubeconfig is one whose user shows a token, as a node does that asks for
// its certificate.
func (s *Store) TokenKubeconfig(cluster, server, user string, t Token) ([]byte, error) {
	return s.kubeconfig(cluster, server, user, map[string]string{"token": t.String()})
}

func (s *Store) kubeconfig(cluster, server, user string, credentials map[string]string) ([]byte, error) {
	ca, err := s.File(KubernetesCA + ".crt")
	if err != nil {
		return nil, err
	}
	context := user + "@" + cluster
	return yaml.Marshal(kubeconfig{
		APIVersion: "v1", Kind: "Config", CurrentContext: context,
		Clusters: []named{{Name: cluster, Cluster: map[string]string{"server": server, "certificate-authority-data": encode(ca)}}},
		Users:    []named{{Name: user, User: credentials}},
		Contexts: []named{{Name: context, Context: map[string]string{"cluster": cluster, "user": user}}},
	})
}

func encode(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// Token is a bootstrap token: what a node shows before it has a certificate
// (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
type Token struct{ ID, Secret string }

// The lengths of a token's parts, in characters, and what they are made of.
const (
	tokenIDLength     = 6
	tokenSecretLength = 16
	tokenCharacters   = "0123456789abcdefghijklmnopqrstuvwxyz"
)

// NewToken makes a token.
func NewToken() (Token, error) {
	// Bytes from here on would favour the first characters.
	const fair = 256 - 256%len(tokenCharacters)
	var out []byte
	for buf := make([]byte, 64); len(out) < tokenIDLength+tokenSecretLength; {
		if _, err := rand.Read(buf); err != nil {
			return Token{}, fmt.Errorf("make a bootstrap token: %w", err)
		}
		for _, b := range buf {
			if int(b) < fair {
				out = append(out, tokenCharacters[int(b)%len(tokenCharacters)])
			}
		}
	}
	return Token{string(out[:tokenIDLength]), string(out[tokenIDLength : tokenIDLength+tokenSecretLength])}, nil
}

// String is the token as it is shown.
func (t Token) String() string { return t.ID + "." + t.Secret }

// parseToken reads a token (k8s.io/cluster-bootstrap token/api, BootstrapTokenPattern).
func parseToken(text string) (Token, error) {
	id, secret, _ := strings.Cut(text, ".")
	if len(id) != tokenIDLength || len(secret) != tokenSecretLength || strings.Trim(id+secret, tokenCharacters) != "" {
		return Token{}, errors.New("not a bootstrap token: six and sixteen small letters and digits, with a dot between")
	}
	return Token{id, secret}, nil
}
