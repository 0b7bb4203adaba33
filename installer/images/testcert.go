package images

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// testCertificate is what agnhost's TLS ports serve (test/images/agnhost/porter):
// a certificate of 127.0.0.1 and ::1 for itself. Nobody trusts it, and the key is
// no secret: it follows from these lines, as does every byte of the image.
func testCertificate() ([]entry, error) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte("slipway/"), ed25519.SeedSize/len("slipway/")))
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2080, 1, 1, 0, 0, 0, 0, time.UTC),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IsCA:         true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(nil, t, t, key.Public(), key) // Ed25519 signs without chance (RFC 8032)
	if err != nil {
		return nil, fmt.Errorf("make agnhost's certificate: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make agnhost's certificate: %w", err)
	}
	return []entry{
		{path: "/localhost.crt", data: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))},
		{path: "/localhost.key", data: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))},
	}, nil
}
