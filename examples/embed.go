// Package examples holds the example cluster files and manifests, embedded so
// that the program can use them wherever it is installed.
package examples

import "embed"

// Files are the YAML files of this directory.
//
//go:embed *.yaml
var Files embed.FS
