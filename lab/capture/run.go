package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"slipway/datapath/observe"
	"slipway/internal/netns"
	"slipway/lab"
)

// Options of a capture.
type Options struct {
	Places   []Choice
	Filter   *Filter
	Count    int           // packets after which it ends; zero: does not
	Duration time.Duration // after which it ends; zero: does not
	File     io.Writer     // takes the pcapng; may be nil
	// Print is given each packet; may be nil.
	Print func(observe.Event) error
	// Started is called once every socket listens; may be nil.
	Started func(*Summary)
}

// Ended says why a capture ended.
type Ended string

// The ends of a capture.
const (
	AtCount     Ended = "count"
	AtDuration  Ended = "duration"
	Interrupted Ended = "interrupted"
	ReaderGone  Ended = "reader gone" // of the file or of the lines
)

// Summary is what a capture took.
type Summary struct {
	Lab     string         `json:"lab"`
	Filter  string         `json:"filter,omitempty"`
	SnapLen int            `json:"snapLen"` // bytes
	Packets int            `json:"packets"`
	Bytes   int64          `json:"bytes"`   // on the wire
	Dropped int            `json:"dropped"` // by the kernel, for want of room
	Took    time.Duration  `json:"tookNs"`
	Ended   Ended          `json:"ended"`
	Places  []PlaceSummary `json:"places"`
}

// PlaceSummary is what was taken in one place.
type PlaceSummary struct {
	Place string `json:"place"`
	// Dropped is what the kernel had no room for. It counts by place and cannot
	// say at which device.
	Dropped int             `json:"dropped"`
	Devices []DeviceSummary `json:"devices"`
}

// DeviceSummary is what was taken of one device.
type DeviceSummary struct {
	Device  string `json:"device"`
	Packets int    `json:"packets"`
	Bytes   int64  `json:"bytes"`
}

// DeviceError says that no device of a place has a name.
type DeviceError struct {
	Place, Name string
	Have        []string
}

// Error lists the devices that there are.
func (e *DeviceError) Error() string {
	return fmt.Sprintf("%s has no device %q, only %s", e.Place, e.Name, strings.Join(e.Have, ", "))
}

// memory bounds what the rings of one capture take of the kernel's memory
// together, as long as each has the least that it can work with; and what one
// gets at most. In bytes.
const (
	allRings = 256 << 20
	oneRing  = 32 << 20
)

// source is a place that is listened in.
type source struct {
	place   observe.Place
	devices []observe.Device // those that are wanted
	filter  []bpf.RawInstruction
}

// Run captures until the count or the duration is reached, ctx ends, or nobody
// reads the output any more; none of these is an error.
func Run(ctx context.Context, st *lab.State, o Options) (*Summary, error) {
	sources, err := open(st.Lab, o)
	defer closeAll(sources)
	if err != nil {
		return nil, err
	}
	s := &session{o: o, summary: newSummary(st.Lab, o, sources)}
	s.tally = newTally(s.summary)
	if o.File != nil {
		s.file = observe.NewPcapngWriter(o.File, observe.PcapngOptions{Filter: o.Filter.Expression, SnapLen: o.Filter.SnapLen, Comment: "lab " + st.Lab + ", mode " + string(st.Snapshot.Network.Mode)})
	}
	var places []observe.Place
	filters := map[string][]bpf.RawInstruction{}
	for _, src := range sources {
		places = append(places, src.place)
		filters[src.place.Label] = src.filter
	}
	c, err := observe.Open(places, observe.Options{
		Ports:    observe.Ports{UDP: uint16(st.Snapshot.Network.UDP.Port), VXLAN: uint16(st.Snapshot.Network.VXLAN.Port)},
		FilterOf: func(p observe.Place) []bpf.RawInstruction { return filters[p.Label] },
		// A socket's memory is the kernel's and not to be swapped.
		RingBytes: min(oneRing, allRings/max(1, len(places))), Raw: o.Print == nil,
	})
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // everything is read by then
	if err := s.begin(sources); err != nil {
		return s.end(ctx, c, err)
	}
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Duration, errDuration)
		defer cancel()
	}
	return s.end(ctx, c, c.Stream(ctx, s.take))
}

// How a session ends before its context does.
var (
	errCount    = errors.New("enough packets")
	errDuration = errors.New("time is over")
)

func open(labName string, o Options) (out []source, err error) {
	var none error // why a place that a pattern found is left out
	for _, choice := range o.Places {
		src, err := openPlace(choice, o.Filter)
		var missing *DeviceError
		if choice.Maybe && errors.As(err, &missing) {
			none = err
			continue
		}
		if err != nil {
			return out, err
		}
		out = append(out, *src)
	}
	if len(out) == 0 && none == nil {
		none = fmt.Errorf("capture in lab %s: no place", labName)
	}
	if len(out) > 0 {
		none = nil
	}
	return out, none
}

// openPlace opens a place's namespace and makes its filter.
func openPlace(choice Choice, f *Filter) (src *source, err error) {
	t := choice.Target
	ns, err := netns.Open(t.NetNS)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = ns.Close()
		}
	}()
	return listenIn(observe.Place{Label: t.Label, Node: t.Node, Wire: t.Fabric(), NS: ns}, choice.Devices, f)
}

// listenIn finds the devices that are wanted of a place, and makes its filter.
func listenIn(p observe.Place, names []string, f *Filter) (src *source, err error) {
	src = &source{place: p}
	if src.devices, err = observe.Devices(src.place); err != nil {
		return nil, err
	}
	var only []int
	if len(names) > 0 {
		if src.devices, err = restrict(p.Label, src.devices, names); err != nil {
			return nil, err
		}
		for _, d := range src.devices {
			only = append(only, d.Index)
		}
	}
	src.filter, err = f.program(only)
	return src, err
}

func closeAll(sources []source) {
	for _, s := range sources {
		_ = s.place.NS.Close() // read-only descriptor
	}
}

// restrict keeps the devices of the names; each must mean one at least.
func restrict(place string, devices []observe.Device, names []string) ([]observe.Device, error) {
	var have []string
	wanted := map[string]bool{}
	for _, d := range devices {
		have = append(have, d.Name)
	}
	for _, name := range names {
		found := false
		for _, d := range have {
			ok, err := path.Match(name, d)
			if err != nil {
				return nil, &DeviceError{Place: place, Name: name, Have: have}
			}
			if ok || d == name {
				wanted[d], found = true, true
			}
		}
		if !found {
			return nil, &DeviceError{Place: place, Name: name, Have: have}
		}
	}
	return slices.DeleteFunc(devices, func(d observe.Device) bool { return !wanted[d.Name] }), nil
}

// session is a capture that runs.
type session struct {
	o       Options
	file    *observe.PcapngWriter
	began   time.Time
	summary *Summary
	tally   *tally
}

// begin writes the head of the file, so that a reader can show the devices
// before any packet comes.
func (s *session) begin(sources []source) error {
	s.began = time.Now()
	if s.file != nil {
		for _, src := range sources {
			for _, d := range src.devices {
				if err := s.file.AddDevice(src.place.Label, d); err != nil {
					return err
				}
			}
		}
		if err := s.file.Flush(); err != nil {
			return err
		}
	}
	if s.o.Started != nil {
		s.o.Started(s.summary)
	}
	return nil
}

// take writes some packets.
func (s *session) take(events []observe.Event) error {
	for _, e := range events {
		if s.file != nil {
			if err := s.file.Write(e); err != nil {
				return err
			}
		}
		if s.o.Print != nil {
			if err := s.o.Print(e); err != nil {
				return err
			}
		}
		s.tally.add(e)
		if s.o.Count > 0 && s.summary.Packets == s.o.Count {
			return errCount
		}
	}
	if s.file != nil {
		return s.file.Flush()
	}
	return nil
}

// counted is what knows of packets that the kernel had no room for.
type counted interface {
	Dropped() int
	DroppedIn() map[string]int
}

// end finishes the file and says how it came.
func (s *session) end(ctx context.Context, c counted, err error) (*Summary, error) {
	s.summary.Took = time.Since(s.began)
	s.summary.drops(c)
	switch {
	case errors.Is(err, unix.EPIPE):
		s.summary.Ended = ReaderGone
		return s.summary, nil
	case errors.Is(err, errCount):
		s.summary.Ended = AtCount
	case err != nil:
		return s.summary, err
	case errors.Is(context.Cause(ctx), errDuration):
		s.summary.Ended = AtDuration
	case errors.Is(context.Cause(ctx), errReaderGone):
		s.summary.Ended = ReaderGone
		return s.summary, nil
	default:
		s.summary.Ended = Interrupted
	}
	if s.file != nil {
		err = s.file.Finish(c.DroppedIn())
		if errors.Is(err, unix.EPIPE) {
			s.summary.Ended = ReaderGone
			return s.summary, nil
		}
		return s.summary, err
	}
	return s.summary, nil
}
