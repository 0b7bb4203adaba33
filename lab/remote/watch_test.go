package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"slipway/datapath"
	"slipway/datapath/observe"
	"slipway/datapath/skbtrace"
	"slipway/installer"
	"slipway/lab"
)

// fake is a host whose agent says what a test wants.
type fake struct {
	name string
	seen *Seen
	talk func(o order, say func(string)) (goOn bool)
}

func (f *fake) Name() string { return f.name }

func (f *fake) Store(context.Context, installer.Blob) error { return nil }

func (f *fake) Run(_ context.Context, c installer.Command) (installer.Result, error) {
	if c.Argv[len(c.Argv)-1] != StateJob {
		return installer.Result{}, nil
	}
	out, err := json.Marshal(f.seen.Host)
	return installer.Result{Stdout: out}, err
}

func (f *fake) Stream(ctx context.Context, argv []string, stdin io.Reader, stdout, _ io.Writer) (int, error) {
	lines := bufio.NewScanner(stdin)
	if argv[0] == "sh" { // the guard
		fmt.Fprintln(stdout, "here")
		for lines.Scan() {
			continue
		}
		return 0, nil
	}
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return 1, err
		}
		if !f.talk(o, func(s string) { fmt.Fprintln(stdout, s) }) {
			return 0, errors.New("the connection was cut")
		}
	}
	return 0, ctx.Err()
}

// plain answers orders as an agent does that sees nothing, with a clock that is
// ahead.
func plain(ahead time.Duration) func(o order, say func(string)) bool {
	began := time.Now()
	return func(o order, say func(string)) bool {
		r := report{ID: o.ID}
		switch {
		case o.Open != nil:
			r.Opened = &opened{Observer: ByBPF}
		case o.Prepare != nil:
			r.Prepared = &datapath.Packet{Proto: "icmp", Dst: netip.MustParseAddr("192.0.2.2"), TTL: 64, ICMP: &datapath.ICMPInfo{Type: 8, ID: 7, Seq: 1}}
		case o.Clock:
			r.MonoNs = (time.Since(began) + ahead).Nanoseconds()
		case o.Settle != nil:
			r.Settled = &settled{}
		case o.Fire != nil:
			r.Fired = &observe.Match{}
			tell(say, r)
			r.Answer = &answer{Took: time.Millisecond}
		}
		tell(say, r)
		return true
	}
}

func tell(say func(string), r report) {
	line, _ := json.Marshal(r)
	say(string(line))
}

// two are hosts on one wire.
func two() (a, b *fake) {
	a = &fake{"a", host("192.0.2.1/24", mac1, nil, map[string]string{"192.0.2.2": mac2}), plain(0)}
	b = &fake{"b", host("192.0.2.2/24", mac2, nil, map[string]string{"192.0.2.1": mac1}), plain(0)}
	return a, b
}

// watch begins to watch both.
func watch(t *testing.T, a, b *fake) (*Watch, error) {
	t.Helper()
	p, err := Visit(t.Context(), []installer.Host{a, b}, installer.Blob{Sum: "0123"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	n, err := Network(cluster(), p.Seen())
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.Watch(t.Context(), n, "a", []string{lab.NSOfMachine("site", "a"), lab.NSOfMachine("site", "b")}, WatchOptions{})
	if err == nil {
		t.Cleanup(w.Close)
	}
	return w, err
}

// echo is an IPv4 packet with an echo request or reply.
func echo(t *testing.T, src, dst string, kind uint8) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.IPv4{Version: 4, TTL: 64, Id: 99, Protocol: layers.IPProtocolICMPv4, SrcIP: netip.MustParseAddr(src).AsSlice(), DstIP: netip.MustParseAddr(dst).AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: 7, Seq: 1})
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Socket buffers, namespaces and clocks of hosts have the same numbers by chance:
// what belongs together is told by the packet, and in which order by its way.
func TestHostsAreStitchedByThePacket(t *testing.T) {
	there, back := echo(t, "192.0.2.1", "192.0.2.2", 8), echo(t, "192.0.2.2", "192.0.2.1", 0)
	const ahead = 5 * time.Hour
	a, b := two()
	b.talk = plain(ahead)
	event := func(at int64, p skbtrace.Point, data []byte) skbtrace.Event {
		return skbtrace.Event{TimeNs: at, Skb: 4711, Inode: 1, Point: p, Device: "ens3", Data: data}
	}
	at := time.Minute.Nanoseconds()
	a.talk = before(a.talk, report{Events: []skbtrace.Event{
		event(at, skbtrace.Xmit, there), event(at+9_000, skbtrace.Consume, there), event(at+100_000, skbtrace.Receive, back),
	}})
	b.talk = before(b.talk, report{Events: []skbtrace.Event{
		event(at+ahead.Nanoseconds()+40_000, skbtrace.Receive, there), event(at+ahead.Nanoseconds()+60_000, skbtrace.Xmit, back),
	}})
	w, err := watch(t, a, b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.Send(t.Context(), time.Minute, func(*Sight) bool { return false })
	if err != nil || len(s.Cut) > 0 {
		t.Fatal(err, s)
	}
	var got []string
	last := int64(0)
	for _, e := range s.Events {
		got = append(got, fmt.Sprint(s.Places[e.Inode].Label, " ", e.Point))
		if e.TimeNs < last {
			t.Errorf("%v is before what came before it", e)
		}
		last = e.TimeNs
	}
	if want := fmt.Sprint([]string{"a 4", "b 1", "b 4", "a 1"}); fmt.Sprint(got) != want {
		t.Errorf("%v, want %v: what a host's driver does with the memory of what has left is nobody's loss", got, want)
	}
	if s.Events[0].Skb == s.Events[1].Skb || s.Events[0].Inode == s.Events[1].Inode {
		t.Errorf("two hosts' numbers are the same: %+v", s.Events[:2])
	}
	// The way out left 40 µs at most, the way back 40 µs: b's clock is known to that.
	c := s.Clocks[1]
	if d := (time.Duration(c.AheadNs) - ahead).Abs(); c.Host != "b" || d > 40*time.Microsecond || c.WithinNs > 41_000 {
		t.Errorf("%+v: off by %v", c, d)
	}
}

// before has an agent report something when it is asked to settle.
func before(talk func(order, func(string)) bool, r report) func(order, func(string)) bool {
	return func(o order, say func(string)) bool {
		if o.Settle != nil {
			tell(say, r)
		}
		return talk(o, say)
	}
}

// instead has an agent do something else with some orders.
func instead(talk func(order, func(string)) bool, when func(order) bool, do func(say func(string)) bool) func(order, func(string)) bool {
	return func(o order, say func(string)) bool {
		if when(o) {
			return do(say)
		}
		return talk(o, say)
	}
}

func settles(o order) bool { return o.Settle != nil }
func opens(o order) bool   { return o.Open != nil }

// What becomes of an agent on the way costs what it would have told, and is said.
func TestAgentsThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		when func(order) bool
		do   func(say func(string)) bool
		want string
	}{
		"a cut stream":           {settles, func(func(string)) bool { return false }, "cut"},
		"a garbled line":         {settles, func(say func(string)) bool { say("\x00{\"id\":"); return true }, "read what the agent prints"},
		"an answer with nothing": {settles, func(say func(string)) bool { say(`{"id":1e99}`); return true }, "read what the agent prints"},
		"without BPF": {opens, func(say func(string)) bool {
			say(`{"id":1,"error":"kernel tracing: no BTF","missing":true}`)
			return true
		}, "no BTF"},
		"cut at once": {opens, func(func(string)) bool { return false }, "cut"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := two()
			b.talk = instead(b.talk, c.when, c.do)
			w, err := watch(t, a, b)
			if err != nil {
				t.Fatal(err)
			}
			s, err := w.Send(t.Context(), time.Minute, func(*Sight) bool { return false })
			if err != nil {
				t.Fatal(err)
			}
			if why := s.Cut["b"] + w.Blind()["b"]; !strings.Contains(why, c.want) || s.Took != time.Millisecond {
				t.Errorf("%q, answered after %v", why, s.Took)
			}
		})
	}
}

// Without an observer where the packet is sent, none is sent.
func TestSenderThatIsBlind(t *testing.T) {
	a, b := two()
	a.talk = instead(a.talk, opens, func(say func(string)) bool {
		say(`{"id":1,"error":"kernel tracing: no BTF","missing":true}`)
		return true
	})
	_, err := watch(t, a, b)
	var blind *BlindError
	if !errors.As(err, &blind) || !blind.Missing || !strings.Contains(err.Error(), "no BTF") {
		t.Errorf("%v", err)
	}
}

// An agent ends when nobody gives it orders any more, or speaks in tongues.
func TestAgentEndsWithItsStdin(t *testing.T) {
	for name, in := range map[string]string{"nothing": "", "no order": "{", "an order": `{"id":3,"clock":true}` + "\n"} {
		var out bytes.Buffer
		if err := Observe(t.Context(), strings.NewReader(in), &out); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A flow of which only a port is known stays one.
func TestFlowsTravel(t *testing.T) {
	want := []datapath.Flow{
		{Proto: "tcp", Src: netip.AddrPortFrom(netip.Addr{}, 61234)},
		{Proto: "icmp", ICMPID: 9},
		{Proto: "udp", Src: netip.MustParseAddrPort("10.0.0.1:4"), Dst: netip.MustParseAddrPort("10.0.0.2:53")},
	}
	line, err := json.Marshal(flowsOf(want))
	var got []flow
	if err = errors.Join(err, json.Unmarshal(line, &got)); err != nil {
		t.Fatal(err)
	}
	for i, f := range got {
		if f.flow() != want[i] {
			t.Errorf("%+v has become %+v", want[i], f.flow())
		}
	}
}
