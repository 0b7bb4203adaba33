// Package ruletrace reports which iptables rules a packet hits: a table of
// nftables that belongs to this process's netlink socket, and so ends with it,
// sets the trace bit of wanted packets; the kernel then logs each rule that
// decides, which is read from NFLOG (legacy tables) or from nftables' own trace
// messages (iptables-nft).
package ruletrace

// Hit is one rule, or a chain's policy, that a packet came to.
type Hit struct {
	Order  int    // of arrival, in its namespace
	Inode  uint64 // of the network namespace
	Table  string // raw | mangle | nat | filter; of nftables' own "ip kube-proxy"
	Chain  string
	Kind   string // rule | return | policy
	Number int    // of the rule in its chain, from 1
	// NFT: nftables told it, in an order of its own. Priority is then the base
	// chain's, and Verdict what the rule led to: "accept", "drop", "goto CHAIN", ….
	NFT      bool
	Priority int
	Verdict  string
	Hook     string // prerouting | input | forward | output | postrouting
	In       string
	Out      string
	Mark     uint32
	// Data is the packet from its IPv4 header, as it was when it came to the
	// rule, cut at 192 bytes.
	Data []byte
}
