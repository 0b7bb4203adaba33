// Package bench measures: what a lab's network carries (TCP throughput and
// request latency between two namespaces, from real packets), and what labs
// themselves cost, small and large ([Scale]). A result is never one bare number:
// several short rounds are summarised by their median and an interval, and stand
// beside the conditions that they were measured under; a single run says so.
package bench
