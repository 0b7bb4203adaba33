package lease

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// issue makes a certificate; a CA's without a parent.
func issue(t *testing.T, dir, name string, parent *tls.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	by, with := c, any(key)
	if parent != nil {
		by, with = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, with)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return &out
}

// TestTLS: a server that asks for certificates of its authority is spoken to with
// one that was renewed meanwhile; one of another authority is not trusted.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca := issue(t, dir, "ca", nil)
	server := issue(t, dir, "server", ca)
	issue(t, dir, "client", issue(t, dir, "other", nil)) // to be renewed
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	l, err := tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if c.(*tls.Conn).Handshake() == nil { //nolint:errcheck // tls.Listen's
				_, _ = c.Write([]byte("x"))
			}
			_ = c.Close()
		}
	}()
	o := EtcdOptions{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "client.crt"), Key: filepath.Join(dir, "client.key")}
	speak := func() error {
		cfg, err := tlsConfig(o)
		if err != nil {
			return err
		}
		c, err := tls.Dial("tcp4", l.Addr().String(), cfg)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // it was read
		_, err = c.Read(make([]byte, 1))
		return err
	}
	if speak() == nil {
		t.Error("a certificate of another authority was accepted")
	}
	issue(t, dir, "client", ca)
	if err := speak(); err != nil {
		t.Errorf("with a certificate of the right one: %v", err)
	}
	o.CA = filepath.Join(dir, "other.crt")
	if speak() == nil {
		t.Error("a server of another authority was trusted")
	}
	o.Key = filepath.Join(dir, "none.key")
	if _, err := tlsConfig(o); err == nil {
		t.Error("a key that is not there")
	}
}
