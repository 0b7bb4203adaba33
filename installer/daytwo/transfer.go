package daytwo

import (
	"context"
	"fmt"
	"io"

	"slipway/installer"
)

// chunk is how much of a file travels at once, in bytes: what a host's Run holds
// in memory.
const chunk = 4 << 20

// fetch reads a file of a host's, whose size is known.
func fetch(ctx context.Context, h installer.Host, path string, size int64, w io.Writer) error {
	if f, ok := h.(installer.Fetcher); ok {
		return f.Fetch(ctx, path, w)
	}
	for at := int64(0); at < size; at += chunk {
		part, err := run(ctx, h, fmt.Sprintf("dd if=%s bs=%d skip=%d count=1 iflag=fullblock status=none", installer.Quote(path), chunk, at/chunk))
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if want := min(chunk, size-at); int64(len(part)) != want {
			return fmt.Errorf("read %s of %s: %d bytes at %d, not %d", path, h.Name(), len(part), at, want)
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// sender writes a file on a host, part by part, for root alone to read. It goes
// by the hosts' Run, as their stores are for everybody to read.
type sender struct {
	ctx  context.Context
	h    installer.Host
	path string
	part []byte
}

// Write takes content in.
func (s *sender) Write(p []byte) (int, error) {
	s.part = append(s.part, p...)
	for len(s.part) >= chunk {
		if err := s.send(s.part[:chunk]); err != nil {
			return 0, err
		}
		s.part = append(s.part[:0], s.part[chunk:]...)
	}
	return len(p), nil
}

// Close writes the rest.
func (s *sender) Close() error { return s.send(s.part) }

func (s *sender) send(part []byte) error {
	r, err := s.h.Run(s.ctx, installer.Command{Argv: []string{"sh", "-c", "umask 077; cat >>" + installer.Quote(s.path)}, Stdin: part})
	if err != nil {
		return err
	}
	if r.Code != 0 {
		return &ExitError{Host: s.h.Name(), Code: r.Code, Stderr: string(r.Stderr)}
	}
	return nil
}
