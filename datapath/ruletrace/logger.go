package ruletrace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// The logger of IPv4 packets of the reading thread's namespace, and what sends
// them to sockets (net/netfilter/nf_log.c, nfnetlink_log.c).
const (
	loggerPath = "/proc/sys/net/netfilter/nf_log/2"
	bySocket   = "nfnetlink_log"
	noLogger   = "NONE"
)

// readersPath lists the log groups that somebody reads: a line for each, the
// group's number first.
const readersPath = "/proc/thread-self/net/netfilter/nfnetlink_log"

// logger is a namespace's setting that has to be put back. Unlike all else it
// outlives a process that is killed.
type logger struct {
	f   *os.File // of the namespace that it was opened in
	was string
}

// useLogger lets the calling thread's namespace log to sockets. If it does so
// already although nobody but us reads there, a tracer was killed, and the
// setting is taken back with ours.
func useLogger() (*logger, error) {
	f, err := os.OpenFile(loggerPath, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the IPv4 logger: %w", err)
	}
	l := &logger{f: f}
	if err := l.use(); err != nil {
		return nil, errors.Join(fmt.Errorf("set the IPv4 logger: %w", err), f.Close())
	}
	return l, nil
}

func (l *logger) use() error {
	b := make([]byte, 64)
	n, err := l.f.ReadAt(b, 0)
	if n == 0 {
		return err
	}
	l.was = strings.TrimSpace(string(b[:n]))
	if l.was == bySocket {
		readers, err := os.ReadFile(readersPath)
		if err != nil {
			return err
		}
		if bytes.Count(readers, []byte("\n")) <= 1 { // ours
			l.was = noLogger
		}
		return nil
	}
	_, err = l.f.WriteAt([]byte(bySocket), 0)
	return err
}

func (l *logger) restore() error {
	var err error
	if l.was != bySocket {
		_, err = l.f.WriteAt([]byte(l.was), 0)
	}
	if err = errors.Join(err, l.f.Close()); err != nil {
		return fmt.Errorf("restore the IPv4 logger: %w", err)
	}
	return nil
}
