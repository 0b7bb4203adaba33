package pki

import (
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// RenewBefore is how long before its end a certificate is made again.
const RenewBefore = 30 * 24 * time.Hour

// unfit says why a certificate does not serve a request; empty if it does.
func (r Request) unfit(cert, authority *x509.Certificate, now time.Time) string {
	switch {
	case now.After(cert.NotAfter):
		return "expired on " + cert.NotAfter.Format(time.DateOnly)
	case cert.NotAfter.Sub(now) < RenewBefore && cert.NotAfter.Before(authority.NotAfter):
		return "expires on " + cert.NotAfter.Format(time.DateOnly)
	case cert.CheckSignatureFrom(authority) != nil:
		return "signed by another authority"
	case cert.Subject.CommonName != r.CommonName || !same(cert.Subject.Organization, r.Organizations):
		return fmt.Sprintf("names %s, not %s", cert.Subject.CommonName, r.CommonName)
	}
	if missing := r.missing(cert); len(missing) > 0 {
		return "does not name " + strings.Join(missing, ", ")
	}
	for u, want := range map[Usage]x509.ExtKeyUsage{Client: x509.ExtKeyUsageClientAuth, Server: x509.ExtKeyUsageServerAuth} {
		if r.Usage&u != 0 && !slices.Contains(cert.ExtKeyUsage, want) {
			return "not for this use"
		}
	}
	return ""
}

// missing are the names and addresses that a certificate lacks.
func (r Request) missing(cert *x509.Certificate) (out []string) {
	for _, n := range r.DNSNames {
		if !slices.Contains(cert.DNSNames, n) {
			out = append(out, n)
		}
	}
	for _, a := range r.Addresses {
		if !slices.ContainsFunc(cert.IPAddresses, func(ip net.IP) bool { return ip.Equal(a.AsSlice()) }) {
			out = append(out, a.String())
		}
	}
	return out
}

func same(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// Expiry says how long a certificate is good for.
type Expiry struct {
	Name string `json:"name"`
	// CommonName is whom it names.
	CommonName string    `json:"commonName"`
	Authority  string    `json:"authority,omitempty"` // empty for authorities
	NotAfter   time.Time `json:"notAfter"`
	// Unfit says why it should be renewed; empty if it need not be.
	Unfit string `json:"unfit,omitempty"`
}

// Expiries lists the authorities and the requested certificates that are there.
func (s *Store) Expiries(requests []Request) ([]Expiry, error) {
	var out []Expiry
	signers := map[string]*Pair{}
	for _, a := range authorities {
		p, err := s.Pair(a.name)
		if err != nil {
			return nil, err
		}
		signers[a.name] = p
		e := Expiry{Name: a.name, CommonName: p.Cert.Subject.CommonName, NotAfter: p.Cert.NotAfter}
		if s.Now().After(p.Cert.NotAfter) {
			e.Unfit = "expired on " + p.Cert.NotAfter.Format(time.DateOnly)
		}
		out = append(out, e)
	}
	for _, r := range requests {
		p, err := s.Pair(r.Key())
		if err != nil {
			return nil, err
		}
		out = append(out, Expiry{r.Key(), p.Cert.Subject.CommonName, r.Authority, p.Cert.NotAfter, r.unfit(p.Cert, signers[r.Authority].Cert, s.Now())})
	}
	return out, nil
}
