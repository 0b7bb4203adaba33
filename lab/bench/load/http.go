package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxHead is the longest head of an HTTP message that is taken, in bytes.
const maxHead = 16 << 10

// Parts of messages (RFC 9112 §2.1, §6.2).
var (
	headEnd       = []byte("\r\n\r\n")
	contentLength = []byte("\r\ncontent-length:")
)

// httpRequests gets a body of the job's size over standing connections
// (HTTP/1.1 keep-alive), from the path that the lab's own echo servers have for
// it. Both ends parse just what they need: net/http on them would be measured
// more than the network.
func httpRequests(ctx context.Context, j Job) (Figures, error) {
	request := fmt.Appendf(nil, "GET /bytes?n=%d HTTP/1.1\r\nHost: %s\r\n\r\n", j.Size, j.target(j.Port).Addr())
	return overConnections(ctx, j,
		func(s socket) requester {
			return &httpClient{s: s, request: request, size: j.Size, buf: make([]byte, maxHead)}
		},
		servingHTTP(j))
}

// servingHTTP is the server's end of one connection.
func servingHTTP(j Job) func(context.Context, socket) error {
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", j.Size)
	answer = append(answer, make([]byte, j.Size)...)
	return func(ctx context.Context, s socket) error { return serveHTTP(ctx, s, answer) }
}

// serveHTTP answers each request on a connection alike.
func serveHTTP(ctx context.Context, s socket, answer []byte) error {
	buf := make([]byte, maxHead)
	for held := 0; ; {
		n, err := unix.Read(int(s), buf[held:])
		switch {
		case err == nil && n == 0:
			return nil
		case err != nil && !stuck(err):
			return fmt.Errorf("receive request: %w", err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		held += max(n, 0)
		if !bytes.HasSuffix(buf[:held], headEnd) {
			if held == len(buf) {
				return errors.New("receive request: its head is too long")
			}
			continue
		}
		held = 0
		if err := s.writeFull(ctx, answer); err != nil {
			return fmt.Errorf("send answer: %w", err)
		}
	}
}

// httpClient asks over one connection.
type httpClient struct {
	s       socket
	request []byte
	size    int
	buf     []byte
}

func (c *httpClient) closed(ctx context.Context, w window, r *replies) error {
	for sent := time.Now(); sent.Before(w.until); {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.s.writeFull(ctx, c.request); err != nil {
			return fmt.Errorf("send request: %w", err)
		}
		if err := c.take(ctx); err != nil {
			return fmt.Errorf("receive answer: %w", err)
		}
		now := time.Now()
		if w.counts(sent) {
			r.answered(sent, now)
		}
		sent = now
	}
	return nil
}

// take reads one answer to its end.
func (c *httpClient) take(ctx context.Context) error {
	held, end := 0, -1
	for end < 0 {
		n, err := c.read(ctx, c.buf[held:])
		if err != nil {
			return err
		}
		held += n
		if end = bytes.Index(c.buf[:held], headEnd); end < 0 && held == len(c.buf) {
			return errors.New("its head is too long")
		}
	}
	if err := c.check(c.buf[:end]); err != nil {
		return err
	}
	for left := c.size - (held - end - len(headEnd)); left != 0; {
		if left < 0 {
			return errors.New("more than one answer to one request")
		}
		n, err := c.read(ctx, c.buf[:min(left, len(c.buf))])
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func (c *httpClient) read(ctx context.Context, buf []byte) (int, error) {
	for {
		n, err := unix.Read(int(c.s), buf)
		switch {
		case err == nil && n == 0:
			return 0, io.ErrUnexpectedEOF
		case err == nil:
			return n, nil
		case !stuck(err):
			return 0, err
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
	}
}

// check looks for the status and the length that were asked for.
func (c *httpClient) check(head []byte) error {
	line, _, _ := bytes.Cut(head, headEnd[:2])
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("the server says %q", line)
	}
	for i := range head {
		if head[i] != '\r' || len(head)-i < len(contentLength) || !bytes.EqualFold(head[i:i+len(contentLength)], contentLength) {
			continue
		}
		value, _, _ := bytes.Cut(head[i+len(contentLength):], headEnd[:2])
		n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
		if err != nil || n != c.size {
			return fmt.Errorf("%d bytes were asked for, Content-Length is %q", c.size, value)
		}
		return nil
	}
	return errors.New("the answer has no Content-Length")
}
