package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"slipway/installer/bundle"
	"slipway/installer/cluster"
	"slipway/installer/components"
	"slipway/installer/images"
)

func (a *app) componentsBundleCmd() *cobra.Command {
	var out, key string
	var all bool
	c := &cobra.Command{
		Use: "bundle [NAME...]", Short: "Put built components and images into one file",
		Long: `Put built components, the core set without names, and the images made from them into
one file, for machines without a network or a Go toolchain: 'components load' takes them
into the cache there. The same components give the same bytes. With --sign-key the
file's list of checksums is signed (Ed25519).`,
		Example: "  openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out pub.pem\n" +
			"  slipway components bundle -f core.tgz --sign-key key.pem\n  slipway components bundle verify core.tgz --key pub.pem",
		RunE: func(cmd *cobra.Command, names []string) error {
			names, err := toBuild(names, all)
			if err != nil {
				return err
			}
			o := bundle.Options{Components: names, Images: imagesOf(names), Packages: cluster.SystemPackages()}
			if key != "" {
				if o.Key, err = bundle.ReadPrivateKey(key); err != nil {
					return err
				}
			}
			m, err := writeBundle(cmd.Context(), out, o)
			if err != nil {
				return err
			}
			return a.printBundle(m, sayKey(key != "", key != ""))
		},
	}
	c.Flags().StringVarP(&out, "file", "f", "slipway-components.tgz", "the file to write")
	c.Flags().StringVar(&key, "sign-key", "", "sign with this private key (Ed25519, PEM)")
	c.Flags().BoolVar(&all, "all", false, "all sets: core, network and test")
	verify := a.bundleVerifyCmd()
	wrapArgs(verify)
	c.AddCommand(verify)
	return c
}

// imagesOf are the images that components go into.
func imagesOf(names []string) (out []string) {
	for _, i := range images.Names() {
		for _, n := range names {
			if images.Component(i) == n {
				out = append(out, i)
			}
		}
	}
	return out
}

// writeBundle leaves a whole bundle or none.
func writeBundle(ctx context.Context, path string, o bundle.Options) (m *bundle.Manifest, err error) {
	f, err := os.Create(path + ".part")
	if err != nil {
		return nil, fmt.Errorf("write the bundle: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	m, err = bundle.Write(ctx, f, o)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return m, os.Rename(f.Name(), path)
}

func (a *app) bundleVerifyCmd() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "verify FILE", Short: "Compare a bundle's files with their checksums, and its signature",
		Example: "  slipway components bundle verify core.tgz --key pub.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, signed, err := readBundle(args[0], key, func(r io.Reader, k ed25519.PublicKey) (*bundle.Manifest, bool, error) {
				return bundle.Verify(cmd.Context(), r, k)
			})
			if err != nil {
				return err
			}
			return a.printBundle(m, sayKey(signed, key != ""))
		},
	}
	c.Flags().StringVar(&key, "key", "", "the public key that it has to be signed with (Ed25519, PEM)")
	return c
}

// sayKey words what is known of a bundle's signature.
func sayKey(signed, compared bool) string {
	switch {
	case signed && compared:
		return "signed with the key"
	case signed:
		return "signed, by whom was not asked (--key)"
	default:
		return "not signed"
	}
}

func (a *app) componentsLoadCmd() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "load FILE", Short: "Take the components of a bundle into the cache",
		Long: `Take the components and images of a bundle into the cache. Every file is compared with
its checksum first; with --key the bundle has to be signed with it. Nothing is taken in
of a bundle that is damaged, or made for another version of slipway.`,
		Example: "  slipway components load core.tgz --key pub.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, signed, err := readBundle(args[0], key, func(r io.Reader, k ed25519.PublicKey) (*bundle.Manifest, bool, error) {
				return bundle.Load(cmd.Context(), r, k)
			})
			if err != nil {
				return err
			}
			return a.printBundle(m, sayKey(signed, key != ""))
		},
	}
	c.Flags().StringVar(&key, "key", "", "the public key that it has to be signed with (Ed25519, PEM)")
	return c
}

func readBundle(path, key string, read func(io.Reader, ed25519.PublicKey) (*bundle.Manifest, bool, error)) (*bundle.Manifest, bool, error) {
	var public ed25519.PublicKey
	if key != "" {
		var err error
		if public, err = bundle.ReadPublicKey(key); err != nil {
			return nil, false, err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false, fmt.Errorf("open the bundle: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	m, signed, err := read(f, public)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	return m, signed, nil
}

func (a *app) printBundle(m *bundle.Manifest, key string) error {
	return a.print(m, func(w io.Writer) error {
		var rows [][]string
		for _, c := range m.Components {
			var size int64
			for _, p := range c.Programs {
				size += p.Size
			}
			rows = append(rows, []string{"component", c.Name, c.Version + " " + c.Arch, mib(size)})
		}
		for _, i := range m.Images {
			rows = append(rows, []string{"image", i.Name, strings.Join(i.Refs, " "), mib(i.Size)})
		}
		if err := printTable(w, []string{"KIND", "NAME", "VERSION", "SIZE"}, rows); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "%s; from Debian, to be installed besides: %s\n", key, debianOf(m.Debian))
		return err
	})
}

func debianOf(packages []components.Package) string {
	var out []string
	for _, p := range packages {
		if p.Version == "" {
			p.Version = "(not installed there)"
		}
		out = append(out, p.Name+" "+p.Version)
	}
	return strings.Join(out, ", ")
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
