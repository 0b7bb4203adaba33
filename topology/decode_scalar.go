package topology

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"

	"github.com/goccy/go-yaml/ast"
)

// scalar decodes text, numbers and booleans into the basic kinds.
func (d *decoder) scalar(path string, n ast.Node, v reflect.Value) {
	bad := func(want string) {
		hint := ""
		if text, ok := scalarText(n); ok && v.Kind() == reflect.String {
			hint = fmt.Sprintf("; put it in quotes: %q", text)
		}
		d.errorAt(n, path, "wrong-type", "want %s, found %s%s", want, describe(n), hint)
	}
	switch v.Kind() {
	case reflect.String:
		text, ok := stringText(n)
		if !ok {
			bad("text")
			return
		}
		v.SetString(text)
		d.checkEnum(path, n, text, v.Type())
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			bad("true or false")
			return
		}
		v.SetBool(b.Value)
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64:
		d.integer(path, n, v)
	default:
		bad("nothing")
	}
}

// integer decodes a whole number that fits v.
func (d *decoder) integer(path string, n ast.Node, v reflect.Value) {
	in, ok := n.(*ast.IntegerNode)
	if !ok {
		d.errorAt(n, path, "wrong-type", "want a whole number, found %s", describe(n))
		return
	}
	fits := false
	switch x := in.Value.(type) {
	case int64:
		if v.CanInt() && !v.OverflowInt(x) {
			v.SetInt(x)
			fits = true
		} else if v.CanUint() && x >= 0 && !v.OverflowUint(uint64(x)) {
			v.SetUint(uint64(x))
			fits = true
		}
	case uint64:
		if v.CanUint() && !v.OverflowUint(x) {
			v.SetUint(x)
			fits = true
		} else if v.CanInt() && x <= math.MaxInt64 && !v.OverflowInt(int64(x)) {
			v.SetInt(int64(x))
			fits = true
		}
	}
	if !fits {
		d.errorAt(n, path, "out-of-range", "%s is out of range", in.GetToken().Value)
	}
}

// any decodes a node into plain Go values, as encoding/json would.
func (d *decoder) any(path string, n ast.Node) any {
	n, leave := d.enter(path, n)
	defer leave()
	switch x := n.(type) {
	case *ast.BoolNode:
		return x.Value
	case *ast.IntegerNode:
		return x.Value
	case *ast.FloatNode:
		return x.Value
	case *ast.SequenceNode:
		out := make([]any, len(x.Values))
		for i, item := range x.Values {
			out[i] = d.any(indexPath(path, i), item)
		}
		return out
	case ast.MapNode:
		out := map[string]any{}
		d.entries(path, n, func(key string, _, vn ast.Node) { out[key] = d.any(fieldPath(path, key), vn) })
		return out
	}
	if isNull(n) {
		return nil
	}
	text, _ := scalarText(n)
	return text
}

// stringText is the text of a node that YAML takes for text.
func stringText(n ast.Node) (string, bool) {
	switch x := n.(type) {
	case *ast.StringNode:
		return x.Value, true
	case *ast.LiteralNode:
		if x.Value == nil {
			return "", true
		}
		return x.Value.Value, true
	}
	return "", false
}

// scalarText is the text of any scalar as it stands in the file.
func scalarText(n ast.Node) (string, bool) {
	switch x := n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode, *ast.NullNode:
		return x.GetToken().Value, true
	}
	return stringText(n)
}

// describe says what a node is, for messages.
func describe(n ast.Node) string {
	switch x := n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + x.GetToken().Value
	case *ast.BoolNode:
		return "the boolean " + x.GetToken().Value
	case *ast.SequenceNode:
		return "a list"
	case ast.MapNode:
		return "a mapping"
	}
	if isNull(n) {
		return "nothing"
	}
	if text, ok := stringText(n); ok {
		return fmt.Sprintf("the text %q", shorten(text))
	}
	return "something else"
}

// shorten cuts a text that is quoted in a message.
func shorten(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// fieldSet is how a struct is spelled in YAML.
type fieldSet struct {
	names []string
	index map[string][]int
}

var fieldSets sync.Map // reflect.Type → fieldSet

// fieldsOf lists a struct's fields by their tags, embedded ones flattened.
func fieldsOf(t reflect.Type) fieldSet {
	if fs, ok := fieldSets.Load(t); ok {
		return fs.(fieldSet)
	}
	fs := fieldSet{index: map[string][]int{}}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("yaml")
		if tag == "" {
			tag = f.Tag.Get("json")
		}
		name, _, _ := strings.Cut(tag, ",")
		switch {
		case !f.IsExported() || name == "-":
		case name == "" && f.Anonymous:
			sub := fieldsOf(f.Type)
			for _, n := range sub.names {
				fs.names = append(fs.names, n)
				fs.index[n] = append([]int{i}, sub.index[n]...)
			}
		case name != "":
			fs.names = append(fs.names, name)
			fs.index[name] = []int{i}
		}
	}
	fieldSets.Store(t, fs)
	return fs
}

// withoutIndexes drops "[3]" from a path.
func withoutIndexes(path string) string {
	var b strings.Builder
	for {
		open := strings.IndexByte(path, '[')
		if open < 0 {
			b.WriteString(path)
			return b.String()
		}
		end := strings.IndexByte(path[open:], ']')
		if end < 0 {
			b.WriteString(path)
			return b.String()
		}
		b.WriteString(path[:open])
		path = path[open+end+1:]
	}
}

// suggest proposes the known word nearest to a misspelt one.
func suggest(word string, known []string) string {
	best, bestAt := len(word)/3+2, ""
	for _, k := range known {
		if n := distance(strings.ToLower(word), strings.ToLower(k)); n < best {
			best, bestAt = n, k
		}
	}
	if bestAt == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", bestAt)
}

// distance is the number of letters to insert, delete or replace (Levenshtein).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return math.MaxInt
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
