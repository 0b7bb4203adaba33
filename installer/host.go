package installer

import (
	"context"
	"fmt"
	"io"
	"os"

	"slipway/internal/digest"
)

// Command is a program to run on a host, as root, without a shell between.
type Command struct {
	Argv  []string
	Stdin []byte
}

// Result is how a program ended.
type Result struct {
	Code           int
	Stdout, Stderr []byte
}

// Host is a machine that can be changed.
type Host interface {
	Name() string
	// Run runs a program to its end. Any exit code is a result; an error means
	// that it could not be run, or that nobody knows how it ended.
	Run(ctx context.Context, c Command) (Result, error)
	// Store makes sure that a blob is in the host's store, at [StorePath] of its
	// sum. It is not sent where it is already.
	Store(ctx context.Context, b Blob) error
}

// Fetcher is a host that files can be brought from.
type Fetcher interface {
	// Fetch writes a file of the host to w.
	Fetch(ctx context.Context, path string, w io.Writer) error
}

// Blob is a file that is too big to travel in a script: a program, an image.
type Blob struct {
	Sum  string // SHA-256 in hexadecimal
	Size int64  // bytes
	Path string // where it lies on this machine
}

// StoreDir is where hosts keep blobs, by their sums. Programs are links into it:
// going to another version and back is changing a link.
const StoreDir = "/opt/slipway/store"

// StorePath is where a blob lies on a host.
func StorePath(sum string) string { return StoreDir + "/" + sum }

// Own is this very program, which runs on hosts as well.
func Own() (Blob, error) {
	exe, err := os.Executable()
	if err != nil {
		return Blob{}, fmt.Errorf("find own program: %w", err)
	}
	sum, size, err := digest.File(exe)
	return Blob{Sum: sum, Size: size, Path: exe}, err
}
