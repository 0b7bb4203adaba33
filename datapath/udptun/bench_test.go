package udptun

import (
	"io"
	"net"
	"testing"
	"time"

	"slipway/topology"
)

const measureFor = time.Second

// BenchmarkImplementations measures both implementations one after the other, in
// one run on one machine, and reports their ratios beside the figures.
func BenchmarkImplementations(b *testing.B) {
	var gbit, rate [2]float64
	for range b.N {
		for i, impl := range []topology.UDPImplementation{topology.UDPSimple, topology.UDPBatched} {
			client, server := newPair(b, impl, impl)
			gbit[i] = throughput(b, client, server)
			rate[i] = transactions(b, client, server)
		}
	}
	b.ReportMetric(gbit[0], "simple-Gbit/s")
	b.ReportMetric(gbit[1], "batched-Gbit/s")
	b.ReportMetric(gbit[1]/gbit[0], "throughput-ratio")
	b.ReportMetric(rate[0], "simple-rtt/s")
	b.ReportMetric(rate[1], "batched-rtt/s")
	b.ReportMetric(0, "ns/op") // of no meaning: the time is fixed
}

// throughput sends TCP in writes of 128 KiB, as iperf3 does, and returns Gbit/s.
func throughput(b *testing.B, client, server *node) float64 {
	l := server.listen(b, addrB.String()+":0")
	received := make(chan int64, 1)
	go func() {
		var n int64
		if c, err := l.Accept(); err == nil {
			buf := make([]byte, 128<<10)
			for err == nil {
				var k int
				k, err = c.Read(buf)
				n += int64(k)
			}
			_ = c.Close()
		}
		received <- n
	}()
	c := client.dial(b, "tcp4", l.Addr().String())
	buf := make([]byte, 128<<10)
	start := time.Now()
	for time.Since(start) < measureFor {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
	n := <-received
	return float64(n) * 8 / time.Since(start).Seconds() / 1e9
}

// transactions counts UDP requests of one byte answered per second, one at a time.
func transactions(b *testing.B, client, server *node) float64 {
	echo := server.listenPacket(b, addrB.String()+":0")
	go serveEcho(echo)
	c := client.dial(b, "udp4", echo.LocalAddr().String())
	buf := make([]byte, 1)
	n, start := 0, time.Now()
	for ; time.Since(start) < measureFor; n++ {
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
	return float64(n) / time.Since(start).Seconds()
}

// serveEcho answers until c is closed.
func serveEcho(c *net.UDPConn) {
	buf := make([]byte, maxIPPacket)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if _, err := c.WriteToUDPAddrPort(buf[:n], from); err != nil {
			return
		}
	}
}
