package load

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/netns"
)

// apart runs a job's ends as two processes would: they know of each other only
// what goes through JSON.
func apart(t *testing.T, j Job) (Figures, error) {
	t.Helper()
	s, err := Listen(Job{Workload: j.Workload, Server: j.Server, Duration: j.Duration, WarmUp: j.WarmUp, Streams: j.Streams, Size: j.Size, Run: j.Run})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ended, enough, released := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var client, server Half
	group, ctx := errgroup.WithContext(t.Context())
	group.Go(func() error {
		return s.Run(ctx, ended, func(h Half) error {
			server = copied(t, h)
			close(enough)
			<-released
			return nil
		})
	})
	group.Go(func() error {
		defer close(released)
		defer close(ended)
		j.Port, j.Server.NS = s.Port(), nil
		h, err := Ask(ctx, j, enough)
		client = copied(t, h)
		if err == nil && j.Workload == TCPStream {
			<-enough
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return Join(j, client, server)
}

func copied(t *testing.T, h Half) (out Half) {
	raw, err := json.Marshal(h)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		t.Error(err)
	}
	return out
}

// Ends that run apart give the figures of ends that run together, all of them, and
// what can be known is right: a wire without loss loses nothing.
func TestEndsApart(t *testing.T) {
	for _, j := range []Job{
		{Workload: TCPStream}, {Workload: TCPStream, Streams: 3},
		{Workload: UDPStream, Rate: 20e6}, {Workload: UDPPackets},
		{Workload: TCPRequests}, {Workload: TCPRequests, Streams: 2, Rate: 500}, {Workload: UDPRequests}, {Workload: TCPConnects}, {Workload: HTTP},
	} {
		t.Run(j.Workload, func(t *testing.T) {
			j.Client, j.Server = wired(t)
			j.Duration, j.WarmUp, j.Run = 200*time.Millisecond, 50*time.Millisecond, 77
			want := measure(t, j)
			got, err := apart(t, j)
			if err != nil {
				t.Fatal(err)
			}
			for name := range want {
				if _, ok := got[name]; !ok {
					t.Errorf("there is no %s", name)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d metrics, together %d", len(got), len(want))
			}
			for _, main := range []string{Throughput, PacketRate, Rate} {
				if v, ok := got[main]; ok && v <= 0 {
					t.Errorf("%s is %v", main, v)
				}
			}
			// What a sender without a processor was late with before the window, it sends in it.
			most := j.Rate * float64(j.WarmUp+j.Duration) / float64(j.Duration)
			if j.Workload == UDPStream && (got[Loss] != 0 || got[Offered] > most) {
				t.Errorf("loss %v, offered %v of at most %v", got[Loss], got[Offered], most)
			}
			if j.Rate == 500 && got[Rate] > 520 {
				t.Errorf("%v answers a second to 500 requests", got[Rate])
			}
		})
	}
}

// What one end sent is what the other one got, by the kernel's own count, and a
// stream's window at the receiver is as long as was asked: the sender does not stop
// before it.
func TestStreamApartIsNoShorterThanItsWindow(t *testing.T) {
	client, server := wired(t)
	limit(t, client, 5_000_000, 1<<20)
	f, err := apart(t, Job{Workload: TCPStream, Client: client, Server: server, Duration: 500 * time.Millisecond, WarmUp: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	mayCarry(t, f, 5_000_000)
}

// The client ends when the server's end does not come about, and the other way round.
func TestEndsApartThatMissEachOther(t *testing.T) {
	client, server := wired(t)
	j := Job{Workload: TCPStream, Client: client, Server: server, Duration: 100 * time.Millisecond, Port: 9}
	if _, err := Ask(t.Context(), j, nil); err == nil {
		t.Error("a client without a server has figures")
	}
	for _, w := range []string{TCPStream, TCPRequests} {
		s, err := Listen(Job{Workload: w, Server: server, Duration: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ctx, nil, func(Half) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("a server without a client ends with %v", err)
		}
		s.Close()
	}
	for _, w := range []string{Idle, "tcp-nonsense", ""} {
		if _, err := Listen(Job{Workload: w, Server: server, Duration: time.Second}); err == nil {
			t.Errorf("%q can be served", w)
		}
		if _, err := Ask(t.Context(), Job{Workload: w, Client: client, Server: server, Duration: time.Second, Port: 1}, nil); err == nil {
			t.Errorf("%q can be asked", w)
		}
	}
}

func TestHalvesThatDoNotFit(t *testing.T) {
	one := []HalfStream{{Bytes: 1, TookNs: 1}}
	for _, of := range []struct {
		workload string
		c, s     Half
	}{
		{TCPStream, Half{}, Half{}}, {TCPStream, Half{Streams: one}, Half{}}, {TCPStream, Half{Streams: one}, Half{Streams: append(one, one...)}},
		{TCPStream, Half{Streams: one}, Half{Streams: []HalfStream{{}}}},
		{UDPStream, Half{}, Half{Datagrams: &HalfDatagrams{Got: 1}}}, {UDPStream, Half{Datagrams: &HalfDatagrams{Sent: 1, Size: 16}}, Half{}},
		{UDPStream, Half{Datagrams: &HalfDatagrams{Sent: 1, Size: 16}}, Half{Datagrams: &HalfDatagrams{}}},
		{TCPRequests, Half{}, Half{}},
	} {
		if f, err := Join(Job{Workload: of.workload, Duration: time.Second}, of.c, of.s); err == nil {
			t.Errorf("%s: %v", of.workload, f)
		}
	}
}

// A process without privileges measures where it is.
func TestOwnNamespace(t *testing.T) {
	client, _ := wired(t)
	if err := client.NS.Do(func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	own := netns.Own()
	if err := own.Do(func() error { return errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	if err := own.Close(); err != nil {
		t.Error(err)
	}
}
