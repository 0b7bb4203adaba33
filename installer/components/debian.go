package components

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"slipway/internal/run"
)

// Package is one of Debian's, as it is on this machine.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // empty: not installed
}

// Installed asks dpkg for the packages that a component comes with. It is empty
// for those that are built, and has no versions on a machine without dpkg.
func (c *Component) Installed(ctx context.Context) ([]Package, error) {
	var out []Package
	for _, name := range c.Debian {
		said, err := run.Cmd{Name: "dpkg-query", Args: []string{"--show", "--showformat=${db:Status-Status} ${Version}", name}}.Output(ctx)
		var failed *exec.ExitError
		if err != nil && !errors.As(err, &failed) && !errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("ask dpkg for %s: %w", name, err)
		}
		p := Package{Name: name}
		if status, version, _ := strings.Cut(string(said), " "); status == "installed" {
			p.Version = version
		}
		out = append(out, p)
	}
	return out, nil
}

// ErrNotInstalled reports that one of Debian's packages is not there.
var ErrNotInstalled = errors.New("not installed")

// VerifyInstalled checks that a component's packages are installed and that
// their files are those that came with them; configuration files may differ.
func (c *Component) VerifyInstalled(ctx context.Context) ([]Package, error) {
	packages, err := c.Installed(ctx)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, p := range packages {
		if p.Version == "" {
			missing = append(missing, p.Name)
		}
	}
	if len(missing) > 0 {
		return packages, fmt.Errorf("component %s: %w: apt-get install %s", c.Name, ErrNotInstalled, strings.Join(missing, " "))
	}
	for _, p := range packages {
		said, err := run.Cmd{Name: "dpkg", Args: []string{"--verify", p.Name}}.Output(ctx)
		if err != nil && len(said) == 0 {
			return packages, fmt.Errorf("component %s: verify package %s: %w", c.Name, p.Name, err)
		}
		if files := altered(string(said)); len(files) > 0 {
			return packages, fmt.Errorf("component %s: not as package %s brought them: %s: apt-get install --reinstall %s",
				c.Name, p.Name, strings.Join(files, " "), p.Name)
		}
	}
	return packages, nil
}

// altered reads what `dpkg --verify` says (dpkg(1)): "??5?????? c /etc/x" for a
// configuration file, "missing     /usr/bin/x". A digest that differs or a
// program that is gone counts; documentation is often left out of an image.
func altered(said string) []string {
	var out []string
	for line := range strings.Lines(said) {
		f := strings.Fields(line)
		if len(f) < 2 || f[1] == "c" || strings.HasPrefix(f[len(f)-1], "/usr/share/") {
			continue
		}
		out = append(out, f[len(f)-1])
	}
	return out
}
