package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxBytes bounds a report's file; a full run's has less than 1 MB.
const maxBytes = 64 << 20

// FileError says what is wrong with a report's file, and where.
type FileError struct {
	File  string
	Field string // series[3].metrics[0].unit; empty if it is the whole
	Err   error
}

func (e *FileError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", e.File, e.Field, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }

// Write writes the report as JSON. A report that [Read] would refuse is an error.
func Write(w io.Writer, r *Report) error {
	if field, err := r.check(); err != nil {
		return fmt.Errorf("write report: %s: %w", field, err)
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return written(w, string(b)+"\n")
}

func written(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// Read reads a report written by [Write]. It is strict: fields that reports do
// not have, names given twice and figures that cannot be are errors, which are
// [FileError]s that name the file as given and the field.
func Read(in io.Reader, file string) (*Report, error) {
	b, err := io.ReadAll(io.LimitReader(in, maxBytes+1))
	if err != nil {
		return nil, &FileError{File: file, Err: err}
	}
	if len(b) > maxBytes {
		return nil, &FileError{File: file, Err: fmt.Errorf("more than %d MB: not a report", maxBytes>>20)}
	}
	if err := version(b); err != nil {
		err.File = file
		return nil, err
	}
	var r Report
	if err := jsonv2.Unmarshal(b, &r, jsonv2.RejectUnknownMembers(true)); err != nil {
		return nil, &FileError{file, fieldOf(err), reason(err)}
	}
	if field, err := r.check(); err != nil {
		return nil, &FileError{file, field, err}
	}
	return &r, nil
}

// version looks at what the file says it is, before anything else of it is
// judged: a newer version has other fields.
func version(b []byte) *FileError {
	var head struct {
		APIVersion jsontext.Value `json:"apiVersion"`
		Kind       jsontext.Value `json:"kind"`
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return &FileError{Err: errors.New("the file is empty")}
	}
	if err := jsonv2.Unmarshal(b, &head); err != nil {
		return &FileError{Field: fieldOf(err), Err: reason(err)}
	}
	if got := string(head.Kind); got != `"`+Kind+`"` {
		return &FileError{Field: "kind", Err: fmt.Errorf("want %q, got %s", Kind, orNothing(got))}
	}
	if got := string(head.APIVersion); got != `"`+APIVersion+`"` {
		return &FileError{Field: "apiVersion", Err: fmt.Errorf("this program reads %q, the file is %s", APIVersion, orNothing(got))}
	}
	return nil
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// fieldOf is the place of a decoding error, as Go and jq write it.
func fieldOf(err error) string {
	var semantic *jsonv2.SemanticError
	var syntax *jsontext.SyntacticError
	var at jsontext.Pointer
	switch {
	case errors.As(err, &semantic):
		at = semantic.JSONPointer
	case errors.As(err, &syntax):
		at = syntax.JSONPointer
	}
	var b strings.Builder
	for token := range at.Tokens() {
		switch {
		case strings.Trim(token, "0123456789") == "":
			b.WriteString("[" + token + "]")
		case b.Len() > 0:
			b.WriteString("." + token)
		default:
			b.WriteString(token)
		}
	}
	return b.String()
}

// reason is what is wrong, without the place, which stands before it.
func reason(err error) error {
	var semantic *jsonv2.SemanticError
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsonv2.ErrUnknownName):
		return errors.New("reports have no such field")
	case errors.As(err, &syntax):
		return fmt.Errorf("not JSON at byte %d: %w", syntax.ByteOffset, syntax.Err)
	case errors.As(err, &semantic) && semantic.Err != nil:
		return semantic.Err
	case errors.As(err, &semantic):
		return fmt.Errorf("a JSON %v cannot be a %v", kindOf(semantic), semantic.GoType)
	}
	return err
}

func kindOf(e *jsonv2.SemanticError) string {
	if len(e.JSONValue) > 0 {
		return fmt.Sprintf("%v %s", e.JSONKind, e.JSONValue)
	}
	return e.JSONKind.String()
}

// finite reports whether JSON can hold a figure.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
