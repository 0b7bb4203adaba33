package site

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"time"

	"slipway/installer"
	"slipway/internal/ordered"
)

// Drift is how hosts, cluster file and rehearsal differ.
type Drift struct {
	*View
	// Network are devices and rules of the datapath that are not there.
	Network []Finding `json:"network,omitempty"`
	// Certificates are those on hosts that expire soon, or have.
	Certificates []Finding `json:"certificates,omitempty"`
	// Rehearsal is what of the plan is another than what was rehearsed.
	Rehearsal []string `json:"sinceRehearsal,omitempty"`
}

// Finding is something on a host.
type Finding struct {
	Host  string `json:"host"`
	What  string `json:"what"`
	Path  string `json:"path,omitempty"`
	State string `json:"state"`
}

// None reports whether nothing differs.
func (d *Drift) None() bool {
	return len(d.Changes)+len(d.Network)+len(d.Certificates)+len(d.Rehearsal) == 0
}

// Drift compares hosts with a plan, and the plan with what was rehearsed.
func (s *Site) Drift(ctx context.Context, hosts map[string]installer.Host, p *Planned, part installer.Plan) (*Drift, error) {
	v, err := s.Look(ctx, hosts, p, part)
	if err != nil {
		return nil, err
	}
	d := &Drift{View: v}
	if r, err := s.Rehearsed(); err == nil {
		d.Rehearsal = p.Items.Changed(r.Items)
	}
	if d.Certificates, err = expiring(ctx, hosts, p.Whole, time.Now()); err != nil {
		return nil, err
	}
	d.Network, err = network(ctx, hosts, p)
	return d, err
}

// soon is how long before its end a certificate is worth a word.
const soon = 30 * 24 * time.Hour

// expiring are the certificates on hosts, as they lie there, that end soon.
func expiring(ctx context.Context, hosts map[string]installer.Host, plan installer.Plan, now time.Time) ([]Finding, error) {
	paths := map[string][]string{}
	for it := range plan.Items() {
		if f, ok := it.Item.(installer.File); ok && !f.Secret && strings.HasSuffix(f.Path, ".crt") {
			paths[it.Host] = append(paths[it.Host], f.Path)
		}
	}
	found := map[string][]Finding{}
	var mu sync.Mutex
	err := installer.Each(ordered.Keys(paths), func(name string) error {
		files, err := readFiles(ctx, hosts[name], paths[name])
		mu.Lock()
		defer mu.Unlock()
		for _, path := range paths[name] {
			if state := expiry(files[path], now); state != "" {
				found[name] = append(found[name], Finding{Host: name, What: "certificate", Path: path, State: state})
			}
		}
		return err
	})
	var out []Finding
	for _, name := range ordered.Keys(found) {
		out = append(out, found[name]...)
	}
	return out, err
}

// expiry is empty for a certificate that is good for a while, or is not there.
func expiry(file []byte, now time.Time) string {
	block, _ := pem.Decode(file)
	if block == nil {
		return ""
	}
	c, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return "cannot be read: " + err.Error()
	case now.After(c.NotAfter):
		return "expired on " + c.NotAfter.UTC().Format(time.DateOnly)
	case now.Add(soon).After(c.NotAfter):
		return fmt.Sprintf("expires on %s", c.NotAfter.UTC().Format(time.DateOnly))
	}
	return ""
}
