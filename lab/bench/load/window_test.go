package load

import (
	"testing"
	"time"

	"slipway/internal/testnet"
)

func TestBufferBoundsWhatIsUnderWay(t *testing.T) {
	client, server := wired(t)
	limit(t, client, 5_000_000, 32<<20) // what is sent waits in this queue
	const buffer = 64 << 10
	done := make(chan Figures)
	go func() {
		defer close(done)
		f, err := Native{}.Run(t.Context(), Job{Workload: TCPStream, Client: client, Server: server, Buffer: buffer, WarmUp: 300 * time.Millisecond, Duration: 500 * time.Millisecond})
		if err != nil {
			t.Error(err)
		}
		done <- f
	}()
	h := testnet.Handle(t, client.NS)
	l, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	var longest uint32
	for {
		select {
		case f := <-done:
			mayCarry(t, f, 5_000_000)
			// A window is at most the buffer that the kernel made, twice what was asked
			// for; all of it waits, with a header for each segment of 1448 bytes. Without
			// a bound it would be megabytes.
			if f[Window] < buffer/2 || f[Window] > 2*buffer {
				t.Errorf("a window of %v bytes with a buffer of %d", f[Window], buffer)
			}
			if wire := f[Window] * 1514 / 1448; float64(longest) < wire/2 || float64(longest) > wire*1.05+1514 {
				t.Errorf("up to %d bytes waited to be sent, with a window of %v", longest, f[Window])
			}
			return
		case <-time.After(5 * time.Millisecond):
		}
		all, err := h.QdiscList(l)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range all {
			if s := q.Attrs().Statistics; s != nil && s.Queue != nil {
				longest = max(longest, s.Queue.Backlog)
			}
		}
	}
}
