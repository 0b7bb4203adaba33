package skbtrace

import (
	"math"
	"slices"
)

// hooks are the names of netfilter's hooks, in the kernel's order
// (enum nf_inet_hooks, include/uapi/linux/netfilter.h).
var hooks = [...]string{"prerouting", "input", "forward", "output", "postrouting"}

// First and Last are the priorities before and behind all tables.
const (
	First = -450
	Last  = 450
)

// priorities are those of the programs on_hook0 and up (skbtrace.c). Between any
// two of them stands what may drop or change a packet.
var priorities = [...]int{First, -299, -199, -149, -99, 1, Last}

// stage is what works on packets at a priority of some hooks
// (enum nf_ip_hook_priorities, include/uapi/linux/netfilter_ipv4.h, and where
// each is registered).
type stage struct {
	name     string
	priority int
	hooks    []string
}

var stages = []stage{
	{"defragmentation", -400, []string{"prerouting", "output"}},
	{"raw", -300, []string{"prerouting", "output"}},
	{"conntrack", -200, []string{"prerouting", "output"}},
	{"mangle", -150, hooks[:]},
	{"nat", -100, []string{"prerouting", "output"}},
	{"filter", 0, []string{"input", "forward", "output"}},
	{"security", 50, []string{"input", "forward", "output"}},
	{"nat", 100, []string{"input", "postrouting"}},
	{"conntrack", math.MaxInt32, []string{"input", "postrouting"}}, // confirms the entry
}

// Priorities lists where on a hook packets are looked at, in order. Without
// tables in the namespace it is only First and Last.
func Priorities(hook string, tables bool) []int {
	out := []int{First}
	for i := 1; i < len(priorities); i++ {
		last := priorities[i] == Last
		if last || (tables && between(hook, priorities[i-1], priorities[i]) && between(hook, priorities[i], Last)) {
			out = append(out, priorities[i])
		}
	}
	return out
}

// between reports whether something works on packets there.
func between(hook string, low, high int) bool {
	return slices.ContainsFunc(stages, func(s stage) bool {
		return low < s.priority && s.priority < high && slices.Contains(s.hooks, hook)
	})
}

// Behind names the tables, and conntrack, that a packet last seen at that
// priority of the hook may be in when it is not seen again, the first one first.
func Behind(hook string, priority int, tables bool) []string {
	next := math.MaxInt
	for _, p := range Priorities(hook, tables) {
		if p > priority {
			next = p
			break
		}
	}
	var out []string
	for _, s := range stages {
		if priority < s.priority && s.priority < next && slices.Contains(s.hooks, hook) {
			out = append(out, s.name)
		}
	}
	return out
}
