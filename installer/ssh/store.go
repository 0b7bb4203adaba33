package ssh

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"slipway/installer"
)

//go:embed store.sh
var storeScript string

// The exit codes of store.sh.
const (
	storeUnwritable = 10
	storeFull       = 11
	storeCut        = 12
	storeWrong      = 13
)

// StoreError says that a host's store does not take a blob.
type StoreError struct {
	Host, Path string
	Code       int   // of store.sh
	Need, Free int64 // bytes; 0 where it does not matter
	Mount      string
	Said       string
}

// Error names host, path and what is missing.
func (e *StoreError) Error() string {
	switch {
	case e.Code == storeFull:
		return fmt.Sprintf("%s: %s: %d bytes are needed, %d are free on %s%s", e.Host, e.Path, e.Need, e.Free, e.Mount, indented(e.Said))
	case e.Code == storeWrong:
		return fmt.Sprintf("%s: %s: what arrived has another SHA-256", e.Host, e.Path)
	}
	return fmt.Sprintf("%s: %s cannot be written%s", e.Host, e.Path, indented(e.Said))
}

// Hint says what to do.
func (e *StoreError) Hint() string {
	switch {
	case e.Code == storeFull:
		return "make room on " + e.Mount
	case strings.Contains(e.Said, "Read-only file system"):
		return "the file system is mounted read-only: look for errors of its disk (dmesg), mount it writable, or have " + installer.StoreDir + " on another one"
	case e.Code == storeWrong:
		return "does the file on this machine change? `slipway components verify` looks"
	}
	return "root must be able to write " + installer.StoreDir
}

// storeTries is how often a blob is begun, or gone on with after a lost
// connection. It is safe: a blob counts only once its sum is right.
const storeTries = 4

// Store sends a blob that is not there yet, from where an earlier try got to.
// Errors are *StoreError and those of Run.
func (h *Host) Store(ctx context.Context, b installer.Blob) error {
	for try := 1; ; try++ {
		err := h.store(ctx, b)
		var lost *LostError
		var bad *StoreError
		again := errors.As(err, &lost) || errors.As(err, &bad) && (bad.Code == storeWrong || bad.Code == storeCut)
		if !again || try == storeTries || ctx.Err() != nil {
			return err
		}
	}
}

func (h *Host) store(ctx context.Context, b installer.Blob) error {
	f, err := os.Open(b.Path)
	if err != nil {
		return fmt.Errorf("%s: store: %w", h.target.Name, err)
	}
	defer f.Close() //nolint:errcheck // read-only
	if st, err := f.Stat(); err != nil || st.Size() != b.Size {
		return fmt.Errorf("%s: store %s: it has not the %d bytes that it is to have", h.target.Name, b.Path, b.Size)
	}
	u := &upload{h: h, blob: b, file: f, state: make(chan string, 1)}
	var errs bytes.Buffer
	argv := []string{"sh", "-c", storeScript, "store", installer.StoreDir, b.Sum, strconv.FormatInt(b.Size, 10)}
	code, err := h.Stream(ctx, argv, u, u, &errs)
	u.end()
	switch {
	case err != nil:
		return fmt.Errorf("store %s: %w", installer.StorePath(b.Sum), err)
	case code == 0:
		return nil
	}
	return u.failed(code, errs.String())
}

// failed reads what store.sh says of the space: "failed BYTES MOUNT".
func (u *upload) failed(code int, said string) error {
	e := &StoreError{Host: u.h.target.Name, Path: installer.StorePath(u.blob.Sum), Code: code, Need: u.blob.Size, Said: strings.TrimSpace(said)}
	if word, rest, _ := strings.Cut(u.last(), " "); word == "failed" || word == "full" {
		free, mount, _ := strings.Cut(rest, " ")
		e.Free, _ = strconv.ParseInt(free, 10, 64) // stays 0: unknown
		e.Mount = mount
	}
	if strings.Contains(e.Said, "No space left") || strings.Contains(e.Said, "Disk quota exceeded") {
		e.Code = storeFull
	}
	return e
}
