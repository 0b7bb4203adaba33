package ssh

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Certificates count on both sides: an authority's hosts are known, and whom an
// authority vouches for is let in. A revoked key is refused though it is known.
func TestCertificates(t *testing.T) {
	o := newOperator(t)
	command(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", o.path("ca"))
	command(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", o.path("mine"))
	command(t, "ssh-keygen", "-q", "-s", o.path("ca"), "-I", "me", "-n", "root", o.path("mine.pub"))
	ca, err := os.ReadFile(o.path("ca.pub"))
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, o, "node01", "", "")
	command(t, "sh", "-c", "ssh-keygen -y -f "+filepath.Join(m.dir, "host_key")+" >"+filepath.Join(m.dir, "host_key.pub"))
	command(t, "ssh-keygen", "-q", "-s", o.path("ca"), "-I", "host", "-h", "-n", m.address, filepath.Join(m.dir, "host_key.pub"))
	write(t, filepath.Join(m.dir, "ca.pub"), string(ca))
	settings, err := os.ReadFile(filepath.Join(m.dir, "sshd_config"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(m.dir, "sshd_config"), string(settings)+"HostCertificate "+m.dir+"/host_key-cert.pub\nTrustedUserCAKeys "+m.dir+"/ca.pub\nAuthorizedKeysFile none\n")
	m.restart(t)
	opts := o.options()
	opts.AcceptNew, opts.Keys = false, []string{o.path("mine")}
	var e *HostKeyError
	if _, err := Open(t.Context(), m.target("root"), opts); !errors.As(err, &e) {
		t.Errorf("without the authority: %v", err)
	}
	write(t, o.path("known_hosts"), "@cert-authority * "+string(ca))
	h, err := Open(t.Context(), m.target("root"), opts)
	if err != nil {
		t.Fatal(err)
	}
	_ = h.Close()
	key, err := os.ReadFile(filepath.Join(m.dir, "host_key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(m.dir, "sshd_config"), string(settings))
	m.restart(t)
	opts.Keys = []string{o.path("key")}
	write(t, o.path("known_hosts"), m.address+" "+string(key)+"@revoked * "+string(key))
	if _, err := Open(t.Context(), m.target("root"), opts); !errors.As(err, &e) || !e.Revoked || !strings.Contains(err.Error(), "is revoked: "+o.path("known_hosts")+":2") {
		t.Errorf("revoked: %v", err)
	}
}
