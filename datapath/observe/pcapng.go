package observe

import (
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// WritePcapng writes events as a pcapng file with one interface for each device
// of each place, called "place/device", nanosecond time stamps, and the events'
// comments. Events should be in order of time; Collect's are.
func WritePcapng(w io.Writer, events []Event) error {
	section := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
		Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "slipway",
	}}
	ids := map[string]int{}
	var out *pcapgo.NgWriter
	for _, e := range events {
		name := e.Place.Label + "/" + e.Device
		if _, known := ids[name]; known {
			continue
		}
		intf := pcapgo.NgInterface{Name: name, OS: runtime.GOOS, LinkType: e.LinkType.pcap(), TimestampResolution: 9}
		var err error
		if out == nil {
			out, err = pcapgo.NewNgWriterInterface(w, intf, section) // a writer cannot be without one
		} else {
			_, err = out.AddInterface(intf)
		}
		if err != nil {
			return fmt.Errorf("write pcapng: interface %s: %w", name, err)
		}
		ids[name] = len(ids)
	}
	if out == nil {
		return writeEmpty(w, section)
	}
	for i, e := range events {
		info := gopacket.CaptureInfo{
			Timestamp: e.Time, CaptureLength: len(e.Data), Length: max(e.WireLength, len(e.Data)),
			InterfaceIndex: ids[e.Place.Label+"/"+e.Device],
		}
		if err := out.WritePacketWithOptions(info, e.Data, e.packetOptions()); err != nil {
			return fmt.Errorf("write pcapng: packet %d: %w", i+1, err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	return nil
}

// writeEmpty writes a file that is valid and has no packets.
func writeEmpty(w io.Writer, section pcapgo.NgWriterOptions) error {
	out, err := pcapgo.NewNgWriterInterface(w, pcapgo.NgInterface{Name: "none", LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}, section)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	return nil
}

func (e Event) packetOptions() pcapgo.NgPacketOptions {
	flags := &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}
	if e.Direction == Out {
		flags.Direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	opts := pcapgo.NgPacketOptions{Flags: flags, Comments: slices.Clone(e.Comments)}
	if e.PartialChecksum {
		opts.Comments = append(opts.Comments, "transport checksum not filled in yet: left to the device")
	}
	return opts
}

// pcap is the link type of a pcap file (LINKTYPE_ETHERNET, LINKTYPE_RAW).
func (l LinkType) pcap() layers.LinkType {
	if l == LinkRaw {
		return layers.LinkTypeRaw
	}
	return layers.LinkTypeEthernet
}
