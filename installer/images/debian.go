package images

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"slipway/internal/run"
)

// MissingError says that a Debian package is not installed whose programs go
// into an image.
type MissingError struct{ Image, Program, Package string }

// Error says what to install.
func (e *MissingError) Error() string {
	return fmt.Sprintf("image %s needs the program %s: apt-get install %s", e.Image, e.Program, e.Package)
}

// tool is a program of Debian's that goes into an image.
type tool struct {
	program string // looked for on PATH
	pkg     string
	as      string // where it lies in the image
}

// tools puts programs and the libraries that they need at the same places in the
// image; each library once.
func tools(ctx context.Context, image string, wanted []tool) ([]entry, error) {
	var out []entry
	have := map[string]bool{}
	for _, t := range wanted {
		p, err := exec.LookPath(t.program)
		if err != nil {
			return nil, &MissingError{image, t.program, t.pkg}
		}
		libs, err := libraries(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", image, err)
		}
		out = append(out, entry{path: t.as, from: p})
		for _, l := range libs {
			if !have[l] {
				have[l] = true
				out = append(out, entry{path: l, from: l})
			}
		}
	}
	return out, nil
}

// libraries are the shared libraries of a program, and its loader, as ldd(1)
// tells them; none of a static one.
func libraries(ctx context.Context, program string) ([]string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", program, err)
	}
	defer f.Close() //nolint:errcheck // only read
	if !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil, nil
	}
	said, err := run.Cmd{Name: "ldd", Args: []string{program}}.Output(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the libraries of %s: %w", program, err)
	}
	var out []string
	for line := range strings.Lines(string(said)) {
		for _, word := range strings.Fields(line) { // "libc.so.6 => /lib/…/libc.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)"
			if filepath.IsAbs(word) {
				out = append(out, word)
			}
		}
	}
	return out, nil
}

// busybox is the static one, with all of its commands but those that are there
// already. Without the package there is none.
func busybox(ctx context.Context, have []entry) ([]entry, error) {
	p, err := exec.LookPath("busybox")
	if err != nil {
		return nil, nil
	}
	libs, err := libraries(ctx, p)
	if err != nil || len(libs) > 0 {
		return nil, err // the package busybox, which is not static
	}
	said, err := run.Cmd{Name: p, Args: []string{"--list"}}.Output(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask busybox for its commands: %w", err)
	}
	taken := map[string]bool{"busybox": true}
	for _, e := range have {
		taken[filepath.Base(e.path)] = true
	}
	out := []entry{{path: "/bin/busybox", from: p}}
	for _, name := range bytes.Fields(said) {
		if !taken[string(name)] {
			out = append(out, entry{path: "/bin/" + string(name), link: "busybox"})
		}
	}
	return out, nil
}

// resolve follows links on this machine: an image has the file.
func resolve(entries []entry) ([]entry, error) {
	for i, e := range entries {
		if e.from == "" {
			continue
		}
		p, err := filepath.EvalSymlinks(e.from)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(p); err != nil {
			return nil, err
		}
		entries[i].from = p
	}
	return entries, nil
}
