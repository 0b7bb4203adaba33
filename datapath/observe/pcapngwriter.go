package observe

import (
	"bufio"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"
)

// PcapngWriter writes a pcapng file as packets come: one interface for each
// device, called "place/device", nanosecond time stamps, and at the end what
// each interface saw. Devices may be added at any time.
type PcapngWriter struct {
	w       *bufio.Writer
	ng      *pcapgo.NgWriter // made with the first interface, which it cannot be without
	opts    PcapngOptions
	ids     map[string]int
	names   []string // of the interfaces
	seen    []uint64 // packets by interface
	started time.Time
	last    time.Time // the time stamp of the last packet
}

// PcapngOptions of a file.
type PcapngOptions struct {
	Filter  string // in tcpdump's syntax, as it was asked for; empty if there is none
	SnapLen int    // bytes of each packet that are kept at most; zero for all
	Comment string // about the whole
}

// writerBuffer is how much is collected between two flushes, in bytes.
const writerBuffer = 1 << 20

// NewPcapngWriter begins a file. Nothing is written before Flush.
func NewPcapngWriter(w io.Writer, opts PcapngOptions) *PcapngWriter {
	return &PcapngWriter{w: bufio.NewWriterSize(w, writerBuffer), opts: opts, ids: map[string]int{}, started: time.Now()}
}

// AddDevice makes a device known before any packet of it comes.
func (p *PcapngWriter) AddDevice(place string, d Device) error {
	_, err := p.device(place, d)
	return err
}

func (p *PcapngWriter) device(place string, d Device) (int, error) {
	name := place + "/" + d.Name
	if id, ok := p.ids[name]; ok {
		return id, nil
	}
	intf := pcapgo.NgInterface{
		Name: name, Description: d.Description, Filter: p.opts.Filter, OS: runtime.GOOS,
		LinkType: d.LinkType.pcap(), TimestampResolution: 9, SnapLength: uint32(p.opts.SnapLen),
	}
	id, err := 0, error(nil)
	if p.ng == nil {
		section := pcapgo.NgSectionInfo{Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "slipway", Comment: p.opts.Comment}
		p.ng, err = pcapgo.NewNgWriterInterface(p.w, intf, pcapgo.NgWriterOptions{SectionInfo: section})
	} else {
		id, err = p.ng.AddInterface(intf)
	}
	if err != nil {
		return 0, fmt.Errorf("write pcapng: interface %s: %w", name, err)
	}
	p.ids[name] = id
	p.names, p.seen = append(p.names, name), append(p.seen, 0)
	return id, nil
}

// Write adds a packet.
func (p *PcapngWriter) Write(e Event) error {
	id, err := p.device(e.Place.Label, Device{Name: e.Device, LinkType: e.LinkType})
	if err != nil {
		return err
	}
	info := gopacket.CaptureInfo{
		Timestamp: e.Time, CaptureLength: len(e.Data), Length: max(e.WireLength, len(e.Data)), InterfaceIndex: id,
	}
	if err := p.ng.WritePacketWithOptions(info, e.Data, e.packetOptions()); err != nil {
		return fmt.Errorf("write pcapng: packet of %s/%s: %w", e.Place.Label, e.Device, err)
	}
	p.seen[id]++
	p.last = e.Time
	return nil
}

// Flush hands everything so far to the file, so that a reader has it.
func (p *PcapngWriter) Flush() error {
	if p.ng != nil {
		if err := p.ng.Flush(); err != nil {
			return fmt.Errorf("write pcapng: %w", err)
		}
	}
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	return nil
}

// Finish writes how many packets each interface saw. The kernel counts what it
// drops by place and not by device: dropped, by place, becomes a comment of the
// place's interfaces. The file itself stays open.
func (p *PcapngWriter) Finish(dropped map[string]int) error {
	if p.ng == nil { // a file without interfaces cannot be
		if _, err := p.device("none", Device{Name: "none", LinkType: LinkEthernet}); err != nil {
			return err
		}
	}
	end := time.Now()
	if p.last.After(end) {
		end = p.last
	}
	for id, name := range p.names {
		stats := pcapgo.NgInterfaceStatistics{
			LastUpdate: end, StartTime: p.started, EndTime: end,
			PacketsReceived: p.seen[id], PacketsDropped: pcapgo.NgNoValue64,
		}
		if n := dropped[placeOf(name)]; n > 0 {
			stats.Comment = fmt.Sprintf("the kernel dropped %d packets at the devices of %s", n, placeOf(name))
		}
		if err := p.ng.WriteInterfaceStats(id, stats); err != nil {
			return fmt.Errorf("write pcapng: statistics of %s: %w", name, err)
		}
	}
	return p.Flush()
}

// placeOf is the place of "place/device".
func placeOf(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return name
}
