package images

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"slipway/installer/components"
	"slipway/internal/run"
)

// host is what our own images are called by: no registry has this name, so that
// nothing is ever pulled under it.
const host = "slipway.local/"

// Ref is what one of our images is called: slipway.local/NAME:VERSION, the version
// being that of the component which is in it.
func Ref(name string) (string, error) {
	c, err := components.Find(name)
	if err != nil {
		return "", err
	}
	return host + name + ":" + c.Version, nil
}

// recipe is an archive to make.
type recipe struct {
	arch    string
	bundled bool // a bundle brought what it is made from
	entries []entry
	images  []image
}

// Names lists the images that can be made.
func Names() []string { return []string{"agnhost", "coredns", "echo", "pause"} }

// recipes make images by name.
var recipes = map[string]func(context.Context) (recipe, error){
	"agnhost": agnhost,
	"coredns": func(ctx context.Context) (recipe, error) { return single(ctx, "coredns") },
	"echo":    echo,
	"pause":   func(ctx context.Context) (recipe, error) { return single(ctx, "pause") },
}

// single is an image of a component's only program.
func single(ctx context.Context, name string) (recipe, error) {
	b, err := components.Verify(ctx, name)
	if err != nil {
		return recipe{}, fmt.Errorf("image %s: %w", name, err)
	}
	ref, err := Ref(name)
	if err != nil {
		return recipe{}, err
	}
	return recipe{
		arch:    b.Arch,
		bundled: b.Bundle,
		entries: []entry{{path: "/" + name, from: b.Path(name)}},
		images:  []image{{refs: []string{ref}, entrypoint: []string{"/" + name}}},
	}, nil
}

// echo has busybox beside the server, where that is installed: people look around
// in containers, and what stands in for another image is told to run its shell.
func echo(ctx context.Context) (recipe, error) {
	r, err := single(ctx, "echo")
	if err != nil {
		return r, err
	}
	more, err := busybox(ctx, r.entries)
	r.entries = append(r.entries, more...)
	return r, err
}

// conformance is the component that has the tests and the program in their
// containers.
const conformance = "conformance"

// testTools is what Kubernetes' network tests run in their containers, beside
// agnhost (test/images/agnhost/Dockerfile, test/e2e/network/dns_common.go).
var testTools = []tool{
	{"dash", "dash", "/bin/sh"},
	{"curl", "curl", "/usr/bin/curl"},
	{"nc.openbsd", "netcat-openbsd", "/usr/bin/nc"},
	{"dig", "bind9-dnsutils", "/usr/bin/dig"},
	{"getent", "libc-bin", "/usr/bin/getent"},
}

// agnhost is one layer for all images that the network tests start: agnhost with
// the tools that are run beside it, and under the names of two other images the
// shell. The names are those that e2e.test expects.
func agnhost(ctx context.Context) (recipe, error) {
	b, err := components.Verify(ctx, conformance)
	if err != nil {
		return recipe{}, fmt.Errorf("image agnhost: %w", err)
	}
	said, err := run.Cmd{Name: b.Path("e2e.test"), Args: []string{"--list-images"}}.Output(ctx)
	if err != nil {
		return recipe{}, fmt.Errorf("ask e2e.test for the names of its images: %w", err)
	}
	r := recipe{arch: b.Arch, bundled: b.Bundle, entries: []entry{{path: "/agnhost", from: b.Path("agnhost")}, {path: "/agnhost-2", link: "agnhost"}, {path: "/uploads", dir: true}}}
	r.images = named(strings.Fields(string(said)))
	if len(r.images) == 0 {
		return r, fmt.Errorf("e2e.test names no image agnhost")
	}
	for _, add := range []func() ([]entry, error){testCertificate, func() ([]entry, error) { return tools(ctx, "agnhost", testTools) }} {
		more, err := add()
		if err != nil {
			return r, err
		}
		r.entries = append(r.entries, more...)
	}
	more, err := busybox(ctx, r.entries)
	if err == nil && more == nil {
		err = &MissingError{"agnhost", "busybox (static)", "busybox-static"}
	}
	r.entries = append(r.entries, more...)
	return r, err
}

// named sorts the images of e2e.test by what they begin with.
func named(refs []string) []image {
	begin := map[string]image{
		"agnhost":           {entrypoint: []string{"/agnhost"}, args: []string{"pause"}},
		"busybox":           {args: []string{"sh"}},
		"glibc-dns-testing": {args: []string{"sh"}},
		"pause":             {entrypoint: []string{"/agnhost"}, args: []string{"pause"}},
	}
	slices.Sort(refs)
	for _, ref := range slices.Compact(refs) {
		base, _, _ := strings.Cut(path.Base(ref), ":")
		if i, ok := begin[base]; ok {
			i.refs = append(i.refs, ref)
			begin[base] = i
		}
	}
	var out []image
	for _, base := range []string{"agnhost", "busybox", "glibc-dns-testing", "pause"} {
		if i := begin[base]; len(i.refs) > 0 {
			out = append(out, i)
		}
	}
	if len(begin["agnhost"].refs) == 0 {
		return nil
	}
	return out
}
