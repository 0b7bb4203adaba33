package trace

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
)

// explorer walks a model of chance again and again, each time with other
// choices, the likeliest ways first. The model asks for each choice; so the
// walk itself is written as if there were only one way.
type explorer struct {
	limit     int
	left      float64 // probability of what was not walked
	leftCount int
}

// script is a way as far as its choices are made, and how likely it is.
type script struct {
	choices []int
	prob    float64
}

// scripts is a heap, the likeliest first; among equals the one found first.
type scripts []script

func (s scripts) Len() int           { return len(s) }
func (s scripts) Less(i, j int) bool { return likelier(s[i], s[j]) }
func (s scripts) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *scripts) Push(x any)        { *s = append(*s, x.(script)) }
func (s *scripts) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// sameChance is how far apart two probabilities may be by rounding alone.
const sameChance = 1e-9

func likelier(a, b script) bool {
	if d := a.prob - b.prob; d > sameChance || d < -sameChance {
		return d > 0
	}
	return slices.Compare(a.choices, b.choices) < 0
}

// explore runs walk for every way within the limit.
func (x *explorer) explore(walk func(choose func([]float64) int, prob func() float64) Branch) []Branch {
	open := &scripts{{prob: 1}}
	var out []Branch
	for open.Len() > 0 && len(out) < x.limit {
		run := &chooser{script: heap.Pop(open).(script), prob: 1}
		b := walk(run.choose, func() float64 { return run.prob })
		b.Probability = run.prob
		out = append(out, b)
		for _, f := range run.forks {
			heap.Push(open, f)
		}
	}
	for _, s := range *open {
		x.left += s.prob
		x.leftCount++
	}
	return out
}

// chooser follows a script and, beyond it, the likeliest choice, noting the
// others as forks.
type chooser struct {
	script script
	at     int
	prob   float64
	forks  []script
}

func (c *chooser) choose(weights []float64) int {
	choice := 0
	if c.at < len(c.script.choices) {
		choice = c.script.choices[c.at]
	} else {
		for i, p := range weights {
			if p > weights[choice]+sameChance {
				choice = i
			}
		}
		before := c.script.choices
		for i, p := range weights {
			if i != choice && p > 0 {
				c.forks = append(c.forks, script{append(slices.Clone(before), i), c.prob * p})
			}
		}
		c.script.choices = append(before, choice)
	}
	c.at++
	c.prob *= weights[choice]
	return choice
}

// merge makes one branch of those that nobody could tell apart, and sorts them,
// the likeliest first.
func merge(in []Branch) []Branch {
	at := map[string]int{}
	var out []Branch
	for _, b := range in {
		key := b.key()
		if i, ok := at[key]; ok {
			out[i].Probability += b.Probability
			continue
		}
		at[key] = len(out)
		out = append(out, b)
	}
	slices.SortStableFunc(out, func(a, b Branch) int {
		switch d := b.Probability - a.Probability; {
		case d > sameChance:
			return 1
		case d < -sameChance:
			return -1
		}
		return 0
	})
	return out
}

// key holds all of a branch but probabilities.
func (b *Branch) key() string {
	var s strings.Builder
	fmt.Fprint(&s, b.Verdict, b.Endpoint)
	if b.Cause != nil {
		fmt.Fprint(&s, *b.Cause)
	}
	for _, hops := range [][]Hop{b.Hops, b.Reply} {
		for i := range hops {
			h := &hops[i]
			fmt.Fprint(&s, "\n", h.Namespace, h.Device, h.Stage, h.Action, h.Rule, h.Reason, h.Packet, h.Packet.Mark)
			for _, r := range h.Rules {
				fmt.Fprint(&s, r.Table, r.Chain, r.Number)
			}
		}
	}
	return s.String()
}
