package ssh

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"slipway/installer"
)

// upload talks with store.sh: what that prints is written to it, and what it is to
// read is read from it.
type upload struct {
	h     *Host
	blob  installer.Blob
	file  *os.File
	state chan string // the first line that the script prints

	mu     sync.Mutex
	said   []byte
	closed bool

	begun bool
	head  []byte // the line with the offset
	at    int64
	told  int64
}

// Write takes what the script prints.
func (u *upload) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	first := !bytes.ContainsRune(u.said, '\n')
	u.said = append(u.said, p...)
	if line, _, ok := strings.Cut(string(u.said), "\n"); ok && first && !u.closed {
		u.state <- line
	}
	return len(p), nil
}

// end lets go of a reader that waits for a script that has ended.
func (u *upload) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	close(u.state)
}

func (u *upload) last() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := strings.Split(strings.TrimSpace(string(u.said)), "\n")
	return all[len(all)-1]
}

// Read is the script's input: the offset, then the blob from there.
func (u *upload) Read(p []byte) (int, error) {
	if !u.begun {
		u.begun = true
		from, err := u.offset()
		if err != nil {
			return 0, err
		}
		u.head = []byte(strconv.FormatInt(from, 10) + "\n")
	}
	if len(u.head) > 0 {
		n := copy(p, u.head)
		u.head = u.head[n:]
		return n, nil
	}
	n, err := u.file.ReadAt(p[:min(int64(len(p)), u.blob.Size-u.at)], u.at)
	u.at += int64(n)
	u.progress()
	if n > 0 {
		return n, nil
	}
	if err == nil { // all of it is read
		err = io.EOF
	}
	return 0, err
}

// offset is where to go on: after what is on the host, if that is the beginning of
// this very blob.
func (u *upload) offset() (int64, error) {
	line, ok := <-u.state
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case !ok, word != "part" && word != "none": // there is nothing to send
		return 0, io.EOF
	case word == "none":
		return 0, nil
	}
	size, sum, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n > u.blob.Size {
		return 0, nil //nolint:nilerr // from the start, then
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(u.file, 0, n)); err != nil {
		return 0, fmt.Errorf("read %s: %w", u.blob.Path, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != sum {
		return 0, nil
	}
	u.at, u.told = n, n
	u.h.d.o.tell(Event{Host: u.h.target.Name, Kind: Resuming, Text: u.blob.Path, Done: n, Total: u.blob.Size})
	return n, nil
}

// tellEvery is how many bytes go between two messages.
const tellEvery = 1 << 20

func (u *upload) progress() {
	if u.at == u.told || u.at-u.told < tellEvery && u.at != u.blob.Size {
		return
	}
	u.told = u.at
	u.h.d.o.tell(Event{Host: u.h.target.Name, Kind: Sending, Text: u.blob.Path, Done: u.at, Total: u.blob.Size})
}
