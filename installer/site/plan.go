package site

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/facts"
	"slipway/installer/pki"
	"slipway/internal/filelock"
	"slipway/internal/ordered"
	"slipway/topology"
)

// Supply brings the programs and images that the nodes of a cluster run.
type Supply func(ctx context.Context, c *topology.Cluster) (programs, images map[string]installer.Blob, err error)

// Planned is a plan and what it followed from.
type Planned struct {
	Inputs     cluster.Inputs
	Allocation *topology.Allocation
	Whole      installer.Plan // all phases
	Hash       string         // of the whole plan, and of what of the hosts a rehearsal depends on
	Items      Digests
	// Certificates that were made, and why.
	Certificates []pki.Change
	Facts        map[string]facts.Facts
	// Versions are those of programs, by their sums, also of former plans.
	Versions map[string]string
}

// Digests are short checksums of a plan's items, by "host, phase, step, item".
type Digests map[string]string

// From is what a plan follows from, besides the cluster file.
type From struct {
	Facts  map[string]facts.Facts // by host
	Supply Supply
	// Versions are those of packages, by name, that are known to do.
	Versions map[string]string
	// Programs are the versions of programs, by their sums.
	Programs map[string]string
	// Ignore are checks before the installation that are left out.
	Ignore []string
	// Given are what a plan has to know of machines that are a lab's, instead of
	// what follows from the facts.
	Given map[string]cluster.Facts
}

// Plan makes the plan. It makes the certificates that are missing, in the site's
// directory.
func (s *Site) Plan(ctx context.Context, from From) (*Planned, error) {
	c := onWires(s.Cluster, from.Facts)
	// On real hosts nobody is there to play a part.
	c.Spec.Components = topology.ComponentsFull
	snap, alloc, err := topology.Allocate(c, &topology.Objects{}, s.kept.Allocation)
	if err != nil {
		return nil, err
	}
	p := &Planned{Allocation: alloc, Facts: from.Facts, Inputs: cluster.Inputs{
		Cluster: c, Snapshot: snap, PKI: s.PKI(), Manifests: s.Manifests, Facts: map[string]cluster.Facts{}, Ignore: from.Ignore, PackageVersions: from.Versions,
	}}
	for i, n := range snap.Nodes {
		f, known := from.Facts[n.Name]
		if !known {
			return nil, fmt.Errorf("nothing is known of host %s", n.Name)
		}
		if given, ok := from.Given[n.Name]; ok {
			p.Inputs.Facts[n.Name] = given
		} else {
			p.Inputs.Facts[n.Name] = planFacts(f)
		}
		if l := linkOf(f, n); l != nil {
			snap.Nodes[i].Interface.Name = l.Name
		}
	}
	if p.Inputs.Programs, p.Inputs.Images, err = from.Supply(ctx, c); err != nil {
		return nil, err
	}
	if p.Certificates, err = s.ensure(cluster.Certificates(p.Inputs)); err != nil {
		return nil, err
	}
	if p.Whole, err = cluster.Plan(p.Inputs); err != nil {
		return nil, err
	}
	p.Versions = map[string]string{}
	maps.Copy(p.Versions, s.kept.Versions)
	maps.Copy(p.Versions, from.Programs)
	p.Items = digests(p.Whole)
	p.Hash = hash(p, from.Facts)
	return p, nil
}

// ensure makes the certificates that are missing, one command after the other: of
// an authority there must not be two.
func (s *Site) ensure(requests []pki.Request) ([]pki.Change, error) {
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	f, err := filelock.Wait(filepath.Join(s.Dir, pkiLock))
	if err != nil {
		return nil, fmt.Errorf("the certificates of site %s: %w", s.Name, err)
	}
	defer f.Close() //nolint:errcheck // which unlocks it
	return s.PKI().Ensure(requests)
}

// Part is the plan of some phases, as "04-etcd" or "04"; of all, if none is named.
func (p *Planned) Part(only []string) (installer.Plan, error) {
	if len(only) == 0 {
		return p.Whole, nil
	}
	return cluster.Plan(p.Inputs, only...)
}

// onWires is the cluster with the MTU that the hosts' devices have: pods' packets
// have to fit into what is there, whatever the file says.
func onWires(file *topology.Cluster, found map[string]facts.Facts) *topology.Cluster {
	c := *file
	c.Spec.Underlay.Segments = slices.Clone(c.Spec.Underlay.Segments)
	snap, _, err := topology.Allocate(&c, &topology.Objects{}, nil)
	if err != nil { // said again, and for good, where the plan is made
		return &c
	}
	for i := range c.Spec.Underlay.Segments {
		g, least := &c.Spec.Underlay.Segments[i], 0
		for _, n := range snap.Nodes {
			if l := linkOf(found[n.Name], n); n.Interface.Segment == g.Name && l != nil && l.MTU > 0 && (least == 0 || l.MTU < least) {
				least = l.MTU
			}
		}
		if least > 0 {
			g.MTU = least
		}
	}
	return &c
}

// linkOf is the device that has a node's address.
func linkOf(f facts.Facts, n topology.NodeState) *facts.Link {
	for i, l := range f.Links {
		for _, a := range l.Addresses {
			if a.Addr() == n.Interface.Prefix.Addr() {
				return &f.Links[i]
			}
		}
	}
	return nil
}

// planFacts are those of a machine that its plan follows from.
func planFacts(f facts.Facts) cluster.Facts {
	conf := f.ResolvConf()
	return cluster.Facts{
		Shared: f.Shared, CgroupV1: f.CgroupV1(), ResolvConf: conf, NoDNS: conf == "",
		NetworkManager: f.Active("NetworkManager.service"), Networkd: f.Active("systemd-networkd.service"),
	}
}

// digest is of everything that an item is: what it wants and how it gets there.
func digest(it installer.Item) string {
	if p, ok := it.(installer.Packages); ok { // versions are for who has to find them, and come with a bundle
		p.Versions = nil
		it = p
	}
	h := sha256.New()
	for _, text := range []string{it.ID(), it.Want(), it.Probe(), it.Change()} {
		fmt.Fprintf(h, "%d %s\n", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func key(p installer.Placed) string {
	return strings.Join([]string{p.Host, p.Phase, p.Step, p.Item.ID()}, ", ")
}

func digests(p installer.Plan) Digests {
	out := Digests{}
	for it := range p.Items() {
		out[key(it)] = digest(it.Item)
	}
	return out
}

// hash is of the plan's items in their order and of what of the hosts a rehearsal
// plays: what else these are is either in the items or of no matter.
func hash(p *Planned, found map[string]facts.Facts) string {
	h := sha256.New()
	for it := range p.Whole.Items() {
		if it.Phase != "00-preflight" { // it changes nothing, and the operator may leave some of it out
			_, _ = io.WriteString(h, key(it)+" "+p.Items[key(it)]+"\n")
		}
	}
	for _, n := range p.Inputs.Snapshot.Nodes {
		mtu := 0
		if l := linkOf(found[n.Name], n); l != nil {
			mtu = l.MTU
		}
		fmt.Fprintf(h, "%s %+v mtu %d\n", n.Name, p.Inputs.Facts[n.Name], mtu)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Changed names what differs from another plan, in the words of its keys: what is
// new, what is gone, what is another.
func (d Digests) Changed(old Digests) (out []string) {
	for _, k := range ordered.Keys(d) {
		switch was, known := old[k]; {
		case !known:
			out = append(out, k+": new")
		case was != d[k]:
			out = append(out, k+": another")
		}
	}
	for _, k := range ordered.Keys(old) {
		if _, known := d[k]; !known {
			out = append(out, k+": gone")
		}
	}
	return out
}

// Rehearsal is what is remembered of a rehearsal.
type Rehearsal struct {
	Hash  string        `json:"hash"`
	Items Digests       `json:"items"`
	At    time.Time     `json:"at"`
	Lab   string        `json:"lab"`
	OK    bool          `json:"ok"`
	Error string        `json:"error,omitempty"`
	Took  time.Duration `json:"tookNs"`
	// Journal is what was done, as that of an apply.
	Journal []Entry `json:"journal"`
}

// Rehearsed is the site's last rehearsal.
func (s *Site) Rehearsed() (*Rehearsal, error) {
	var r Rehearsal
	if err := s.read(rehearsalFile, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// KeepRehearsal writes a rehearsal down.
func (s *Site) KeepRehearsal(r *Rehearsal) error { return s.write(rehearsalFile, r) }

// KeepFacts writes down what is known of the hosts, and KnownFacts reads it again.
func (s *Site) KeepFacts(found map[string]facts.Facts) error { return s.write(factsFile, found) }

// KnownFacts are those that the last command gathered.
func (s *Site) KnownFacts() (map[string]facts.Facts, error) {
	var out map[string]facts.Facts
	return out, s.read(factsFile, &out)
}

// KeepView writes down what a plan would have changed.
func (s *Site) KeepView(v *View) error { return s.write(planFile, v) }
