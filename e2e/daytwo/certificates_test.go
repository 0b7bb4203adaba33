package daytwo

import (
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/installer/cluster"
	"slipway/installer/daytwo"
)

// named are the places of certificates that have something to say.
func named(t *testing.T, b *bed, within time.Duration) (out []string) {
	t.Helper()
	all, err := b.Certificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range daytwo.Ending(all, time.Now().Add(within)) {
		out = append(out, strings.TrimSpace(c.Host+" "+c.Path+" "+c.Problem))
	}
	slices.Sort(out)
	return out
}

const month = 30 * 24 * time.Hour

// certificates finds what expires and what is not where it should be, and renews.
func (b *bed) certificates(t *testing.T) {
	if got := named(t, b, month); len(got) != 0 {
		t.Fatalf("new ones: %q", got)
	}
	all, err := b.Certificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	authorities, hosts := 0, map[string]int{}
	for _, c := range all {
		if c.Authority && c.Host == "" {
			authorities++
		}
		hosts[c.Host]++
	}
	// A member has the authority of etcd, its own two certificates and the one
	// for health checks, and as any machine the cluster's authority.
	if authorities != 3 || hosts["etcd02"] != 5 || hosts["master01"] <= hosts["etcd02"] {
		t.Errorf("%d authorities, by host %v", authorities, hosts)
	}

	store := b.Cluster.Inputs.PKI
	store.Now = func() time.Time { return time.Now().Add(-350 * 24 * time.Hour) }
	for _, q := range cluster.Certificates(b.Cluster.Inputs) {
		if q.Key() == "master01/apiserver" {
			if err := store.Renew(q); err != nil {
				t.Fatal(err)
			}
		}
	}
	store.Now = time.Now
	if out, code := b.Nodes["etcd03"].Sh("rm /etc/kubernetes/pki/etcd/peer.crt"); code != 0 {
		t.Fatal(out)
	}
	got := named(t, b, month)
	if len(got) != 3 || got[0] != "etcd03 /etc/kubernetes/pki/etcd/peer.crt is missing" || got[1] != "master01 /etc/kubernetes/pki/apiserver.crt is not the one in the store" || !strings.HasPrefix(got[2], "master01/apiserver expires on") {
		t.Errorf("%q", got)
	}
	renewed, err := b.Renew(t.Context(), daytwo.Renewal{Before: time.Now().Add(month)})
	if err != nil || !slices.Equal(renewed, []string{"master01/apiserver"}) {
		t.Fatalf("%q, %v", renewed, err)
	}
	if got := named(t, b, month); len(got) != 0 {
		t.Errorf("renewed: %q", got)
	}
	out, _ := b.Nodes["master01"].Sh("curl -sv --cacert /etc/kubernetes/pki/ca.crt https://127.0.0.1:6443/readyz 2>&1 | sed -n 's/.*expire date: //p'")
	end, err := time.Parse("Jan _2 15:04:05 2006 MST", strings.TrimSpace(out))
	if err != nil || time.Until(end) < 300*24*time.Hour {
		t.Errorf("the API server shows a certificate until %q: %v", out, err)
	}
	b.Unchanged(t, b.plan())
}
