package topology

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// decoder fills Go values from a YAML tree. Unlike the libraries' own it does
// not stop at the first mistake, and it remembers where every value stood.
// Fields are named by their yaml tag, else by their json tag, so that it
// serves the cluster file and the k8s.io/api types alike.
type decoder struct {
	doc     *document
	anchors map[string]ast.Node
	depth   int
	// aliased counts the values reached through aliases, to stop a file in
	// which aliases of aliases multiply.
	aliased, inAlias int
	gaveUp           bool
	// ignored are paths, without list indexes, of fields that may be there and
	// are not looked at.
	ignored map[string]bool
}

// maxAliased is how many values a document may bring in by aliases.
const maxAliased = 100_000

func newDecoder(doc *document, root ast.Node) *decoder {
	d := &decoder{doc: doc, anchors: map[string]ast.Node{}}
	ast.Walk(anchorFinder(d.anchors), root)
	return d
}

// anchorFinder collects the anchors of a document.
type anchorFinder map[string]ast.Node

// Visit implements ast.Visitor.
func (a anchorFinder) Visit(n ast.Node) ast.Visitor {
	if x, ok := n.(*ast.AnchorNode); ok && x.Name != nil {
		a[x.Name.GetToken().Value] = x.Value
	}
	return a
}

func (d *decoder) errorAt(n ast.Node, path, code, format string, args ...any) {
	d.doc.report(SeverityError, positionOf(n), path, code, format, args...)
}

// enter resolves anchors, aliases and tags, and guards against endless ones.
// The node is nil when there is nothing to decode. The caller must leave.
func (d *decoder) enter(path string, n ast.Node) (node ast.Node, leave func()) {
	aliases := 0
	d.depth++
	leave = func() { d.depth--; d.inAlias -= aliases }
	for steps := 0; ; steps++ {
		if d.depth > maxNesting || steps > maxNesting || d.aliased > maxAliased {
			d.giveUp(path, n)
			return nil, leave
		}
		switch x := n.(type) {
		case *ast.AnchorNode:
			n = x.Value
		case *ast.TagNode:
			n = x.Value
		case *ast.AliasNode:
			name := x.Value.GetToken().Value
			target, ok := d.anchors[name]
			if !ok {
				d.errorAt(x, path, "bad-yaml", "no anchor &%s for this alias", name)
				return nil, leave
			}
			aliases++
			d.inAlias++
			n = target
		default:
			if d.inAlias > 0 {
				d.aliased++
			}
			return n, leave
		}
		if n == nil {
			return nil, leave
		}
	}
}

// giveUp reports nesting without end, once a document.
func (d *decoder) giveUp(path string, n ast.Node) {
	if !d.gaveUp {
		d.errorAt(n, path, "bad-yaml", "values are nested too deeply, or repeated too often by aliases")
	}
	d.gaveUp = true
}

func isNull(n ast.Node) bool {
	if n == nil {
		return true
	}
	_, ok := n.(*ast.NullNode)
	return ok
}

// value decodes one node into v. A null leaves v as it is.
func (d *decoder) value(path string, n ast.Node, v reflect.Value) {
	n, leave := d.enter(path, n)
	defer leave()
	if isNull(n) || isComment(n) {
		return
	}
	d.doc.places[path] = positionOf(n)
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if d.custom(path, n, v) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(path, n, v)
	case reflect.Map:
		d.mapping(path, n, v)
	case reflect.Slice:
		d.list(path, n, v)
	default:
		d.scalar(path, n, v)
	}
}

// custom decodes types that read themselves.
func (d *decoder) custom(path string, n ast.Node, v reflect.Value) bool {
	own, isOwn := ownTypes[v.Type()]
	if isOwn {
		d.fromText(path, n, v.Addr().Interface().(encoding.TextUnmarshaler), own)
		return true
	}
	if u, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		d.fromJSON(path, n, u)
		return true
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
		d.fromJSON(path, n, unmarshalInto{v})
		return true
	}
	return false
}

// fromText hands the text of a scalar to one of the cluster file's own types.
func (d *decoder) fromText(path string, n ast.Node, u encoding.TextUnmarshaler, own ownType) {
	text, ok := scalarText(n)
	if !ok {
		d.errorAt(n, path, "wrong-type", "want %s, found %s", own.want, describe(n))
		return
	}
	if err := u.UnmarshalText([]byte(text)); err != nil {
		d.errorAt(n, path, own.code, "%q is not %s", shorten(text), own.want)
	}
}

// unmarshalInto decodes JSON into a value that does not read itself.
type unmarshalInto struct{ v reflect.Value }

// UnmarshalJSON implements json.Unmarshaler.
func (u unmarshalInto) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, u.v.Addr().Interface())
}

// fromJSON hands the node to a type that reads JSON (quantities, times,
// int-or-string).
func (d *decoder) fromJSON(path string, n ast.Node, u json.Unmarshaler) {
	before := len(d.doc.diags)
	val := d.any(path, n)
	if len(d.doc.diags) > before {
		return
	}
	data, err := json.Marshal(val)
	if err == nil {
		err = u.UnmarshalJSON(data)
	}
	if err != nil {
		d.errorAt(n, path, "wrong-type", "%s does not fit here: %s", describe(n), firstLine(err.Error()))
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// list decodes a sequence. One null in it is an error: it is nearly always a
// dash with its content lost.
func (d *decoder) list(path string, n ast.Node, v reflect.Value) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.errorAt(n, path, "wrong-type", "want a list, found %s", describe(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		p := indexPath(path, i)
		if isNull(item) {
			d.doc.report(SeverityError, positionOf(item), p, "wrong-type", "the list item is empty")
			continue
		}
		d.value(p, item, out.Index(i))
	}
	v.Set(out)
}

// mapping decodes a mapping with free keys.
func (d *decoder) mapping(path string, n ast.Node, v reflect.Value) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.entries(path, n, func(key string, kn ast.Node, vn ast.Node) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(fieldPath(path, key), vn, elem)
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), elem)
	})
}

// structure decodes a mapping with known keys.
func (d *decoder) structure(path string, n ast.Node, v reflect.Value) {
	fields := fieldsOf(v.Type())
	d.entries(path, n, func(key string, kn ast.Node, vn ast.Node) {
		p := fieldPath(path, key)
		index, ok := fields.index[key]
		if !ok {
			if !d.ignored[withoutIndexes(p)] {
				d.errorAt(kn, p, "unknown-field", "unknown field%s", suggest(key, fields.names))
			}
			return
		}
		d.value(p, vn, v.FieldByIndex(index))
	})
}

// entries calls fn for every entry of a mapping, explicit ones before merged
// ones ("<<"), each key once.
func (d *decoder) entries(path string, n ast.Node, fn func(key string, kn, vn ast.Node)) {
	m, ok := n.(ast.MapNode)
	if !ok {
		d.errorAt(n, path, "wrong-type", "want a mapping, found %s", describe(n))
		return
	}
	d.entriesOnce(path, m, map[string]position{}, false, fn)
}

func (d *decoder) entriesOnce(path string, m ast.MapNode, seen map[string]position, merged bool,
	fn func(key string, kn, vn ast.Node)) {
	var merges []ast.Node
	for it := m.MapRange(); it.Next(); {
		kn, vn := ast.Node(it.Key()), it.Value()
		if _, ok := kn.(*ast.MergeKeyNode); ok {
			merges = append(merges, vn)
			continue
		}
		key, ok := d.key(path, kn)
		if !ok {
			continue
		}
		if first, dup := seen[key]; dup {
			if !merged {
				d.errorAt(kn, fieldPath(path, key), "duplicate-key", "key given twice (first on line %d)", first.line)
			}
			continue
		}
		seen[key] = positionOf(kn)
		fn(key, kn, vn)
	}
	for _, vn := range merges {
		d.merge(path, vn, seen, fn)
	}
}

// merge brings in what "<<" refers to: a mapping, or a list of mappings.
func (d *decoder) merge(path string, n ast.Node, seen map[string]position, fn func(key string, kn, vn ast.Node)) {
	n, leave := d.enter(path, n)
	defer leave()
	switch x := n.(type) {
	case nil:
	case ast.MapNode:
		d.entriesOnce(path, x, seen, true, fn)
	case *ast.SequenceNode:
		for _, item := range x.Values {
			d.merge(path, item, seen, fn)
		}
	default:
		d.errorAt(n, path, "wrong-type", "want a mapping to merge, found %s", describe(n))
	}
}

// key reads a mapping key, which has to be a plain scalar.
func (d *decoder) key(path string, kn ast.Node) (string, bool) {
	n := kn
	if mk, ok := n.(*ast.MappingKeyNode); ok { // "? key"
		n = mk.Value
	}
	n, leave := d.enter(path, n)
	defer leave()
	if n == nil {
		return "", false
	}
	text, ok := scalarText(n)
	if !ok {
		d.errorAt(kn, path, "wrong-type", "a key must be text, found %s", describe(n))
	}
	return text, ok
}
