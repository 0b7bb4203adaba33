package skbtrace

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// reasonPrefix begins the kernel's names of drop reasons.
const reasonPrefix = "SKB_DROP_REASON_"

// subsystemShift parts a subsystem's own reasons from the core's
// (SKB_DROP_REASON_SUBSYS_SHIFT, include/net/dropreason.h).
const subsystemShift = 16

// reasonName is what the running kernel calls a drop reason, without
// SKB_DROP_REASON_; its number where it has no name. Reasons of a subsystem are
// that one's name and the number, as their names are in modules.
func reasonName(reason uint32) string {
	if subsystem := reason >> subsystemShift; subsystem != 0 {
		name, ok := subsystems()[subsystem]
		if !ok {
			name = fmt.Sprintf("SUBSYSTEM_%d", subsystem)
		}
		return fmt.Sprintf("%s_%d", name, reason&(1<<subsystemShift-1))
	}
	if name, ok := reasons()[reason]; ok {
		return name
	}
	return fmt.Sprintf("REASON_%d", reason)
}

// The kernel's types, megabytes of them, are searched when the first name is
// asked for.
var (
	reasons    = sync.OnceValue(func() map[uint32]string { return enumNames("skb_drop_reason", reasonPrefix) })
	subsystems = sync.OnceValue(func() map[uint32]string {
		return enumNames("skb_drop_reason_subsys", reasonPrefix+"SUBSYS_")
	})
)

// enumNames reads an enum from the kernel's type information, empty where there
// is none.
func enumNames(enum, prefix string) map[uint32]string {
	out := map[uint32]string{}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return out
	}
	var e *btf.Enum
	if err := types.TypeByName(enum, &e); err != nil {
		return out
	}
	for _, v := range e.Values {
		out[uint32(v.Value)] = strings.TrimPrefix(v.Name, prefix)
	}
	return out
}
