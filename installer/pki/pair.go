package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Algorithm is the kind of keys.
type Algorithm string

// The kinds, as kubeadm calls them (ClusterConfiguration.encryptionAlgorithm).
const (
	ECDSA Algorithm = "ECDSA-P256"
	RSA   Algorithm = "RSA-2048"
)

// How long certificates are good for. Kubeadm's: ten years and one.
const (
	AuthorityValidity = 10 * 365 * 24 * time.Hour
	Validity          = 365 * 24 * time.Hour
	// backdated lets machines whose clocks are a little behind accept what was
	// just made.
	backdated = 5 * time.Minute
)

// Pair is a certificate with its key.
type Pair struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// newKey makes a key.
func newKey(a Algorithm) (crypto.Signer, error) {
	switch a {
	case ECDSA:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA:
		return rsa.GenerateKey(rand.Reader, 2048)
	default:
		return nil, fmt.Errorf("key algorithm %q is not one of %s, %s", a, ECDSA, RSA)
	}
}

// newAuthority makes a self-signed authority.
func newAuthority(commonName string, key crypto.Signer, now time.Time) (*Pair, error) {
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: commonName}, NotBefore: now.Add(-backdated), NotAfter: now.Add(AuthorityValidity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		DNSNames: []string{commonName},
	}
	return sign(t, t, key, key)
}

// issue signs a new certificate with a new key.
func (p *Pair) issue(r Request, a Algorithm, now time.Time) (*Pair, error) {
	key, err := newKey(a)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: r.CommonName, Organization: r.Organizations},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(Validity), DNSNames: r.DNSNames, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if t.NotAfter.After(p.Cert.NotAfter) { // nothing outlives who vouches for it
		t.NotAfter = p.Cert.NotAfter
	}
	if a == RSA {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment // RSA key exchange (RFC 5280 §4.2.1.3)
	}
	for _, ip := range r.Addresses {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.AsSlice()))
	}
	if r.Usage&Client != 0 {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if r.Usage&Server != 0 {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	return sign(t, p.Cert, key, p.Key)
}

// serialBits: at least 64 bits of randomness, at most 20 octets (RFC 5280 §4.1.2.2).
const serialBits = 127

func sign(t, parent *x509.Certificate, key, by crypto.Signer) (*Pair, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	t.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), by)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", t.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	return &Pair{Cert: cert, Key: key}, err
}

// CertPEM is the certificate's file.
func (p *Pair) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Cert.Raw})
}

// KeyPEM is the key's file.
func (p *Pair) KeyPEM() ([]byte, error) { return keyPEM(p.Key) }

func keyPEM(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
	case *rsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}), nil
	default:
		return nil, fmt.Errorf("a key of type %T cannot be written", key)
	}
}

// parsePair reads a certificate and its key, which must belong together.
var errNotPair = errors.New("the key does not belong to the certificate")

func parsePair(certPEM, keyPEM []byte) (*Pair, error) {
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
		return nil, errNotPair
	}
	return &Pair{Cert: cert, Key: key}, nil
}

func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("not a certificate in PEM form")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	return cert, nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("not a key in PEM form")
	}
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY": // what openssl writes
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block of type %q is not a private key", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("parse key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}
