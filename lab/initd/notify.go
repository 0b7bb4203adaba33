package initd

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// notifySocket is where a service says how it is (sd_notify(3)).
type notifySocket struct {
	path  string
	ready chan struct{} // closed at READY=1
	conn  *net.UnixConn

	once sync.Once
	said func(status string)
}

func listenNotify(path string) (*notifySocket, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	n := &notifySocket{path: path, ready: make(chan struct{}), conn: conn}
	go n.listen()
	return n, nil
}

// listen reads until the socket is closed: when the service is started again.
func (n *notifySocket) listen() {
	buf := make([]byte, 4096)
	for {
		size, err := n.conn.Read(buf)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(buf[:size])) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch {
			case name == "READY" && value == "1":
				n.once.Do(func() { close(n.ready) })
			case name == "STATUS" && n.said != nil:
				n.said(value)
			}
		}
	}
}
