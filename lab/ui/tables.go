package ui

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/datapath"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/ordered"
	"slipway/lab"
	"slipway/topology"
)

// tables are what decides in one namespace, section by section, each row with
// what the last change did to it.
type tables struct {
	Place     string    `json:"place"`
	ReadAt    time.Time `json:"readAt"`
	ChangedAt time.Time `json:"changedAt,omitzero"` // of the last change seen; zero: none was
	Sections  []section `json:"sections"`
}

type section struct {
	Name    string   `json:"name"` // devices | routes | neighbours | fdb | leases
	Columns []string `json:"columns"`
	Rows    []row    `json:"rows"`
}

// touch is what a change did to a row.
type touch string

const (
	added   touch = "added"
	removed touch = "removed"
	altered touch = "changed"
)

// row is one entry. Rows of two readings are the same entry if their keys are
// equal, and unchanged if their cells are, but for the volatile one.
type row struct {
	Key   string   `json:"key"`
	Cells []string `json:"cells"`
	Touch touch    `json:"touch,omitempty"`
	Was   []string `json:"was,omitempty"` // cells before, of a changed row

	volatile int // a cell that changes by itself; -1: none
}

// names of the sections.
const (
	ofDevices    = "devices"
	ofRoutes     = "routes"
	ofNeighbours = "neighbours"
	ofFDB        = "fdb"
	ofLeases     = "leases"
)

// tableLocal is the routing table of the kernel's own addresses
// (linux include/uapi/linux/rtnetlink.h, RT_TABLE_LOCAL).
const tableLocal = 255

// readTables reads a place's tables from its kernel.
func readTables(ctx context.Context, st *lab.State, t *lab.Target) (_ *tables, down []string, err error) {
	ns, err := netns.Open(t.NetNS)
	if err != nil {
		return nil, nil, err
	}
	defer ns.Close() //nolint:errcheck // read-only descriptor
	h, err := linux.Open(ns, linux.Options{SkipRules: true})
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	s, err := h.Collect(ctx, linux.CollectOptions{SkipRules: true, SkipSockets: true, SkipConntrack: true})
	if err != nil {
		return nil, nil, fmt.Errorf("read the tables of %s: %w", t.Label, err)
	}
	for _, d := range s.Devices {
		if !d.Up && d.Name != "lo" && d.Kind != "ipip" { // tunl0 comes with its module
			down = append(down, d.Name)
		}
	}
	return &tables{Place: t.Label, ReadAt: time.Now(), Sections: []section{
		deviceRows(s), routeRows(s), neighbourRows(s), fdbRows(s), leaseRows(st.Snapshot, t),
	}}, down, nil
}

func deviceRows(s *datapath.NetState) section {
	out := section{Name: ofDevices, Columns: []string{"device", "kind", "addresses", "mtu", "mac", "state"}}
	for _, d := range s.Devices {
		var a []string
		for _, p := range d.Addresses {
			a = append(a, p.String())
		}
		state := "up"
		switch {
		case !d.Up:
			state = "down"
		case !d.Carrier && d.Kind != "tun":
			state = "no carrier"
		}
		if d.Master != "" {
			state += ", in " + d.Master
		}
		out.add(d.Name, d.Name, d.Kind, strings.Join(a, " "), fmt.Sprint(d.MTU), d.MAC, state)
	}
	return out
}

func routeRows(s *datapath.NetState) section {
	out := section{Name: ofRoutes, Columns: []string{"destination", "via", "device", "protocol", "route"}}
	for _, r := range s.Routes {
		if r.Table == tableLocal {
			continue
		}
		dst := r.Dst.String()
		if r.Dst.Bits() == 0 {
			dst = "default"
		}
		if r.Type != "unicast" {
			dst = r.Type + " " + dst
		}
		via := ""
		if r.Via.IsValid() {
			via = r.Via.String()
		}
		out.add(fmt.Sprint(r.Table, " ", dst, " ", r.Priority), dst, via, r.Dev, r.Protocol.String(), r.Text)
	}
	return out
}

func neighbourRows(s *datapath.NetState) section {
	out := section{Name: ofNeighbours, Columns: []string{"address", "mac", "device", "state"}}
	for _, n := range s.Neighbors {
		if n.State == "noarp" { // multicast and the like
			continue
		}
		out.add(n.Dev+" "+n.Address.String(), n.Address.String(), n.MAC, n.Dev, n.State)
		out.Rows[len(out.Rows)-1].volatile = 3 // stale, delay, probe … come and go
	}
	return out
}

func fdbRows(s *datapath.NetState) section {
	out := section{Name: ofFDB, Columns: []string{"mac", "device", "to", "table of"}}
	for _, f := range s.FDB {
		if f.Local || strings.HasPrefix(f.MAC, "33:33:") || strings.HasPrefix(f.MAC, "01:00:5e:") {
			continue
		}
		to := "this port"
		if f.Dst.IsValid() {
			to = "VTEP " + f.Dst.String()
		}
		of := f.Master
		if of == "" {
			of = f.Dev
		}
		out.add(f.Dev+" "+f.MAC, f.MAC, f.Dev, to, of)
	}
	return out
}

// leaseRows are the shares of the pod network of all nodes, which every node
// knows.
func leaseRows(s *topology.Snapshot, t *lab.Target) section {
	out := section{Name: ofLeases, Columns: []string{"subnet", "node", "public address", "backend", "VTEP MAC"}}
	if t.Pod != nil || t.Node == lab.ExternalName {
		return out
	}
	for _, l := range lab.Leases(s) {
		out.add(l.Subnet.String(), l.Subnet.String(), l.Node, l.PublicIP.String(), l.Backend, l.VTEPMAC)
	}
	return out
}

func (s *section) add(key string, cells ...string) {
	if s.Rows == nil {
		s.Rows = []row{}
	}
	for _, r := range s.Rows {
		if r.Key == key { // legs of one route, say
			key += " " + strings.Join(cells, " ")
		}
	}
	s.Rows = append(s.Rows, row{Key: key, Cells: cells, volatile: -1})
}

// same reports whether nothing that matters differs.
func (r row) same(o row) bool {
	for i, c := range r.Cells {
		if i != r.volatile && (i >= len(o.Cells) || o.Cells[i] != c) {
			return false
		}
	}
	return true
}

// compare marks what differs from an earlier reading; rows that are gone stand
// where they stood. It returns how many rows were touched.
func (t *tables) compare(was *tables) (touched int) {
	for i := range t.Sections {
		s := &t.Sections[i]
		before := map[string]row{}
		var order []string
		for _, r := range was.Sections[i].Rows {
			if r.Touch != removed {
				before[r.Key] = r
				order = append(order, r.Key)
			}
		}
		now := map[string]bool{}
		for j := range s.Rows {
			r := &s.Rows[j]
			now[r.Key] = true
			old, there := before[r.Key]
			switch {
			case !there:
				r.Touch = added
			case !r.same(old):
				r.Touch, r.Was = altered, old.Cells
			default:
				continue
			}
			touched++
		}
		for at, key := range order {
			if now[key] {
				continue
			}
			r := before[key]
			r.Touch, r.Was = removed, nil
			s.Rows = slices.Insert(s.Rows, min(at, len(s.Rows)), r)
			touched++
		}
	}
	return touched
}

// plain is a reading without marks: what the next one is compared with.
func (t *tables) plain() *tables {
	out := *t
	out.Sections = slices.Clone(t.Sections)
	for i := range out.Sections {
		s := &out.Sections[i]
		s.Rows = slices.DeleteFunc(slices.Clone(s.Rows), func(r row) bool { return r.Touch == removed })
		for j := range s.Rows {
			s.Rows[j].Touch, s.Rows[j].Was = "", nil
		}
	}
	return &out
}

// oneChange is how long readings that differ count as one change: a command
// changes a node in several steps.
const oneChange = 5 * time.Second

// history is what was read of a place: the last reading, and the one before the
// last change.
type history struct {
	now, base *tables
}

// book keeps the tables of the places that were looked at. Not safe for
// concurrent use.
type book struct{ places map[string]*history }

// note takes a new reading in, marks what the last change touched, and reports
// whether it differs from the reading before.
func (b *book) note(t *tables) (changed bool) {
	h := b.places[t.Place]
	if h == nil {
		b.places[t.Place] = &history{now: t, base: t}
		return true
	}
	probe := *t.plain()
	if probe.compare(h.now.plain()) > 0 {
		changed = true
		if t.ReadAt.Sub(h.now.ChangedAt) > oneChange {
			h.base = h.now.plain()
		}
		t.ChangedAt = t.ReadAt
	} else {
		t.ChangedAt = h.now.ChangedAt
	}
	if !t.ChangedAt.IsZero() {
		t.compare(h.base)
	}
	h.now = t
	return changed
}

// forget drops places that are gone.
func (b *book) forget(there map[string]bool) {
	for _, name := range ordered.Keys(b.places) {
		if !there[name] {
			delete(b.places, name)
		}
	}
}
