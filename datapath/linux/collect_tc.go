package linux

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/datapath"
)

const tcMsgLen = 20 // struct tcmsg

// programs names what hangs on the devices' tc hooks: filters of clsact and
// ingress qdiscs, and programs attached through links (tcx, Linux 6.6). Only
// devices that have such a qdisc are asked for filters.
func (c *collection) programs() error {
	messages, err := dump(unix.NETLINK_ROUTE, unix.RTM_GETQDISC, raw(make([]byte, tcMsgLen)))
	if err != nil {
		return fmt.Errorf("list qdiscs: %w", err)
	}
	for _, m := range messages {
		attrs, err := body(m, tcMsgLen)
		if err != nil {
			return fmt.Errorf("list qdiscs: %w", err)
		}
		d := c.st.DeviceByIndex(int(u32(m[4:])))
		if d == nil {
			continue
		}
		for kind, v := range attributes(attrs) {
			if kind != vnl.TCA_KIND || (text(v) != "clsact" && text(v) != "ingress") {
				continue
			}
			if err := addFilters(d, text(v)); err != nil {
				return err
			}
		}
	}
	return c.tcx()
}

func addFilters(d *datapath.Device, qdisc string) error {
	in, err := filters(d.Index, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return fmt.Errorf("list filters of %s: %w", d.Name, err)
	}
	d.Ingress = append(d.Ingress, in...)
	if qdisc != "clsact" {
		return nil
	}
	out, err := filters(d.Index, netlink.HANDLE_MIN_EGRESS)
	if err != nil {
		return fmt.Errorf("list filters of %s: %w", d.Name, err)
	}
	d.Egress = append(d.Egress, out...)
	return nil
}

// filters names the filters of one hook: BPF programs by their own name, others
// by their kind.
func filters(index int, parent uint32) ([]string, error) {
	req := &netlinkTc{index: int32(index), parent: parent}
	messages, err := dump(unix.NETLINK_ROUTE, unix.RTM_GETTFILTER, req)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range messages {
		attrs, err := body(m, tcMsgLen)
		if err != nil {
			return nil, err
		}
		if u32(m[8:]) == 0 { // announces the filter that follows
			continue
		}
		name := ""
		for kind, v := range attributes(attrs) {
			switch kind {
			case vnl.TCA_KIND:
				name = text(v)
			case vnl.TCA_OPTIONS:
				for k, x := range attributes(v) {
					if name == "bpf" && k == vnl.TCA_BPF_NAME {
						name = text(x)
					}
				}
			}
		}
		out = append(out, name)
	}
	return slices.Compact(out), nil
}

// netlinkTc is a struct tcmsg that asks for filters.
type netlinkTc struct {
	index  int32
	parent uint32
}

func (t *netlinkTc) Len() int { return tcMsgLen }

func (t *netlinkTc) Serialize() []byte {
	b := make([]byte, tcMsgLen)
	copy(b[4:], vnl.Uint32Attr(uint32(t.index)))
	copy(b[12:], vnl.Uint32Attr(t.parent))
	return b
}

// tcx adds the programs that are attached through links.
func (c *collection) tcx() error {
	for i := range c.st.Devices {
		d := &c.st.Devices[i]
		for _, hook := range []struct {
			at   ebpf.AttachType
			into *[]string
		}{{ebpf.AttachTCXIngress, &d.Ingress}, {ebpf.AttachTCXEgress, &d.Egress}} {
			q, err := link.QueryPrograms(link.QueryOptions{Target: d.Index, Attach: hook.at})
			if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
				return nil // without tcx, or without the right to look
			}
			if errors.Is(err, unix.ENODEV) {
				continue
			}
			if err != nil {
				return fmt.Errorf("list programs of %s: %w", d.Name, err)
			}
			for _, p := range q.Programs {
				*hook.into = append(*hook.into, programName(p.ID))
			}
		}
	}
	return nil
}

func programName(id ebpf.ProgramID) string {
	unnamed := fmt.Sprintf("program %d", id)
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return unnamed
	}
	defer p.Close() //nolint:errcheck // only asked
	info, err := p.Info()
	if err != nil || info.Name == "" {
		return unnamed
	}
	return info.Name
}
