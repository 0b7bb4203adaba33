package ssh

import (
	"context"
	"net"
	"time"
)

// Target is a machine to be reached.
type Target struct {
	Name string // what the cluster file calls it
	// Host is an address, a name, or an alias of ~/.ssh/config; empty is Name.
	Host string
	// Port is a TCP port. 0, and 22 too, which a cluster file has by default,
	// leave it to ~/.ssh/config.
	Port int
	User string // empty leaves it to ~/.ssh/config, and then to who runs this
}

// Options are the same for all targets. The zero value is what `ssh` does without
// options, except that an unknown host key is refused instead of asked about.
type Options struct {
	// ConfigFile replaces ~/.ssh/config and /etc/ssh/ssh_config; "none" is no file.
	ConfigFile string
	// KnownHosts replaces the files of host keys.
	KnownHosts string
	// Keys are private keys, tried before what the configuration names.
	Keys []string
	// AcceptNew writes the key of a host that is not known yet to the first file of
	// host keys. A key that is another than the known one is always refused.
	AcceptNew bool
	// Sudo returns a user's password for sudo; nil does without (`sudo -n`).
	Sudo Sudo
	// Passphrase returns that of a key file; nil does without such keys.
	Passphrase func(ctx context.Context, path string) ([]byte, error)
	// HandshakeTimeout bounds connecting, logging in and the start of a program,
	// each; 0 is a minute.
	HandshakeTimeout time.Duration
	// Parallel is how many hosts OpenAll connects to at once; 0 is 32.
	Parallel int
	// Tell is called with what happens, from several goroutines; it may be nil.
	Tell func(Event)
	// Dial opens the first connection on a way; nil is net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Sudo returns the password that sudo on a host asks for. It is asked once a host.
type Sudo func(ctx context.Context, host string) (string, error)

// Event is something that happened on the way to a host.
type Event struct {
	Host string
	Kind Kind
	Text string // the key's fingerprint, the file, the line
	// Done and Total count bytes where something is sent.
	Done, Total int64
}

// Kind is of what an event tells.
type Kind string

// The kinds of events.
const (
	Connected Kind = "connected"
	NewKey    Kind = "new host key"
	Again     Kind = "again" // the connection was lost, and is made again
	Sending   Kind = "sending"
	Resuming  Kind = "resuming" // Done bytes are there already
	Stderr    Kind = "stderr"   // a line that a program wrote to its stderr
)

// The limits where the options name none.
const (
	defaultHandshake = time.Minute
	defaultParallel  = 32
)

func (o Options) handshake() time.Duration {
	if o.HandshakeTimeout > 0 {
		return o.HandshakeTimeout
	}
	return defaultHandshake
}

func (o Options) tell(e Event) {
	if o.Tell != nil {
		o.Tell(e)
	}
}
