package images

import (
	"fmt"
	"io"
	"runtime"

	"slipway/internal/digest"
)

// selfPath is where the program lies in its own image.
const selfPath = "/slipway"

// selfTag is so many hexadecimal digits of the program's SHA-256.
const selfTag = 12

// SelfRef is what the image with one of our own programs in it is called: by what is
// in it, so that no node takes another one for it.
func SelfRef(program string) (string, error) {
	sum, _, err := digest.File(program)
	if err != nil {
		return "", fmt.Errorf("name the image of %s: %w", program, err)
	}
	return host + "slipway:" + sum[:selfTag], nil
}

// WriteSelf writes the image archive of one of our own programs, which is linked
// statically and needs nothing beside it, under a name.
func WriteSelf(w io.Writer, program, ref string) error {
	entries := []entry{{path: selfPath, from: program}}
	return writeArchive(w, runtime.GOARCH, entries, []image{{refs: []string{ref}, entrypoint: []string{selfPath}}})
}
