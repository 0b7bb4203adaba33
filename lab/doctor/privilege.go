package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func privilegeChecks() []check {
	return []check{
		{
			name: "root", group: Privilege, required: true,
			means: "labs belong to root: commands about them refuse to run; doctor, graph -f and schema work",
			hint:  "run it with sudo",
			probe: func(context.Context, *scratch) (string, error) {
				if id := os.Geteuid(); id != 0 {
					return "", fmt.Errorf("running as user %d", id)
				}
				return "", nil
			},
		},
		capability("CAP_NET_ADMIN", unix.CAP_NET_ADMIN, true, "no device, address, route or rule can be set"),
		capability("CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN, true, "no network namespace can be made or entered"),
		capability("CAP_NET_RAW", unix.CAP_NET_RAW, false, "packets cannot be captured: demo does not work"),
		capability("CAP_BPF", unix.CAP_BPF, false, "eBPF programs load only if CAP_SYS_ADMIN stands in for it"),
		capability("CAP_SYS_RESOURCE", unix.CAP_SYS_RESOURCE, false, "limits cannot be raised above those that the shell has; see resources"),
		{
			name: "network namespaces", group: Privilege, required: true,
			means: "no lab can be made",
			hint:  "run as root on the machine itself or in a privileged container",
			probe: func(_ context.Context, s *scratch) (string, error) { return "", s.err },
		},
	}
}

func capability(name string, bit uint, required bool, means string) check {
	return check{
		name: name, group: Privilege, required: required, means: means,
		hint: "run with sudo; in a container, add the capability or make it privileged",
		probe: func(context.Context, *scratch) (string, error) {
			have, err := effective()
			if err != nil {
				return "", err
			}
			if have&(1<<bit) == 0 {
				return "", errors.New("not among the effective capabilities")
			}
			return "", nil
		},
	}
}

// effective is the process's effective capability set (proc_pid_status(5), CapEff).
func effective() (uint64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, errors.New("no CapEff in /proc/self/status")
}
