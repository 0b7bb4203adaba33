package topology

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// position is a place in a file, counted from 1.
type position struct{ line, col int }

// document is one input file: its text, its complaints, and where each path of
// the decoded value stands.
type document struct {
	file  string
	lines []string
	diags Diagnostics
	// places maps the path of every value that was present and not null.
	places map[string]position
}

// byteOrderMark is what some editors put first; it is not part of the text.
const byteOrderMark = "\ufeff"

func newDocument(file string, data []byte) *document {
	lines := strings.Split(strings.TrimPrefix(string(data), byteOrderMark), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], "\r")
	}
	if len(lines) > 1 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return &document{file: file, lines: lines, places: map[string]position{}}
}

// clamp moves a place that the YAML library reports outside the text (at the
// end of input, mostly) to the nearest one inside.
func (d *document) clamp(p position) position {
	p.line = min(max(p.line, 1), len(d.lines))
	p.col = min(max(p.col, 1), utf8.RuneCountInString(d.lines[p.line-1])+1)
	return p
}

// report adds one diagnostic at a place.
func (d *document) report(sev Severity, p position, path, code, format string, args ...any) {
	diag := Diagnostic{
		File: d.file, Path: path, Code: code, Severity: sev,
		Detail: fmt.Sprintf(format, args...),
	}
	if p.line > 0 {
		p = d.clamp(p)
		diag.Line, diag.Col, diag.Source = p.line, p.col, d.lines[p.line-1]
	}
	d.diags = append(d.diags, diag)
}

// locate finds the place of a path, or of the nearest enclosing value that has
// one: a field that was left out is complained about where it should stand.
func (d *document) locate(path string) position {
	for path != "" {
		if p, ok := d.places[path]; ok {
			return p
		}
		path = parentPath(path)
	}
	if p, ok := d.places[""]; ok || len(d.lines) == 0 {
		return p
	}
	return position{1, 1}
}

// present reports whether the file gives a value for the path.
func (d *document) present(path string) bool {
	_, ok := d.places[path]
	return ok
}

// parentPath cuts the last step off: "a.b[2]" → "a.b" → "a" → "".
func parentPath(path string) string {
	if strings.HasSuffix(path, `"]`) {
		return path[:max(strings.LastIndex(path, `["`), 0)]
	}
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// fieldPath appends a mapping key to a path, quoted when it is no plain word.
func fieldPath(path, key string) string {
	plain := key != "" && strings.IndexFunc(key, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	}) < 0
	switch {
	case !plain:
		return path + "[" + strconv.Quote(key) + "]"
	case path == "":
		return key
	default:
		return path + "." + key
	}
}

func indexPath(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// maxNesting bounds the depth of YAML that is looked at: the deepest field of
// a Kubernetes manifest is some 15 levels down.
const maxNesting = 100

// parseYAML returns the documents that hold something. Broken YAML is reported
// once a document: what follows the first mistake cannot be read.
func (d *document) parseYAML(data []byte) []*ast.DocumentNode {
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	if !utf8.Valid(data) {
		d.report(SeverityError, invalidUTF8(data), "", "bad-yaml", "not UTF-8 text")
		return nil
	}
	if p, deep := nestedTooDeep(data); deep {
		d.report(SeverityError, p, "", "bad-yaml", "brackets are nested deeper than %d levels", maxNesting)
		return nil
	}
	var docs []*ast.DocumentNode
	for _, tokens := range splitDocuments(lexer.Tokenize(string(data))) {
		file, err := parseTokens(tokens)
		if err != nil {
			d.syntaxError(err, tokens)
			continue
		}
		for _, doc := range file.Docs {
			if doc != nil && !isNull(doc.Body) && !isComment(doc.Body) {
				docs = append(docs, doc)
			}
		}
	}
	return docs
}

// splitDocuments cuts a token stream at "---" and after "...": the library's
// own parser silently drops all that follows an empty document.
func splitDocuments(tokens token.Tokens) []token.Tokens {
	var out []token.Tokens
	var current token.Tokens
	content := false
	flush := func() {
		if content {
			current[0].Prev, current[len(current)-1].Next = nil, nil
			out = append(out, current)
		}
		current, content = nil, false
	}
	directives := false // "%YAML 1.2" belongs to the document that follows
	for _, tk := range tokens {
		switch tk.Type {
		case token.DocumentHeaderType:
			if !directives {
				flush()
			}
			directives = false
		case token.DirectiveType:
			directives = true
		case token.DocumentEndType:
			flush()
			continue
		case token.CommentType:
		default:
			content = true
		}
		current = append(current, tk)
	}
	flush()
	return out
}

// syntaxError reports what the library could not read.
func (d *document) syntaxError(err error, tokens token.Tokens) {
	p, msg := tokenPosition(tokens[0]), err.Error()
	var ye yaml.Error
	if errors.As(err, &ye) {
		msg = ye.GetMessage()
		if tk := ye.GetToken(); tk != nil && tk.Position != nil {
			p = tokenPosition(tk)
		}
	}
	d.report(SeverityError, p, "", "bad-yaml", "broken YAML: %s", strings.ReplaceAll(msg, "\t", `\t`))
}

// parseTokens turns a panic of the YAML library into an error: input comes from
// anywhere, and a crash is no way to reject it.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML reader gave up: %v", r)
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// isComment reports whether a node is there for readers, or the library, alone.
func isComment(n ast.Node) bool {
	switch n.(type) {
	case *ast.CommentGroupNode, *ast.CommentNode, *ast.DirectiveNode:
		return true
	}
	return false
}

func invalidUTF8(data []byte) position {
	p := position{1, 1}
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		if r == utf8.RuneError && n == 1 {
			break
		}
		p.col++
		if r == '\n' {
			p = position{p.line + 1, 1}
		}
		data = data[n:]
	}
	return p
}

// nestedTooDeep finds the first flow bracket beyond maxNesting. It does not
// know about quotes; a file with a hundred unmatched brackets in its strings
// is none that anybody means.
func nestedTooDeep(data []byte) (position, bool) {
	p, depth := position{1, 0}, 0
	for _, r := range string(data) {
		p.col++
		switch r {
		case '\n':
			p = position{p.line + 1, 0}
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		}
		if depth > maxNesting {
			return p, true
		}
	}
	return p, false
}

// positionOf is where a node begins: for block mappings the first key, because
// the library hands out the colon.
func positionOf(n ast.Node) position {
	switch x := n.(type) {
	case *ast.MappingNode:
		if !x.IsFlowStyle && len(x.Values) > 0 {
			return positionOf(x.Values[0])
		}
	case *ast.MappingValueNode:
		if x.Key != nil {
			return positionOf(x.Key)
		}
	case *ast.TagNode:
		if x.Value != nil {
			return positionOf(x.Value)
		}
	}
	return tokenPosition(n.GetToken())
}

func tokenPosition(tk *token.Token) position {
	if tk == nil || tk.Position == nil {
		return position{1, 1}
	}
	return position{tk.Position.Line, tk.Position.Column}
}
