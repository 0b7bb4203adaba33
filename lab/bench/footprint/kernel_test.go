package footprint

import (
	"bufio"
	"strings"
	"testing"
)

func TestMemoryOfKernel(t *testing.T) {
	const meminfo = `MemTotal:       1000 kB
MemFree:         400 kB
MemAvailable:    550 kB
Buffers:          10 kB
Cached:          190 kB
SwapCached:        0 kB
AnonPages:       300 kB
Slab:             60 kB
Percpu:            5 kB
HugePages_Total:   0
`
	want := Memory{Available: 550 << 10, Kernel: 100 << 10, Slab: 60 << 10, PerCPU: 5 << 10} // 1000−400−10−190−300
	if got := parseMemory(meminfo); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestActiveObjects(t *testing.T) {
	const slabinfo = `slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
net_namespace_x        9     56   4288    7    8 : tunables    0    0    0 : slabdata      8      8      0
net_namespace         43     56   4288    7    8 : tunables    0    0    0 : slabdata      8      8      0
`
	if n, ok := activeObjects(bufio.NewScanner(strings.NewReader(slabinfo)), "net_namespace"); n != 43 || !ok {
		t.Errorf("%d, %v", n, ok)
	}
	if _, ok := activeObjects(bufio.NewScanner(strings.NewReader(slabinfo)), "absent"); ok {
		t.Error("a cache that is not there was found")
	}
}
