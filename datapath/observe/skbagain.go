package observe

import (
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
)

// firstSending takes out the sightings of a packet that was sent again. Most
// repeats have an IP identification of their own, but where a packet must not
// be fragmented it may be zero each time, as that of SYN-ACKs is (linux
// net/ipv4/ip_output.c, ip_build_and_send_pkt). A repeat begins where its host
// hands it to the output hook once more, which nothing on the way does. Whoever
// carries it from one piece of memory to another carries what he had last.
func firstSending(list []sighting) []sighting {
	var (
		out        []sighting
		byLife     = map[int]int{}    // which sending it is, from 1; 0: the beginning was not seen
		there      = map[uint64]int{} // which was seen last in a namespace
		sent, last int
	)
	for _, s := range list {
		n, known := byLife[s.life]
		if !known {
			if n, known = there[s.Inode]; !known {
				n = last
			}
		}
		if s.setsOut() {
			sent++
			n = sent
		}
		byLife[s.life], there[s.Inode], last = n, n, n
		if n <= 1 {
			out = append(out, s)
		}
	}
	return out
}

// setsOut reports whether a host begins to send the packet.
func (s *sighting) setsOut() bool {
	return s.Point == skbtrace.Hook && s.Hook == string(trace.Output) && s.Priority == skbtrace.First && s.packet.Encap == NoEncap
}
