// Package remote looks at packets on machines that are elsewhere: it sends this
// very program to each, has it read what the machine's kernel would do with a
// packet, or listen, and takes it away again. What comes back is put together into
// one network, as if it were a lab's.
package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"slipway/datapath/hostview"
	"slipway/installer"
)

// Command is the hidden command under which this program runs on hosts.
const Command = "host-agent"

// What the agent does.
const (
	StateJob   = "state"   // print a hostview.Host as JSON
	CaptureJob = "capture" // print packets as lines of JSON
	ObserveJob = "observe" // follow orders, and print what becomes of a packet
)

// Agent is this program on a host.
type Agent struct {
	host    installer.Host
	program installer.Blob
}

// atOnce bounds how many hosts are worked on at the same time.
const atOnce = 16

// Send brings the program to a host. The agent is to be removed also after an error.
func Send(ctx context.Context, h installer.Host, program installer.Blob) (*Agent, error) {
	return &Agent{h, program}, installer.Lend(ctx, h, program)
}

// Remove takes the program away, unless the host had it before; and the store's
// directories likewise.
func (a *Agent) Remove(ctx context.Context) error { return installer.TakeBack(ctx, a.host, a.program) }

// run runs a program that prints JSON.
func (a *Agent) run(ctx context.Context, argv []string, into any) error {
	r, err := a.host.Run(ctx, installer.Command{Argv: argv})
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%s: exit code %d: %s", a.host.Name(), r.Code, strings.TrimSpace(string(r.Stderr)))
	}
	if err == nil {
		if err = json.Unmarshal(r.Stdout, into); err != nil {
			err = fmt.Errorf("%s: read what the agent printed: %w", a.host.Name(), err)
		}
	}
	return err
}

// Seen is what one host's agent saw.
type Seen struct {
	hostview.Host
	// Ahead is how far the host's clock is ahead of this machine's, to Within.
	Ahead, Within time.Duration
}

// Look reads all hosts at the same time, with this program sent to them. A host that
// cannot be read is an error with what the others said.
func Look(ctx context.Context, hosts []installer.Host, program installer.Blob) (map[string]*Seen, error) {
	p, err := Visit(ctx, hosts, program)
	return p.Seen(), errors.Join(err, p.Close(ctx))
}

func (a *Agent) look(ctx context.Context) (*Seen, error) {
	s := &Seen{}
	begun := time.Now()
	if err := a.run(ctx, a.Argv(StateJob), &s.Host); err != nil {
		return nil, err
	}
	s.Ahead, s.Within = ahead(begun, time.Now(), s.Clock)
	return s, nil
}

// Argv is how to run a job of the agent's.
func (a *Agent) Argv(job string) []string {
	return []string{installer.StorePath(a.program.Sum), Command, job}
}

// Ahead finds how far the host's clock is ahead of this machine's: the best of some
// tries, as it is known to half of what asking takes.
func (a *Agent) Ahead(ctx context.Context) (time.Duration, error) {
	best, within := time.Duration(0), time.Hour
	for range 3 {
		begun := time.Now()
		var now json.Number
		if err := a.run(ctx, []string{"date", "+%s%N"}, &now); err != nil {
			return 0, err
		}
		ns, err := now.Int64()
		if err != nil {
			return 0, fmt.Errorf("%s: read its clock: %w", a.host.Name(), err)
		}
		if d, w := ahead(begun, time.Now(), time.Unix(0, ns)); w < within {
			best, within = d, w
		}
	}
	return best, nil
}

// ahead is what a clock that was looked at in between says.
func ahead(begun, ended, clock time.Time) (by, within time.Duration) {
	within = ended.Sub(begun) / 2
	return clock.Sub(begun.Add(within)), within
}
