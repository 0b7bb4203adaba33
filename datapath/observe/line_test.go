package observe

import (
	"encoding/hex"
	"testing"
)

// Lines are checked against what tcpdump says of the same bytes.
func TestLine(t *testing.T) {
	for _, c := range []struct{ name, frame, want string }{
		{
			"ARP request", // tcpdump: ARP, Request who-has 10.9.0.2 tell 10.9.0.1
			"ffffffffffff020000000001" + "0806" + "0001080006040001" + "020000000001" + "0a090001" + "000000000000" + "0a090002",
			"ARP who has 10.9.0.2? tell 10.9.0.1",
		},
		{
			"ARP reply", // tcpdump: ARP, Reply 10.9.0.2 is-at 02:00:00:00:00:02
			"020000000001020000000002" + "0806" + "0001080006040002" + "020000000002" + "0a090002" + "020000000001" + "0a090001",
			"ARP 10.9.0.2 is at 02:00:00:00:00:02",
		},
		{
			"IPv6", // tcpdump: IP6 …
			"333300000016020000000001" + "86dd" + "6000000000000000",
			"02:00:00:00:00:01 → 33:33:00:00:00:16 IPv6, 22 bytes",
		},
		{
			"echo request", // tcpdump: IP 10.9.0.1 > 10.9.0.2: ICMP echo request, id 7, seq 1, length 8
			"020000000002020000000001" + "0800" + "4500001c000000004001669c" + "0a090001" + "0a090002" + "0800f7f700070001",
			"10.9.0.1 → 10.9.0.2 ICMP echo request id 7 seq 1 ttl 64, 28 bytes",
		},
	} {
		data, err := hex.DecodeString(c.frame)
		if err != nil {
			t.Fatal(err)
		}
		e := Event{LinkType: LinkEthernet, Data: data, WireLength: len(data)}
		e.Packet = Decode(e.LinkType, data, DefaultPorts)
		if got := e.Line(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
