package topology

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"

	"github.com/goccy/go-yaml"
)

// Modernize rewrites the workloads of old tutorials (extensions/v1beta1 and its
// like, which no API serves any more) as apps/v1, with the selector that they
// could leave out then. It returns all else as it is, and the names of what it
// rewrote.
func Modernize(data []byte) ([]byte, []ObjectRef, error) {
	var out [][]byte
	var done []ObjectRef
	for _, doc := range documentEnd.Split(string(data), -1) {
		text, ref, err := modernDocument([]byte(doc))
		if err != nil {
			return nil, nil, err
		}
		if ref != nil {
			done = append(done, *ref)
		}
		out = append(out, text)
	}
	if len(done) == 0 {
		return data, nil, nil
	}
	return bytes.Join(out, []byte("\n---\n")), done, nil
}

// documentEnd is the line between two documents of a YAML file.
var documentEnd = regexp.MustCompile(`(?m)^---[ \t]*(#.*)?\r?$\n?`)

func modernDocument(doc []byte) ([]byte, *ObjectRef, error) {
	var head struct {
		APIVersion string                           `yaml:"apiVersion"`
		Kind       string                           `yaml:"kind"`
		Metadata   struct{ Name, Namespace string } `yaml:"metadata"`
	}
	if err := yaml.Unmarshal(doc, &head); err != nil { // the API says what is wrong, by its own rules
		return doc, nil, nil //nolint:nilerr // see above
	}
	for _, s := range kindSpecs() {
		if s.kind == head.Kind && s.versions[0] == "apps/v1" && slices.Contains(s.legacy, head.APIVersion) {
			ref := &ObjectRef{Kind: head.Kind, Namespace: head.Metadata.Namespace, Name: head.Metadata.Name}
			text, err := modernWorkload(doc)
			if err != nil {
				return nil, nil, fmt.Errorf("%s of %s: %w", ref, head.APIVersion, err)
			}
			return text, ref, nil
		}
	}
	return doc, nil, nil
}

func modernWorkload(doc []byte) ([]byte, error) {
	var o map[string]any
	if err := yaml.Unmarshal(doc, &o); err != nil {
		return nil, err
	}
	o["apiVersion"] = "apps/v1"
	spec, _ := o["spec"].(map[string]any)
	template, _ := spec["template"].(map[string]any)
	meta, _ := template["metadata"].(map[string]any)
	if spec != nil && spec["selector"] == nil && meta["labels"] != nil {
		spec["selector"] = map[string]any{"matchLabels": meta["labels"]}
	}
	delete(spec, "rollbackTo") // of extensions/v1beta1, without effect since Kubernetes 1.16
	return yaml.Marshal(o)
}
