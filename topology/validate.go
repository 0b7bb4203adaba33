package topology

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// validator checks a decoded and defaulted cluster. Every check looks at
// values that were decoded well and reports at the path of what the author
// would change.
type validator struct {
	c   *Cluster
	doc *document
	// unread holds the paths that decoding has complained about: nothing in
	// them is judged a second time.
	unread map[string]bool
	// bad holds all paths complained about, and their parents.
	bad map[string]bool
}

func validate(c *Cluster, doc *document) {
	v := &validator{c: c, doc: doc, unread: map[string]bool{}, bad: map[string]bool{}}
	for _, d := range doc.diags {
		v.unread[d.Path] = d.Path != ""
		v.markBad(d.Path)
	}
	v.header()
	v.segments()
	v.routers()
	v.nodes()
	v.network()
	v.controlPlane()
	v.manifests()
	v.programs()
}

func (v *validator) markBad(path string) {
	for ; path != ""; path = parentPath(path) {
		v.bad[path] = true
	}
}

func (v *validator) errorf(path, code, format string, args ...any) {
	for p := path; p != ""; p = parentPath(p) {
		if v.unread[p] {
			return
		}
	}
	v.doc.report(SeverityError, v.doc.locate(path), path, code, format, args...)
	v.markBad(path)
}

// where tells where a path's value comes from: " (line 6)", or that it is a
// default; empty for a cluster without a file.
func (v *validator) where(path string) string {
	switch {
	case v.doc.present(path):
		return fmt.Sprintf(" (line %d)", v.doc.clamp(v.doc.places[path]).line)
	case len(v.doc.places) > 0:
		return " (the default)"
	default:
		return ""
	}
}

func (v *validator) header() {
	m := &v.c.Metadata
	switch {
	case v.bad["apiVersion"]:
	case v.c.APIVersion == "":
		v.errorf("apiVersion", "missing-field", "apiVersion is missing; it must be %s", APIVersion)
	case v.c.APIVersion != APIVersion:
		v.errorf("apiVersion", "bad-api-version", "%q is not understood; it must be %s", shorten(v.c.APIVersion), APIVersion)
	}
	switch {
	case v.bad["kind"]:
	case v.c.Kind == "":
		v.errorf("kind", "missing-field", "kind is missing; it must be %s", KindCluster)
	case v.c.Kind != KindCluster:
		v.errorf("kind", "bad-kind", "%q is not a %s; Kubernetes manifests are listed in spec.manifests", shorten(v.c.Kind), KindCluster)
	}
	v.name("metadata.name", m.Name, maxLabel)
}

// The limits of names in characters: of a DNS label (RFC 1035 §2.3.4), and of
// a network device (IFNAMSIZ less the final NUL, linux include/uapi/linux/if.h).
const (
	maxLabel  = 63
	maxDevice = 15
)

// name checks a name that has to be a DNS label of at most most characters.
func (v *validator) name(path, name string, most int) bool {
	switch {
	case v.bad[path]:
		return false
	case name == "":
		v.errorf(path, "missing-field", "the name is missing")
	case len(name) > most:
		v.errorf(path, "name-too-long", "%q has %d characters; at most %d are possible", shorten(name), len(name), most)
	case !dnsLabel.MatchString(name):
		v.errorf(path, "bad-name", "%q is no DNS label: lower-case letters, digits and - in between", shorten(name))
	default:
		return true
	}
	return false
}

// Names that mean something else: of a machine, those that every lab has
// beside its nodes (the namespace of the underlay and the outside client), and
// the loopback's; of a segment, entries of /proc/sys/net/ipv4/conf that are no
// bridge.
var (
	reservedMachines = []string{"external", "fabric", "localhost"}
	reservedSegments = []string{"all", "default", "lo"}
)

func (v *validator) reserved(path, name string, words []string) {
	if slices.Contains(words, name) {
		v.errorf(path, "reserved-name", "%q is a reserved name", name)
	}
}

// unique remembers the path of each value and reports the second one.
func unique[K comparable](v *validator, seen map[K]string, key K, path, code string) bool {
	if first, dup := seen[key]; dup {
		v.errorf(path, code, "duplicate of %s%s", first, v.where(first))
		return false
	}
	seen[key] = path
	return true
}

func (v *validator) segments() {
	if len(v.c.Spec.Underlay.Segments) == 0 && !v.bad["spec.underlay.segments"] {
		v.errorf("spec.underlay.segments", "missing-field", "there has to be a segment to plug nodes into")
	}
	names := map[string]string{}
	for i, g := range v.c.Spec.Underlay.Segments {
		path := indexPath("spec.underlay.segments", i)
		if v.name(path+".name", g.Name, maxDevice) {
			v.reserved(path+".name", g.Name, reservedSegments)
			unique(v, names, g.Name, path+".name", "duplicate-name")
		}
		if v.cidr(path+".subnet", g.Subnet) && g.Subnet.Bits() > 30 {
			v.errorf(path+".subnet", "out-of-range", "%s has no room for two machines; want /30 or larger", g.Subnet)
		}
	}
}

func (v *validator) segment(path, name string) bool {
	if v.bad[path] {
		return false
	}
	var known []string
	for _, g := range v.c.Spec.Underlay.Segments {
		if g.Name == name {
			return true
		}
		known = append(known, g.Name)
	}
	v.errorf(path, "unknown-segment", "no segment %q in spec.underlay.segments%s", shorten(name), suggest(name, known))
	return false
}

// machineNames are the paths of the names of nodes and routers, which share
// one set of names.
func (v *validator) machineNames() map[string]string {
	seen := map[string]string{}
	for i, n := range v.c.Spec.Nodes {
		path := indexPath("spec.nodes", i) + ".name"
		if v.name(path, n.Name, maxLabel) {
			v.reserved(path, n.Name, reservedMachines)
			unique(v, seen, n.Name, path, "duplicate-name")
		}
	}
	return seen
}

func (v *validator) routers() {
	seen := v.machineNames()
	for i, r := range v.c.Spec.Underlay.Routers {
		path := indexPath("spec.underlay.routers", i)
		if v.name(path+".name", r.Name, maxLabel) {
			v.reserved(path+".name", r.Name, reservedMachines)
			unique(v, seen, r.Name, path+".name", "duplicate-name")
		}
		if len(r.Segments) == 0 && !v.bad[path+".segments"] {
			v.errorf(path+".segments", "missing-field", "a router needs segments to join")
		}
		legs := map[string]string{}
		for j, g := range r.Segments {
			p := indexPath(path+".segments", j)
			if v.segment(p, g) {
				unique(v, legs, g, p, "duplicate-segment")
			}
		}
	}
}

// labels checks node labels by Kubernetes' own rules.
func (v *validator) labels(path string, labels map[string]string) {
	keys := make([]string, 0, len(labels))
	for k := range labels {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		p := fieldPath(path, k)
		problems := append(validation.IsQualifiedName(k), validation.IsValidLabelValue(labels[k])...)
		if len(problems) > 0 && !v.bad[p] {
			rule, _, _ := strings.Cut(problems[0], " (e.g.")
			v.errorf(p, "bad-label", "%s", rule)
		}
	}
}

func (v *validator) port(path string, port int) {
	if !v.bad[path] && (port < 1 || port > 65535) {
		v.errorf(path, "bad-port", "%d is no port; want 1 to 65535", port)
	}
}

func (v *validator) between(path string, value, low, high int64) {
	if !v.bad[path] && (value < low || value > high) {
		v.errorf(path, "out-of-range", "%d is out of range; want %d to %d", value, low, high)
	}
}

// word checks one of a few possible words.
func (v *validator) word(path, got string, words ...string) bool {
	if !v.bad[path] && !slices.Contains(words, got) {
		v.errorf(path, "unknown-value", "%q is none of %s%s", shorten(got), strings.Join(words, ", "), suggest(got, words))
		return false
	}
	return true
}

func (v *validator) manifests() {
	seen := map[string]string{}
	for i, m := range v.c.Spec.Manifests {
		path := indexPath("spec.manifests", i)
		switch {
		case v.bad[path]:
		case m == "":
			v.errorf(path, "missing-field", "the path is empty")
		default:
			unique(v, seen, m, path, "duplicate-manifest")
		}
	}
}
