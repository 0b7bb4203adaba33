package trace

// Observation is what was seen of one packet and its answer. Every hop in it
// rests on at least one event.
type Observation struct {
	Observer string  `json:"observer"` // "bpf" | "tracepoints" | "af_packet"
	Observes []Stage `json:"observes"` // the stages that this observer can see at all
	// Rules: rule hits were recorded, so that a hook without any matched none.
	Rules   bool    `json:"rules"`
	Request []Hop   `json:"request"`
	Reply   []Hop   `json:"reply"`
	Copies  []Hop   `json:"copies,omitempty"` // flooded copies that nobody took
	Verdict Verdict `json:"verdict"`
	Cause   *Cause  `json:"cause,omitempty"`
	// LatencyNs is from the first to the last event.
	LatencyNs int64 `json:"latencyNs"`
	// Lost is how many events the kernel had no room for: unless it is zero, a
	// missing hop says nothing.
	Lost  int      `json:"lost,omitempty"`
	Notes []string `json:"notes,omitempty"`
}

// Prediction is every way that a packet can take, the likeliest first.
type Prediction struct {
	Branches []Branch `json:"branches"`
	Notes    []string `json:"notes,omitempty"`
}
