package images

import (
	"context"
	"fmt"
	"slices"

	"slipway/installer"
)

// What says that a container runs a stand-in: the environment that the echo
// server reads, and the image's label.
const (
	StandInEnv   = "SLIPWAY_STAND_IN"
	StandInLabel = "slipway/stand-in-for"
)

// standIn is the echo server under another image's name.
func standIn(ref string) image {
	return image{
		refs:       []string{ref},
		entrypoint: []string{"/echo"},
		env:        []string{StandInEnv + "=" + ref},
		labels:     map[string]string{StandInLabel: ref},
	}
}

// StandIns makes one archive with the echo server under the names of images that
// cannot be had. A container cannot see which ports its pod declares, so that one
// of these serves 80 and 8080, what PORT in its environment says, and every port
// that one of its arguments ends in.
func StandIns(ctx context.Context, cacheDir string, refs ...string) (map[string]installer.Blob, error) {
	r, err := echo(ctx)
	if err != nil {
		return nil, err
	}
	r.images = nil
	slices.Sort(refs)
	for _, ref := range slices.Compact(refs) {
		r.images = append(r.images, standIn(ref))
	}
	out := map[string]installer.Blob{}
	if len(refs) == 0 {
		return out, nil
	}
	if err := r.build(cacheDir, "stand-ins", out); err != nil {
		return nil, fmt.Errorf("stand in for %v: %w", refs, err)
	}
	return out, nil
}
