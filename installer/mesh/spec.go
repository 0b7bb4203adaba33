package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// Command is the program's command by which it takes part on a host.
const Command = "mesh"

// Spec is what the program is told on its standard input.
type Spec struct {
	Do Do `json:"do"`
	// Nonce tells this mesh's packets from all others.
	Nonce   string        `json:"nonce"`
	Timeout time.Duration `json:"timeout"` // of serving in all, of being ready, of each probe
	Listen  []Place       `json:"listen,omitempty"`
	Probes  []Probe       `json:"probes,omitempty"`
	// Expect are the probes that should have come, if the way was open.
	Expect []int `json:"expect,omitempty"`
}

// Do is a part of the work.
type Do string

// The parts: stand listening, until it is told to end; say when that is so; try
// others; end, and say what came.
const (
	Serve Do = "serve"
	Ready Do = "ready"
	Ask   Do = "probe"
	End   Do = "end"
)

// Place is where somebody listens.
type Place struct {
	Protocol Protocol   `json:"protocol"`
	Address  netip.Addr `json:"address"`
	Port     int        `json:"port,omitempty"`
}

// String is the place as a socket's address.
func (p Place) String() string {
	if p.Port == 0 {
		return fmt.Sprintf("%s %s", p.Protocol, p.Address)
	}
	return fmt.Sprintf("%s %s", p.Protocol, netip.AddrPortFrom(p.Address, uint16(p.Port)))
}

// Probe is an attempt at a place.
type Probe struct {
	ID int `json:"id"`
	Place
	// Held: somebody else listens there, and will not say what we say.
	Held bool `json:"held,omitempty"`
}

// Answer is what the program prints.
type Answer struct {
	// Failed are places at which it could not listen, by [Place.String]; Held says
	// that it is because somebody does already.
	Failed map[string]Failure `json:"failed,omitempty"`
	Tried  []Outcome          `json:"tried,omitempty"`
	Seen   []int              `json:"seen,omitempty"` // probes that came
}

// Failure is why nobody listens at a place.
type Failure struct {
	Held bool `json:"held,omitempty"`
	// Watched: what comes for whoever holds it is seen, and answered, all the same.
	Watched bool   `json:"watched,omitempty"`
	Why     string `json:"why"`
}

// Outcome is what became of a probe.
type Outcome struct {
	ID     int    `json:"id"`
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// State is what is known of a pair.
type State string

// The states. Everything but Open and Held is a way that is not there.
const (
	Open     State = "open"
	Held     State = "held"     // a service of the machine's own has the port, and can be reached
	Refused  State = "refused"  // the machine or a firewall says no
	Timeout  State = "timeout"  // nothing comes back: a firewall drops, or the machine is not there
	NoRoute  State = "no route" // nobody knows the way, or a firewall says so
	Blocked  State = "blocked"  // the machine that asks does not let it out
	Diverted State = "diverted" // somebody else answers than the one who listens
	Unknown  State = "unknown"  // it could not be tried
)

// Reached reports whether the way is there.
func (s State) Reached() bool { return s == Open || s == Held }

// Main takes part on a host, as it is told on in.
func Main(ctx context.Context, in io.Reader, out io.Writer) error {
	var s Spec
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	if len(s.Nonce) < 16 || s.Timeout <= 0 {
		return errors.New("a mesh needs a nonce and a timeout")
	}
	turns := time.Duration(len(s.Probes)/atOnce + 1)
	ctx, stop := context.WithTimeout(ctx, turns*s.Timeout+grace)
	defer stop()
	var a Answer
	err := heard(ctx, out, func(ctx context.Context) (err error) {
		switch s.Do {
		case Serve:
			err = serve(ctx, s)
		case Ready, End:
			a, err = s.control(ctx)
		case Ask:
			a.Tried = s.probe(ctx)
		default:
			err = fmt.Errorf("a mesh does not know how to %q", s.Do)
		}
		return err
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(a)
}

// beat is how often the program says that it lives: a write that fails tells it
// that the connection is gone.
const beat = time.Second

// heard does something for as long as somebody hears it.
func heard(ctx context.Context, out io.Writer, f func(ctx context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if _, err := io.WriteString(out, "\n"); err != nil {
					stop()
				}
			}
		}
	}()
	err := f(ctx)
	stop()
	<-done
	return err
}

// grace is how much longer than it was told a program may take: machines may be
// slow.
const grace = 30 * time.Second
