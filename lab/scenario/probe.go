package scenario

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"rsc.io/script"

	"slipway/datapath/observe"
	"slipway/datapath/trace"
	"slipway/internal/netns"
	"slipway/lab"
	"slipway/lab/echo"
	"slipway/lab/tracer"
)

// probeArgs are the arguments of `probe`.
type probeArgs struct {
	from, to, proto string
	count, size     int
	df              bool
}

// maxProbes bounds what one line of a script sends.
const maxProbes = 1000

func parseProbe(args []string) (probeArgs, error) {
	var p probeArgs
	f := pflag.NewFlagSet("probe", pflag.ContinueOnError)
	f.StringVar(&p.proto, "proto", "", "")
	f.IntVar(&p.count, "count", 1, "")
	f.IntVar(&p.size, "size", 0, "")
	f.BoolVar(&p.df, "df", false, "")
	if err := f.Parse(args); err != nil {
		return p, err
	}
	if f.NArg() != 2 || p.count < 1 || p.count > maxProbes {
		return p, fmt.Errorf("%w: probe SRC DST[:PORT] [--proto P] [--count 1…%d] [--size N] [--df]", script.ErrUsage, maxProbes)
	}
	p.from, p.to = f.Arg(0), f.Arg(1)
	return p, nil
}

// probePatience is how long one probe waits for its answer: a lost SYN and its
// repeat, on a busy machine too.
const probePatience = 3 * time.Second

// probesAtOnce is how many of one line are on their way together.
const probesAtOnce = 16

// answer is what became of one probe.
type answer struct {
	text    string // what the answering side said, or how long it took
	failure string // empty if it was answered
}

// probe sends real packets and wants an answer to each.
func (x *run) probe(args []string) (string, string, error) {
	p, err := parseProbe(args)
	if err != nil {
		return "", "", err
	}
	st, err := x.state()
	if err != nil {
		return "", "", err
	}
	from, dst, err := tracer.Ends(st, p.from, p.to, p.proto)
	if err != nil {
		return "", "", err
	}
	ns, err := netns.Open(from.NetNS)
	if err != nil {
		return "", "", err
	}
	defer ns.Close() //nolint:errcheck // a handle
	answers := make([]answer, p.count)
	var g errgroup.Group
	g.SetLimit(probesAtOnce)
	for i := range answers {
		g.Go(func() error {
			answers[i] = p.once(x.ctx, ns, dst)
			return nil
		})
	}
	_ = g.Wait() // each has written down what it got
	if err := x.ctx.Err(); err != nil {
		return "", "", err
	}
	return x.judge(p, dst, answers)
}

// judge says what became of the probes.
func (x *run) judge(p probeArgs, dst trace.Endpoint, answers []answer) (string, string, error) {
	var out strings.Builder
	failed := map[string]int{}
	first := ""
	for _, a := range answers {
		if a.failure != "" {
			failed[a.failure]++
			first = a.failure
			continue
		}
		fmt.Fprintln(&out, a.text)
	}
	x.outcome = outcome{want: phrase(wantReach, p.from, p.to, dst.Protocol), wantNot: phrase(wantNoReach, p.from, p.to, dst.Protocol)}
	good := strings.Count(out.String(), "\n")
	switch {
	case good == len(answers):
		x.outcome.got = same(strings.TrimSpace(answers[0].text))
		return out.String(), "", nil
	case len(answers) == 1:
		x.outcome.got = gotFailure(first)
	default:
		x.outcome.got = Text{}
		for lang, t := range gotFailure(first) {
			x.outcome.got[lang] = fmt.Sprintf(gotSome.In(lang), good, len(answers), t)
		}
	}
	return out.String(), "", errors.New(x.outcome.got.In(English))
}

// once sends one probe and waits for its answer.
func (p probeArgs) once(ctx context.Context, ns *netns.NS, dst trace.Endpoint) answer {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	to := netip.AddrPortFrom(dst.Address, dst.Port)
	if dst.Protocol == "tcp" {
		return askTCP(ctx, ns, to)
	}
	spec := observe.Spec{Protocol: observe.Protocol(dst.Protocol), To: to, Size: p.size}
	if p.df {
		spec.Fragment = observe.FragmentNever
	}
	pr, err := observe.Prepare(ns, spec)
	if err != nil {
		return answer{failure: failure(err)}
	}
	defer pr.Close() //nolint:errcheck // it has done what it was for
	if err := pr.Fire(); err != nil {
		return answer{failure: failure(err)}
	}
	if _, err := pr.Wait(ctx); err != nil {
		return answer{failure: failure(err)}
	}
	return answer{text: "answered by " + to.String()}
}

// askTCP opens a connection, and asks over HTTP who answers; what does not speak
// HTTP has answered by taking the connection.
func askTCP(ctx context.Context, ns *netns.NS, to netip.AddrPort) answer {
	var c net.Conn
	err := ns.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp4", to.String()) // a literal address is dialled on this thread
		return err
	})
	if err != nil {
		return answer{failure: failure(err)}
	}
	defer c.Close() //nolint:errcheck // everything was read
	end, _ := ctx.Deadline()
	if err := c.SetDeadline(end); err != nil {
		return answer{failure: failure(err)}
	}
	plain := answer{text: "answered by " + to.String()}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\nConnection: close\r\n\r\n", to); err != nil {
		return answer{failure: failure(err)}
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		var late net.Error
		if errors.As(err, &late) && late.Timeout() || errors.Is(err, unix.ECONNRESET) {
			return answer{failure: failure(err)}
		}
		return plain
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	var a echo.Answer
	if json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 64<<10)).Decode(&a) != nil || a.Pod == "" {
		return plain
	}
	return answer{text: fmt.Sprintf("answered by %s/%s on %s (%s), which saw %s", a.Namespace, a.Pod, a.Node, a.Address, a.Source.Addr())}
}

// failure names what went wrong, the same way every time.
func failure(err error) string {
	var late net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.ECONNRESET):
		return "reset"
	case errors.Is(err, unix.EHOSTUNREACH):
		return "host unreachable"
	case errors.Is(err, unix.ENETUNREACH):
		return "network unreachable"
	case errors.Is(err, unix.EMSGSIZE):
		return "message too long"
	case errors.Is(err, observe.ErrNoAnswer), errors.Is(err, context.DeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return "no answer"
	}
	return err.Error()
}

// state reads the lab's state: a script may have changed it.
func (x *run) state() (*lab.State, error) {
	st, err := lab.ReadState(x.lab)
	if err == nil && st.Snapshot == nil {
		err = fmt.Errorf("lab %s is only partly up", x.lab)
	}
	x.st = st
	return st, err
}
