package daytwo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/installer"
	"slipway/installer/cluster"
)

// Certificate is one that is somewhere.
type Certificate struct {
	Host      string    `json:"host,omitempty"` // empty: in the store on this machine
	Path      string    `json:"path"`
	Name      string    `json:"name"` // whom it names
	Authority bool      `json:"authority,omitempty"`
	NotAfter  time.Time `json:"notAfter"`
	// Problem says what else is wrong with it: it is missing, or not the store's.
	Problem string `json:"problem,omitempty"`
}

// listing prints, for every file that may hold certificates, its path and them in
// base64. Keys that are in the same files stay where they are.
const listing = `for f in /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/*/*.crt /var/lib/kubelet/pki/kubelet-client-current.pem; do
	[ -e "$f" ] || continue
	printf '%s\t' "$f"; sed -n '/-BEGIN CERTIFICATE-/,/-END CERTIFICATE-/p' "$f" | base64 | tr -d '\n'; echo
done
for f in /etc/kubernetes/*.conf; do
	[ -e "$f" ] || continue
	data=$(sed -n 's/^ *client-certificate-data: *"*\([A-Za-z0-9+/=]*\)"*$/\1/p' "$f")
	[ -z "$data" ] || printf '%s\t%s\n' "$f" "$data"
done
`

// Certificates lists those of the store, and those on all hosts.
func (c *Cluster) Certificates(ctx context.Context) ([]Certificate, error) {
	stored, err := c.Inputs.PKI.Expiries(cluster.Certificates(c.Inputs))
	if err != nil {
		return nil, err
	}
	var out []Certificate
	for _, e := range stored {
		out = append(out, Certificate{Path: e.Name, Name: e.CommonName, Authority: e.Authority == "", NotAfter: e.NotAfter, Problem: e.Unfit})
	}
	plan, err := cluster.Plan(c.Inputs, "03")
	if err != nil {
		return nil, err
	}
	all := nodes(c.Inputs)
	var names []string
	for _, n := range all {
		names = append(names, n.Name)
	}
	var mu sync.Mutex
	found := map[string][]Certificate{}
	err = installer.Each(names, func(name string) error {
		h := c.Hosts[name]
		if h == nil {
			return &UnreachableError{[]string{name}, errNoHost}
		}
		list, err := run(ctx, h, listing)
		if err != nil {
			return err
		}
		have, err := onHost(name, list, plan)
		mu.Lock()
		defer mu.Unlock()
		found[name] = have
		return err
	})
	for _, n := range names {
		out = append(out, found[n]...)
	}
	return out, err
}

// onHost compares what a host listed with what the plan has for it.
func onHost(host string, list []byte, plan installer.Plan) ([]Certificate, error) {
	want, err := planned(plan, host)
	if err != nil {
		return nil, err
	}
	var out []Certificate
	lines := bufio.NewScanner(bytes.NewReader(list))
	lines.Buffer(nil, 1<<20) // a bundle of authorities is a few KB
	for lines.Scan() {
		path, data, _ := strings.Cut(lines.Text(), "\t")
		text, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", host, path, err)
		}
		certs, err := parse(text)
		if err != nil || len(certs) == 0 {
			out = append(out, Certificate{Host: host, Path: path, Problem: "holds no certificate that can be read"})
			delete(want, path)
			continue
		}
		for i, x := range certs {
			k := Certificate{Host: host, Path: path, Name: x.Subject.CommonName, Authority: x.IsCA, NotAfter: x.NotAfter}
			if w := want[path]; i == 0 && w != nil && !w.Equal(x) {
				k.Problem = "is not the one in the store"
			}
			out = append(out, k)
		}
		delete(want, path)
	}
	for path, w := range want {
		out = append(out, Certificate{Host: host, Path: path, Name: w.Subject.CommonName, Authority: w.IsCA, NotAfter: w.NotAfter, Problem: "is missing"})
	}
	slices.SortFunc(out, func(a, b Certificate) int { return strings.Compare(a.Path, b.Path) })
	return out, lines.Err()
}

var clientData = regexp.MustCompile(`client-certificate-data: *"?([A-Za-z0-9+/=]+)`)

// planned are the certificates that a host has by the plan, by path.
func planned(plan installer.Plan, host string) (map[string]*x509.Certificate, error) {
	out := map[string]*x509.Certificate{}
	for _, ph := range plan.Phases {
		for _, st := range ph.On(host).Steps {
			for _, it := range st.Work[0].Items {
				f, ok := it.(installer.File)
				if !ok {
					continue
				}
				text := f.Content
				if m := clientData.FindSubmatch(text); m != nil {
					var err error
					if text, err = base64.StdEncoding.DecodeString(string(m[1])); err != nil {
						return nil, fmt.Errorf("%s: %w", f.Path, err)
					}
				}
				if certs, err := parse(text); err == nil && len(certs) > 0 {
					out[f.Path] = certs[0]
				}
			}
		}
	}
	return out, nil
}

// parse reads all certificates of a text.
func parse(text []byte) (out []*x509.Certificate, err error) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return out, nil
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		x, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
}

// Ending are those of some certificates that are of no use after a time, or have
// another problem now.
func Ending(all []Certificate, after time.Time) (out []Certificate) {
	for _, c := range all {
		if c.Problem != "" || c.NotAfter.Before(after) {
			out = append(out, c)
		}
	}
	return out
}

// Renewal says which certificates are made again.
type Renewal struct {
	// Before: those that expire before then; the zero time means all.
	Before time.Time
}

// Renew makes certificates again, with new keys, and hands them out: one host at
// a time, where what reads them is started again and has to be well before the next
// host. Kubelets ask the API for theirs. Authorities stay.
func (c *Cluster) Renew(ctx context.Context, r Renewal) (renewed []string, err error) {
	if err := c.reachable(ctx, nodes(c.Inputs)); err != nil {
		return nil, &RefusedError{err}
	}
	requests := cluster.Certificates(c.Inputs)
	stored, err := c.Inputs.PKI.Expiries(requests)
	if err != nil {
		return nil, err
	}
	ends := map[string]time.Time{}
	for _, e := range stored {
		ends[e.Name] = e.NotAfter
	}
	for _, q := range requests {
		if r.due(ends[q.Key()]) {
			if err := c.Inputs.PKI.Renew(q); err != nil {
				return renewed, err
			}
			renewed = append(renewed, q.Key())
		}
	}
	plan, err := cluster.Plan(c.Inputs)
	if err != nil {
		return renewed, err
	}
	if err := c.roll(ctx, c.Inputs, plan); err != nil {
		return renewed, err
	}
	asked, err := c.renewKubelets(ctx, r)
	return append(renewed, asked...), err
}

func (r Renewal) due(end time.Time) bool { return r.Before.IsZero() || end.Before(r.Before) }

// renewKubelets has kubelets ask for new certificates, one after the other.
func (c *Cluster) renewKubelets(ctx context.Context, r Renewal) (renewed []string, err error) {
	all, err := c.Certificates(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		if k.Path != cluster.KubeletCertificate || !r.due(k.NotAfter) {
			continue
		}
		token, err := cluster.JoinAgain(c.Inputs)
		if err != nil {
			return renewed, err
		}
		plan := installer.Plan{Phases: []installer.Phase{token, cluster.RenewKubelet(c.Inputs, k.Host, k.NotAfter), cluster.NodeWell(c.Inputs, k.Host)}}
		if err := c.engine().Apply(ctx, plan); err != nil {
			return renewed, err
		}
		renewed = append(renewed, k.Host+" "+k.Path)
	}
	return renewed, nil
}
