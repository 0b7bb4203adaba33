package cluster

import (
	"bytes"
	"embed"
	"fmt"
	"text/template"

	"slipway/installer"
)

//go:embed templates
var files embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(files, "templates/*"))

// render fills a template in.
func render(name string, values map[string]any) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, values); err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// service is a unit from a template. It is started again when one of the items
// that it reads changes.
func service(name string, values map[string]any, reads ...installer.Item) (installer.Unit, error) {
	text, err := render(name, values)
	return installer.Unit{Name: name, Text: text, Inputs: paths(reads)}, err
}
