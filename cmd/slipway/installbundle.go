package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"slipway/installer/bundle"
)

// bundleFlags name an archive with all that an installation needs.
type bundleFlags struct{ file, key string }

func (o *bundleFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.file, "bundle", "", "take programs and images from this `file` of slipway components bundle")
	f.StringVar(&o.key, "bundle-key", "", "the public key that the bundle has to be signed with (Ed25519, PEM)")
}

// unasked words what is not known of a bundle whose signature was not compared.
func unasked(signed bool) string {
	if signed {
		return "signed, but nobody asked by whom: --bundle-key names the public key"
	}
	return "not signed: its sums say that it is whole, not who made it"
}

// loadBundle takes a bundle into the cache, if one is named, and returns the
// versions of packages that hosts of its kind have.
func (a *app) loadBundle(ctx context.Context, o bundleFlags) (map[string]string, error) {
	if o.file == "" {
		return nil, nil
	}
	m, signed, err := readBundle(o.file, o.key, func(r io.Reader, k ed25519.PublicKey) (*bundle.Manifest, bool, error) {
		return bundle.Load(ctx, r, k)
	})
	if err != nil {
		return nil, err
	}
	if o.key == "" {
		fmt.Fprintf(a.err, "slipway: warning: %s: %s\n", o.file, unasked(signed))
	}
	versions := map[string]string{}
	for _, p := range m.Debian {
		if p.Version != "" {
			versions[p.Name] = p.Version
		}
	}
	return versions, nil
}
