package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"slipway/internal/testnet"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func cluster() Cluster {
	m := Machine{"master01", netip.MustParseAddr("192.168.233.10")}
	return Cluster{
		Domain: "cluster.local", APIServices: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
		Masters: []Machine{m}, Etcd: []Machine{m}, Nodes: []Machine{{"node01", netip.MustParseAddr("192.168.233.30")}},
		Agents:        []Machine{{"node01", netip.MustParseAddr("192.168.233.30")}},
		EndpointNames: []string{"api.example"}, EndpointAddresses: []netip.Addr{netip.MustParseAddr("192.168.233.100")},
	}
}

func store(t *testing.T, a Algorithm, now time.Time) *Store {
	t.Helper()
	return &Store{Dir: t.TempDir(), Algorithm: a, Now: func() time.Time { return now }}
}

func ensure(t *testing.T, s *Store, c Cluster) map[string]string {
	t.Helper()
	changes, err := s.Ensure(c.Requests())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, c := range changes {
		out[c.Name] = c.Reason
	}
	return out
}

func TestOpenSSLAcceptsEveryCertificate(t *testing.T) {
	testnet.Need(t, testnet.OpenSSL)
	const openssl = "openssl"
	for _, a := range []Algorithm{ECDSA, RSA} {
		s := store(t, a, time.Now())
		ensure(t, s, cluster())
		for _, r := range cluster().Requests() {
			purposes := map[Usage]string{Client: "sslclient", Server: "sslserver"}
			for u, purpose := range purposes {
				if r.Usage&u == 0 {
					continue
				}
				out, err := exec.Command(openssl, "verify", "-x509_strict", "-purpose", purpose, "-CAfile", s.path(r.Authority)+".crt", s.path(r.Key())+".crt").CombinedOutput()
				if err != nil {
					t.Errorf("%s %s: %v: %s", a, r.Key(), err, out)
				}
			}
		}
	}
}

func TestTrustsAreApart(t *testing.T) {
	s := store(t, ECDSA, start)
	ensure(t, s, cluster())
	for _, r := range cluster().Requests() {
		for _, a := range authorities {
			p, err := s.Pair(r.Key())
			if err != nil {
				t.Fatal(err)
			}
			ca, err := s.Pair(a.name)
			if err != nil {
				t.Fatal(err)
			}
			if signed := p.Cert.CheckSignatureFrom(ca.Cert) == nil; signed != (a.name == r.Authority) {
				t.Errorf("%s verified by %s: %v", r.Key(), a.name, signed)
			}
		}
	}
}

// A client that dials the API by any of its names gets in with its own name.
func TestHandshake(t *testing.T) {
	s := store(t, ECDSA, time.Now())
	ensure(t, s, cluster())
	ca, _ := s.Pair(KubernetesCA)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	cert := func(name string) tls.Certificate {
		p, err := s.Pair(name)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.Key}
	}
	for _, name := range []string{"kubernetes.default.svc.cluster.local", "10.96.0.1", "192.168.233.10", "127.0.0.1", "192.168.233.100", "api.example"} {
		c, d := net.Pipe()
		server := tls.Server(d, &tls.Config{Certificates: []tls.Certificate{cert("master01/apiserver")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
		client := tls.Client(c, &tls.Config{Certificates: []tls.Certificate{cert("admin")}, RootCAs: pool, ServerName: name})
		failed := make(chan error, 1)
		go func() { failed <- server.Handshake(); _, _ = io.Copy(io.Discard, server) }()
		if err := errors.Join(client.Handshake(), <-failed); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		who := server.ConnectionState().PeerCertificates[0].Subject
		if who.CommonName != "kubernetes-admin" || who.Organization[0] != "system:masters" {
			t.Errorf("the server sees %v", who)
		}
	}
}

func TestSecondRunChangesNothing(t *testing.T) {
	s := store(t, ECDSA, start)
	if made := ensure(t, s, cluster()); len(made) != len(authorities)+3+len(cluster().Requests()) { // accounts, encryption, bootstrap
		t.Errorf("made %v", made)
	}
	before := contents(t, s.Dir)
	if made := ensure(t, s, cluster()); len(made) != 0 {
		t.Errorf("made again: %v", made)
	}
	after := contents(t, s.Dir)
	for name, data := range before {
		if after[name] != data {
			t.Errorf("%s changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
}

// contents also checks that nobody else can read the files.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		data, e := os.ReadFile(path)
		out[path] = string(data)
		return errors.Join(err, e)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatIsOfNoUseIsMadeAgain(t *testing.T) {
	s := store(t, ECDSA, start)
	c := cluster()
	ensure(t, s, c)

	c.EndpointNames = append(c.EndpointNames, "new.example")
	if made := ensure(t, s, c); len(made) != 1 || made["master01/apiserver"] != "does not name new.example" {
		t.Errorf("a new name: %v", made)
	}
	s.Now = func() time.Time { return start.Add(Validity - RenewBefore + time.Hour) }
	made := ensure(t, s, c)
	if len(made) != len(c.Requests()) || made["admin"] != "expires on 2027-11-21" {
		t.Errorf("at the end: %v", made)
	}
	// A crash between the key and the certificate.
	other := store(t, ECDSA, s.Now())
	ensure(t, other, c)
	copyFile(t, other.path("admin.key"), s.path("admin.key"))
	if made := ensure(t, s, c); len(made) != 1 || !strings.Contains(made["admin"], "does not belong") {
		t.Errorf("half a pair: %v", made)
	}
	// Another authority's.
	copyFile(t, other.path("admin.key"), s.path("admin.key"))
	copyFile(t, other.path("admin.crt"), s.path("admin.crt"))
	if made := ensure(t, s, c); len(made) != 1 || made["admin"] != "signed by another authority" {
		t.Errorf("a foreign certificate: %v", made)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAuthorityIsNeverReplaced(t *testing.T) {
	s := store(t, ECDSA, start)
	ensure(t, s, cluster())
	before, _ := s.File("ca.crt")

	s.Now = func() time.Time { return start.Add(AuthorityValidity + time.Hour) }
	_, err := s.Ensure(cluster().Requests())
	var bad *AuthorityError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "expired on 2036-11-18") {
		t.Errorf("an expired authority: %v", err)
	}
	s.Now = func() time.Time { return start }
	copyFile(t, s.path("admin.crt"), s.path("ca.crt"))
	copyFile(t, s.path("admin.key"), s.path("ca.key"))
	if _, err := s.Ensure(cluster().Requests()); !errors.As(err, &bad) {
		t.Errorf("a certificate that is no authority's: %v", err)
	}
	if err := os.WriteFile(s.path("ca.crt"), before, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ensure(cluster().Requests()); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("an authority with another key: %v", err)
	}
	if err := os.WriteFile(s.path("ca.crt"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ensure(cluster().Requests()); err == nil || !strings.Contains(err.Error(), s.path("ca.crt")[:len(s.path("ca.crt"))-4]) {
		t.Errorf("garbage: %v", err)
	}
}

// What cannot be used is refused before anything is written.
func TestUnusableAuthorities(t *testing.T) {
	other := store(t, ECDSA, start)
	ensure(t, other, cluster())
	for name, tc := range map[string]struct {
		put  map[string]string // file of the store from one of another
		now  time.Time
		want string
	}{
		"without its key": {map[string]string{"etcd/ca.crt": "etcd/ca.crt"}, start, "etcd/ca.crt: its key, "},
		"of another key":  {map[string]string{"etcd/ca.crt": "etcd/ca.crt", "etcd/ca.key": "ca.key"}, start, "etcd/ca.crt: the key does not belong"},
		"expired":         {map[string]string{"etcd/ca.crt": "etcd/ca.crt", "etcd/ca.key": "etcd/ca.key"}, start.Add(2 * AuthorityValidity), "expired on 2036-11-18"},
		"of the future":   {map[string]string{"etcd/ca.crt": "etcd/ca.crt", "etcd/ca.key": "etcd/ca.key"}, start.Add(-AuthorityValidity), "is the clock right?"},
		"no authority":    {map[string]string{"etcd/ca.crt": "admin.crt", "etcd/ca.key": "admin.key"}, start, "not an authority's certificate"},
		"no key":          {map[string]string{"etcd/ca.key": "admin.crt"}, start, "etcd/ca.key: "},
	} {
		t.Run(name, func(t *testing.T) {
			s := store(t, ECDSA, tc.now)
			if err := os.MkdirAll(filepath.Dir(s.path("etcd/ca")), 0o700); err != nil {
				t.Fatal(err)
			}
			for to, from := range tc.put {
				copyFile(t, other.path(from), s.path(to))
			}
			before := contents(t, s.Dir)
			_, err := s.Ensure(cluster().Requests())
			var bad *AuthorityError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), s.Dir) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if diff := cmp.Diff(before, contents(t, s.Dir)); diff != "" {
				t.Error(diff)
			}
			// Moved away as the error says, the next run makes what is needed.
			for to := range tc.put {
				if err := os.Remove(s.path(to)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Ensure(cluster().Requests()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A key without a certificate is what a crash between the two leaves: it is
// used, not lost.
func TestKeyOfAnAuthorityIsKept(t *testing.T) {
	s := store(t, ECDSA, start)
	ensure(t, s, cluster())
	key, _ := s.File("ca.key")
	if err := os.Remove(s.path("ca.crt")); err != nil {
		t.Fatal(err)
	}
	made := ensure(t, s, cluster())
	if after, _ := s.File("ca.key"); string(after) != string(key) || made["ca"] == "" {
		t.Errorf("the key is another: %v", made)
	}
}

func TestAuthorityOfOpenSSL(t *testing.T) {
	testnet.Need(t, testnet.OpenSSL)
	const openssl = "openssl"
	s := store(t, RSA, time.Now())
	// PKCS#8, as openssl writes keys.
	out, err := exec.Command(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=corporate", "-days", "2", "-keyout", s.path("ca.key"), "-out", s.path("ca.crt")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(s.path("ca.crt"), 0o600); err != nil {
		t.Fatal(err)
	}
	ensure(t, s, cluster())
	ca, _ := s.Pair(KubernetesCA)
	p, err := s.Pair("admin")
	if err != nil || p.Cert.Issuer.CommonName != "corporate" {
		t.Errorf("%v, %v", p, err)
	}
	if p.Cert.NotAfter.After(ca.Cert.NotAfter) {
		t.Error("a certificate outlives its authority")
	}
	if made := ensure(t, s, cluster()); len(made) != 0 {
		t.Errorf("a short-lived authority makes everything be made again: %v", made)
	}
}

func TestExpiries(t *testing.T) {
	s := store(t, ECDSA, start)
	ensure(t, s, cluster())
	all, err := s.Expiries(cluster().Requests())
	if err != nil || len(all) != len(authorities)+len(cluster().Requests()) {
		t.Fatalf("%v, %v", all, err)
	}
	for _, e := range all {
		if want := map[bool]time.Time{true: start.Add(AuthorityValidity), false: start.Add(Validity)}[e.Authority == ""]; !e.NotAfter.Equal(want) || e.Unfit != "" {
			t.Errorf("%+v", e)
		}
	}
	s.Now = func() time.Time { return start.Add(2 * Validity) }
	all, _ = s.Expiries(cluster().Requests())
	if all[0].Unfit != "" || all[len(all)-1].Unfit != "expired on 2027-11-21" {
		t.Errorf("%+v", all)
	}
}

func TestRenew(t *testing.T) {
	s := store(t, ECDSA, start)
	ensure(t, s, cluster())
	before := contents(t, s.Dir)
	r := cluster().Requests()[0]
	if err := s.Renew(r); err != nil {
		t.Fatal(err)
	}
	for name, data := range contents(t, s.Dir) {
		if changed, mine := before[name] != data, strings.HasPrefix(name, s.path(r.Key())+"."); changed != mine {
			t.Errorf("%s changed: %v", name, changed)
		}
	}
}

func TestKubeconfig(t *testing.T) {
	s := store(t, ECDSA, start)
	ensure(t, s, cluster())
	data, err := s.Kubeconfig("demo", "https://192.168.233.10:6443", "admin", "admin")
	if err != nil {
		t.Fatal(err)
	}
	var k kubeconfig
	if err := yaml.Unmarshal(data, &k); err != nil {
		t.Fatal(err)
	}
	if k.CurrentContext != k.Contexts[0].Name || k.Contexts[0].Context["cluster"] != k.Clusters[0].Name || k.Contexts[0].Context["user"] != k.Users[0].Name {
		t.Errorf("names do not match: %s", data)
	}
	for file, got := range map[string]string{
		"ca.crt": k.Clusters[0].Cluster["certificate-authority-data"], "admin.crt": k.Users[0].User["client-certificate-data"], "admin.key": k.Users[0].User["client-key-data"],
	} {
		raw, err := base64.StdEncoding.DecodeString(got)
		want, _ := s.File(file)
		if err != nil || string(raw) != string(want) {
			t.Errorf("%s: %v %q", file, err, raw)
		}
	}
}

func TestToken(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		token, err := NewToken()
		// k8s.io/cluster-bootstrap token/api: BootstrapTokenPattern.
		if err != nil || !regexp.MustCompile(`\A([a-z0-9]{6})\.([a-z0-9]{16})\z`).MatchString(token.String()) || seen[token.String()] {
			t.Fatalf("%q, %v", token, err)
		}
		seen[token.String()] = true
	}
	s := store(t, ECDSA, start)
	ensure(t, s, cluster())
	data, err := s.TokenKubeconfig("demo", "https://x:6443", "tls-bootstrap-token-user", Token{"abcdef", "0123456789abcdef"})
	if err != nil || !strings.Contains(string(data), "token: abcdef.0123456789abcdef") {
		t.Errorf("%s %v", data, err)
	}
}

// A cluster's token is one, until somebody takes it away.
func TestBootstrapToken(t *testing.T) {
	s := store(t, ECDSA, start)
	ensure(t, s, cluster())
	first, err := s.BootstrapToken()
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []string{"", "abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef.x"} {
		if err := os.WriteFile(filepath.Join(s.Dir, tokenFile), []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ensure(nil); err == nil || !strings.Contains(err.Error(), tokenFile) {
			t.Errorf("%q: %v", damage, err)
		}
	}
	if err := os.Remove(filepath.Join(s.Dir, tokenFile)); err != nil {
		t.Fatal(err)
	}
	ensure(t, s, cluster())
	if second, err := s.BootstrapToken(); err != nil || second == first {
		t.Errorf("%v, %v", second, err)
	}
}

func TestBadRequests(t *testing.T) {
	s := store(t, ECDSA, start)
	for _, r := range []Request{
		{Name: "x", Authority: "nobody", CommonName: "x", Usage: Client},
		{Name: "x", Authority: KubernetesCA, Usage: Client},
		{Name: "x", Authority: KubernetesCA, CommonName: "x"},
		{Name: "x", Authority: KubernetesCA, CommonName: "x", Usage: Server},
	} {
		if _, err := s.Ensure([]Request{r}); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	s.Algorithm = "DSA"
	s.Dir = t.TempDir()
	if _, err := s.Ensure(nil); err == nil || !strings.Contains(err.Error(), "DSA") {
		t.Errorf("%v", err)
	}
}
