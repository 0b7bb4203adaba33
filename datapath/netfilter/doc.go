// Package netfilter says what iptables rules do with a packet. It evaluates one
// table at one hook, as the kernel's ipt_do_table does (net/ipv4/netfilter/ip_tables.c),
// and forks where chance decides, so that every way that a packet can take comes
// out with its probability.
//
// What is not understood is an outcome of its own, unknown, with the rule
// verbatim; but only if everything else in the rule matches. The package is pure.
package netfilter
