// Package services shows, explains and tests what kube-proxy's rules make of a
// service. [Find] reads its name; [Load] reads the rules of a node from its
// kernel; [Look] finds those of the service in them, as a tree with
// probabilities and counters; [PortView.Explain] says them in sentences; [Check]
// opens real connections and holds what came of them against the rules.
//
// What is shown and explained comes from the rules alone. The service object
// only says which addresses and ports to look for.
package services
