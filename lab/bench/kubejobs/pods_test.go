package kubejobs

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"slipway/internal/testnet"
	"slipway/lab/bench/load"
)

var localhost = netip.MustParseAddr("127.0.0.1")

// freePort is one that nobody has now.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only its number is wanted
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// serving starts a server's end as its pod does, and returns where it is.
func serving(t *testing.T) (control, data netip.AddrPort) {
	t.Helper()
	c := ServerConfig{Token: "secret", Control: freePort(t), Data: freePort(t), LifeNs: time.Minute.Nanoseconds()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, c, "node-b", localhost) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	control, data = netip.AddrPortFrom(localhost, c.Control), netip.AddrPortFrom(localhost, c.Data)
	testnet.Eventually(t, time.Minute, "the server listens", func() (bool, string) {
		conn, err := net.Dial("tcp4", control.String())
		if err != nil {
			return false, err.Error()
		}
		return conn.Close() == nil, ""
	})
	return control, data
}

// measured runs a task as a client's pod does.
func measured(t *testing.T, task Task) []Line {
	t.Helper()
	var out bytes.Buffer
	if err := Measure(t.Context(), task, "node-a", localhost, &out); err != nil {
		t.Fatal(err)
	}
	var lines []Line
	for dec := json.NewDecoder(&out); dec.More(); {
		var l Line
		if err := dec.Decode(&l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

// Both sides, over loopback and without any privilege: every workload has figures,
// and the lines say of which machines.
func TestPodsMeasure(t *testing.T) {
	control, data := serving(t)
	var task Task
	task.Token = "secret"
	workloads := []string{load.TCPStream, load.UDPStream, load.UDPPackets, load.TCPRequests, load.UDPRequests, load.TCPConnects, load.HTTP}
	for _, w := range workloads {
		j := Job{Workload: w, DurationNs: 3e8, WarmUpNs: 2e7}
		if w == load.UDPStream {
			j.Rate = 5e6
		}
		task.Asks = append(task.Asks, Ask{Job: j, Control: control, To: data})
	}
	lines := measured(t, task)
	if len(lines) != len(workloads)+2 {
		t.Fatalf("%d lines", len(lines))
	}
	if m := lines[0].Machine; m == nil || m.Node != "node-a" || m.ID == "" || m.Device != "lo" || m.MTU == 0 || m.CPUs == 0 {
		t.Errorf("machine %+v", m)
	}
	for i, w := range workloads {
		l := lines[i+1]
		if l.N == nil || *l.N != i || l.Error != "" {
			t.Errorf("%s: line %+v", w, l)
			continue
		}
		if l.Figures[load.Throughput]+l.Figures[load.PacketRate]+l.Figures[load.Rate] <= 0 {
			t.Errorf("%s: %v", w, l.Figures)
		}
		for name := range l.Figures {
			if _, ok := load.Means(name); !ok {
				t.Errorf("%s: nobody knows what %s means", w, name)
			}
		}
	}
	last := lines[len(lines)-1].Machines
	if len(last) != 2 || last[0].ID != last[1].ID || last[1].Node != "node-b" {
		t.Errorf("machines %+v", last)
	}
}

// What goes wrong with one measurement is its line, and says why.
func TestPodsThatFail(t *testing.T) {
	control, data := serving(t)
	for _, of := range []struct {
		name, token, want string
		job               Job
	}{
		{"a token of another run", "guessed", "token", Job{Workload: load.TCPRequests, DurationNs: 1e7}},
		{"an unknown workload", "secret", "nonsense", Job{Workload: "nonsense", DurationNs: 1e7}},
		{"no duration", "secret", "cannot measure", Job{Workload: load.TCPRequests}},
	} {
		t.Run(of.name, func(t *testing.T) {
			seen, err := observe("a", clientLabel, localhost)
			if err != nil {
				t.Fatal(err)
			}
			c := &client{Task: Task{Token: of.token}, address: localhost, seen: seen, servers: map[string]Machine{}}
			_, err = c.measure(t.Context(), Ask{Job: of.job, Control: control, To: data})
			if err == nil || !strings.Contains(err.Error(), of.want) {
				t.Errorf("%v", err)
			}
		})
	}
	// The server is none the worse for any of that.
	lines := measured(t, Task{Token: "secret", Asks: []Ask{{Job: Job{Workload: load.TCPRequests, DurationNs: 1e7}, Control: control, To: data}}})
	if lines[1].Error != "" {
		t.Error(lines[1].Error)
	}
}

// A server's life ends by itself.
func TestServerEnds(t *testing.T) {
	c := ServerConfig{Token: "x", Control: freePort(t), Data: freePort(t), LifeNs: time.Millisecond.Nanoseconds()}
	if err := Serve(t.Context(), c, "a", localhost); err != nil {
		t.Error(err)
	}
	for _, bad := range []ServerConfig{{}, {Token: "x", Control: 1, Data: 1}, {Token: "x", LifeNs: 1}} {
		if err := Serve(t.Context(), bad, "a", localhost); err == nil {
			t.Errorf("%+v serves", bad)
		}
	}
}

// Two nodes of one machine count it once, two machines both.
func TestCostOfBothEnds(t *testing.T) {
	end := func(label string, cpu time.Duration) load.Cost {
		return load.Cost{CPU: cpu, SoftIRQ: cpu / 2, ContextSwitches: 10, Protocols: map[string]map[string]int64{label: {"Tcp.RetransSegs": 1}}}
	}
	one, two := both(end("client", 4), end("server", 6), true), both(end("client", 4), end("server", 6), false)
	if one.CPU != 4 || two.CPU != 10 || two.SoftIRQ != 5 || two.ContextSwitches != 20 || one.ContextSwitches != 10 {
		t.Errorf("%+v %+v", one, two)
	}
	if len(one.Protocols) != 2 || len(two.Protocols) != 2 {
		t.Errorf("%v", one.Protocols)
	}
}
