package installer

// Plan is everything that makes machines into a cluster, in order.
type Plan struct {
	Phases []Phase
}

// Phase is a part of the way that can be gone alone: "04-etcd".
type Phase struct {
	ID    string
	Title string
	About string // for somebody who learns: what it is for
	Steps []Step
}

// Step is done on all of its hosts at once; the next begins when all are done.
type Step struct {
	Name string
	Why  string
	Work []Work
}

// Work is what one host needs.
type Work struct {
	Host  string
	Items []Item
}
