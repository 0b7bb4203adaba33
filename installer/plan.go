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

// Only keeps some phases, by their IDs or numbers ("04").
func (p Plan) Only(ids []string) Plan {
	if len(ids) == 0 {
		return p
	}
	var out Plan
	for _, ph := range p.Phases {
		for _, id := range ids {
			if ph.ID == id || len(ph.ID) > len(id) && ph.ID[:len(id)+1] == id+"-" {
				out.Phases = append(out.Phases, ph)
				break
			}
		}
	}
	return out
}
