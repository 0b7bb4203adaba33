package topology

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"

	"github.com/invopop/jsonschema"
)

// Schema is the JSON Schema (draft 2020-12) of the cluster file, for editors
// and other tools. It checks what one value can tell; what values mean to each
// other only [Parse] checks.
func Schema() ([]byte, error) {
	r := &jsonschema.Reflector{
		FieldNameTag: "yaml", Anonymous: true, ExpandedStruct: true, Mapper: scalarSchema,
	}
	s := r.Reflect(&Cluster{})
	s.Title = "Slipway cluster file"
	describeFields("Cluster", s)
	for name, def := range s.Definitions {
		describeFields(name, def)
	}
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write JSON Schema: %w", err)
	}
	return append(out, '\n'), nil
}

// describeFields adds what the Go types do not say.
func describeFields(typeName string, s *jsonschema.Schema) {
	if s.Properties == nil {
		return
	}
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		doc := fieldDocs[typeName+"."+p.Key]
		p.Value.Description = doc.text
		p.Value.Default = doc.value
		p.Value.Enum = append(p.Value.Enum, doc.words...)
		if doc.pattern != "" {
			p.Value.Pattern = doc.pattern
		}
		if doc.max != 0 {
			p.Value.Minimum = json.Number(fmt.Sprint(doc.min))
			p.Value.Maximum = json.Number(fmt.Sprint(doc.max))
		}
		if doc.nonEmpty {
			one := uint64(1)
			p.Value.MinItems = &one
		}
	}
}

// Patterns of what the file writes as text.
const (
	octet        = `(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])`
	ipv4Pattern  = octet + `(\.` + octet + `){3}`
	labelPattern = `^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
	// devicePattern is a label that fits a network device's name.
	devicePattern = `^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$`
)

// scalarSchema describes types that read themselves from one scalar.
func scalarSchema(t reflect.Type) *jsonschema.Schema {
	if e, ok := enums[t]; ok {
		s := &jsonschema.Schema{Type: "string"}
		for _, w := range e.words {
			s.Enum = append(s.Enum, w)
		}
		return s
	}
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return &jsonschema.Schema{Type: "string", Pattern: "^" + ipv4Pattern + "$"}
	case reflect.TypeFor[netip.Prefix]():
		return &jsonschema.Schema{Type: "string", Pattern: "^" + ipv4Pattern + "/(3[0-2]|[12]?[0-9])$"}
	case reflect.TypeFor[PortRange]():
		return &jsonschema.Schema{Type: "string", Pattern: "^[0-9]{1,5}-[0-9]{1,5}$"}
	case reflect.TypeFor[MTU]():
		return textOr("^(auto|[0-9]+)$", &jsonschema.Schema{
			Type: "integer", Minimum: json.Number(fmt.Sprint(minPodMTU)), Maximum: json.Number(fmt.Sprint(maxMTU)),
		})
	case reflect.TypeFor[Rate]():
		return textOr(`^[0-9]+(\.[0-9]+)?\s*([kKmMgGtT]?[bB][iI][tT])?$`, &jsonschema.Schema{Type: "integer", Minimum: "0"})
	case reflect.TypeFor[Duration]():
		return textOr(`^(0|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s))+)$`, &jsonschema.Schema{Const: 0})
	case reflect.TypeFor[Interval]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s))+$`}
	case reflect.TypeFor[Percent]():
		return textOr(`^(0|(100|[0-9]{1,2})(\.[0-9]+)?%)$`, &jsonschema.Schema{Const: 0})
	}
	return nil
}

// textOr allows text of a pattern, or something else.
func textOr(pattern string, other *jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string", Pattern: pattern}, other}}
}
