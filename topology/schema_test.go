package topology

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("cluster.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("cluster.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instance reads a YAML file the way an editor would before it validates.
func instance(t *testing.T, data []byte) any {
	t.Helper()
	j, err := yaml.YAMLToJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSchemaAcceptsExamples(t *testing.T) {
	s := compiledSchema(t)
	for _, path := range examples(t) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(instance(t, data)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		c, _ := loadExample(t, path)
		full, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(instance(t, full)); err != nil {
			t.Errorf("%s with its defaults: %v\n%s", path, err, full)
		}
	}
}

// TestSchemaRefusesStructuralErrors: what one value alone shows to be wrong,
// the schema refuses; what only the whole file shows, it cannot.
func TestSchemaRefusesStructuralErrors(t *testing.T) {
	s := compiledSchema(t)
	structural := map[string]bool{
		"unknown-field": true, "wrong-type": true, "missing-name": true, "header": true, "missing-header": true,
		"lab-name-slash": true, "etcd-intervals": false, "etcd-election": false, "etcd-heartbeat": false, "names": true, "bad-port": true, "bad-port-range": false, "bad-shaping": true,
		"unknown-references": true, "address": true, "bad-cidr": true, "node-prefix": true, "tiny-mtu": false,
		"mtu-explicit-tiny": true, "bad-label": true, "many": true, "only-load-balancers": true, "mtu": true,
		"cidr-overlap": false, "duplicate-address": false, "duplicate-name": false, "host-gw-across-router": false,
		"pod-cidr-too-small": false, "missing-manifest": false, "segment-full": false, "segment-unreachable": false,
	}
	for name, refused := range structural {
		data, err := os.ReadFile(filepath.Join("../testdata/err", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(instance(t, data)); (err != nil) != refused {
			t.Errorf("%s: refused %v, want %v (%v)", name, err != nil, refused, err)
		}
	}
}

// TestSchemaDescribesEveryField keeps the table of descriptions complete and
// free of fields that are gone.
func TestSchemaDescribesEveryField(t *testing.T) {
	seen := map[string]bool{}
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if _, own := ownTypes[t]; own || t.Kind() != reflect.Struct {
			return
		}
		fs := fieldsOf(t)
		for _, n := range fs.names {
			seen[t.Name()+"."+n] = true
			walk(t.FieldByIndex(fs.index[n]).Type)
		}
	}
	walk(reflect.TypeFor[Cluster]())
	for f := range seen {
		if fieldDocs[f].text == "" {
			t.Errorf("%s has no description", f)
		}
	}
	for f := range fieldDocs {
		if !seen[f] {
			t.Errorf("description of %s, which is no field", f)
		}
	}
}
