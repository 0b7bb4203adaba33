package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/run"
	"slipway/lab/shape"
)

// scratch is an unnamed namespace to try things in. Without the privilege to
// make one, ns is nil and err says why.
type scratch struct {
	ns  *netns.NS
	h   *nl.Handle
	err error

	// dir holds iptables' lock, so that no probe waits for, or holds up, others.
	dir  string
	save string // the iptables-save that labs use

	shaping *shape.Support // what shape.Probe said, asked once
}

func newScratch() *scratch {
	s := &scratch{}
	if s.ns, s.err = netns.Anonymous(); s.err != nil {
		return s
	}
	if s.err = s.open(); s.err != nil {
		s.close()
		s.ns = nil
	}
	return s
}

func (s *scratch) open() error {
	var err error
	if s.h, err = nl.At(s.ns); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "slipway-doctor-"); err != nil {
		return err
	}
	host, err := linux.Open(s.ns, linux.Options{})
	if err != nil {
		return err
	}
	defer host.Close()
	s.save = host.IPTables()
	return nil
}

func (s *scratch) close() {
	if s.h != nil {
		s.h.Close()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
	if s.ns != nil {
		_ = s.ns.Close()
	}
}

// shape asks once what traffic can be shaped with.
func (s *scratch) shape() shape.Support {
	if s.shaping == nil {
		sup := shape.Probe()
		s.shaping = &sup
	}
	return *s.shaping
}

// shapeGap is what the kernel said to one kind of shaping.
func (s *scratch) shapeGap(kind string, there bool) (string, error) {
	if there {
		return "", nil
	}
	for _, m := range s.shape().Missing {
		if why, ok := strings.CutPrefix(m, kind+": "); ok {
			return "", fmt.Errorf("%s: %s", kind, why)
		}
	}
	return "", errors.New("not available")
}

// command runs a program in the scratch namespace.
func (s *scratch) command(ctx context.Context, stdin, name string, args ...string) (string, error) {
	out, err := run.Cmd{
		NS: s.ns, Name: name, Args: args, Stdin: strings.NewReader(stdin),
		Env: append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(s.dir, "xtables")),
	}.Output(ctx)
	return strings.TrimSpace(string(out)), err
}

// restore loads lines in iptables-save form, with the program that labs use.
func (s *scratch) restore(ctx context.Context, lines ...string) error {
	input := strings.Join(append(lines, "COMMIT"), "\n") + "\n"
	_, err := s.command(ctx, input, strings.TrimSuffix(s.save, "-save")+"-restore", "--noflush", "--wait")
	return err
}
