package verify

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Source is a kind of place that asks.
type Source string

// Target is a kind of address that is asked at.
type Target string

// The rows and columns of the matrix.
const (
	FromPod     Source = "pod"
	FromNode    Source = "node"
	FromOutside Source = "outside"

	ToPod       Target = "pod"
	ToClusterIP Target = "ClusterIP"
	ToHeadless  Target = "headless"
	ToNodePort  Target = "NodePort"
	ToName      Target = "DNS name"
)

// Sources and Targets are all of them, in order.
var (
	Sources = []Source{FromPod, FromNode, FromOutside}
	Targets = []Target{ToPod, ToClusterIP, ToHeadless, ToNodePort, ToName}
)

// Cell is one way through the cluster, and whether it is open.
type Cell struct {
	From     Source `json:"from"`
	FromNode string `json:"fromNode,omitempty"` // none for outside
	To       Target `json:"to"`
	Node     string `json:"node"`          // of the server
	Via      string `json:"via,omitempty"` // the node whose address outside asks
	Same     bool   `json:"same"`          // one node is enough for it
	OK       bool   `json:"ok"`
	Reason   string `json:"reason,omitempty"`
	// Source is the address that the server saw.
	Source string        `json:"source,omitempty"`
	Tries  int           `json:"tries"`
	Took   time.Duration `json:"tookNs"` // of the last try
}

// Report is what came of it.
type Report struct {
	OK        bool          `json:"ok"`
	Namespace string        `json:"namespace"`
	Nodes     []string      `json:"nodes"`
	Cells     []Cell        `json:"cells"`
	Took      time.Duration `json:"tookNs"`
}

func (r *Report) ok() bool {
	return len(r.Cells) > 0 && !slices.ContainsFunc(r.Cells, func(c Cell) bool { return !c.OK })
}

// Square is all cells of one row and one column together.
type Square struct {
	From      Source
	To        Target
	Same      bool
	Open, All int
}

// Square sums up a part of the matrix.
func (r *Report) Square(from Source, to Target, same bool) Square {
	s := Square{From: from, To: to, Same: same}
	for _, c := range r.Cells {
		if c.From != from || c.To != to || c.Same != same {
			continue
		}
		if s.All++; c.OK {
			s.Open++
		}
	}
	return s
}

// String is a square of the table: "✓", "✗ 2 of 6", or "–" where nothing is meant to
// be reached.
func (s Square) String() string {
	switch {
	case s.All == 0:
		return "–"
	case s.Open == s.All:
		return "✓"
	case s.All == 1:
		return "✗"
	}
	return fmt.Sprintf("✗ %d of %d", s.All-s.Open, s.All)
}

// Failed are the cells that are not open.
func (r *Report) Failed() []Cell {
	return slices.DeleteFunc(slices.Clone(r.Cells), func(c Cell) bool { return c.OK })
}

// NoImage reports whether something could not be asked because a node cannot have
// the image.
func (r *Report) NoImage() bool {
	return slices.ContainsFunc(r.Failed(), func(c Cell) bool {
		return strings.Contains(c.Reason, "ImagePull") || strings.Contains(c.Reason, "InvalidImageName")
	})
}
