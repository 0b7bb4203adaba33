package initd

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
)

// pipes are a command's three standard streams.
type pipes struct{ in, out, err struct{ r, w *os.File } }

func newPipes() (p *pipes, err error) {
	p = &pipes{}
	for _, end := range []*struct{ r, w *os.File }{&p.in, &p.out, &p.err} {
		if end.r, end.w, err = os.Pipe(); err != nil {
			p.closeTheirs()
			p.closeOurs()
			return nil, err
		}
	}
	return p, nil
}

func (p *pipes) theirs() []uintptr { return []uintptr{p.in.r.Fd(), p.out.w.Fd(), p.err.w.Fd()} }

func (p *pipes) closeTheirs() { closeAll(p.in.r, p.out.w, p.err.w) }

func (p *pipes) closeOurs() { closeAll(p.in.w, p.out.r, p.err.r) }

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // a pipe's end
		}
	}
}

// maxOutput is how much of a command's output is kept, in bytes: what is beyond
// is read and lost.
const maxOutput = 64 << 20

// talk writes the input and reads what comes until the streams end.
func (p *pipes) talk(input []byte) (out, errs []byte) {
	defer p.closeOurs()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = p.in.w.Write(input) // who does not read it does not need it
		_ = p.in.w.Close()
	})
	read := func(f *os.File, to *[]byte) {
		var b bytes.Buffer
		if _, err := io.CopyN(&b, f, maxOutput); err == nil || !errors.Is(err, io.EOF) {
			_, _ = io.Copy(io.Discard, f)
		}
		*to = b.Bytes()
	}
	wg.Go(func() { read(p.out.r, &out) })
	wg.Go(func() { read(p.err.r, &errs) })
	wg.Wait()
	return out, errs
}
