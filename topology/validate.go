package topology

// The limits of an MTU in bytes. 576 is what every IPv4 host must be able to
// take in (RFC 791 §3.1), and what an inner packet must therefore have room
// for; 65535 is the largest IPv4 packet.
const (
	minPodMTU = 576
	maxMTU    = 65535
)

func validate(c *Cluster, doc *document) {}
