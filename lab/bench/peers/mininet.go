package peers

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/lab/bench/report"
)

var mininetSection = Section{
	Name:    "mininet",
	About:   "Mininet's hosts on one Linux bridge, made and removed, beside the same number of pods of a lab",
	Missing: mininetMissing,
	Run:     runMininet,
}

const (
	mininet     = "mininet"
	perHost     = "per-host"
	wholeUp     = "up"
	wholeDown   = "down"
	downPerHost = "down-per-host"

	// debianPython is what Debian's package of Mininet is installed for; another
	// python3 may come first in the path.
	debianPython = "/usr/bin/python3"
	mininetTime  = 5 * time.Minute
)

// hostCounts are how many hosts are made.
var hostCounts = []int{10, 50, 100}

//go:embed mininethosts.py
var mininetHosts string

func mininetMissing() []Missing {
	var out []Missing
	for program, pkg := range map[string]string{"mnexec": "mininet", "brctl": "bridge-utils", "unshare": "util-linux", "ping": "iputils-ping"} {
		if _, err := exec.LookPath(program); err != nil {
			out = append(out, Missing{program, "install the package " + pkg})
		}
	}
	return out
}

func runMininet(ctx context.Context, o Options) (*report.Report, error) {
	before, err := rootLinks()
	if err != nil {
		return nil, err
	}
	var races []*race
	for _, n := range hostCounts {
		races = append(races, &race{
			part: strconv.Itoa(n), workload: "make-hosts", path: fmt.Sprintf("%d-hosts", n), main: perHost,
			params: map[string]string{"hosts": strconv.Itoa(n)}, control: mininet, patience: mininetTime,
			runners: []runner{
				{mininet, func(ctx context.Context) ([]reading, error) { return mininetOnce(ctx, n) }},
				{"slipway", func(ctx context.Context) ([]reading, error) { return podsOnce(ctx, o, n) }},
			},
		})
	}
	r, err := runRaces(ctx, o, o.chosen(races), "Mininet and slipway themselves",
		"Mininet: hosts with one link and one address each to a Linux bridge, made by its Python interface; the start of Python is not counted. It runs in network, mount and process namespaces of its own, and may not raise the machine's limits as it would.",
		"slipway: the whole command `slipway up` for one node with as many pods, from the start of its process: network namespaces with a veth pair on the node's bridge, addresses, routes; and the node, the external machine, the service rules and the daemon, which Mininet's hosts do not have. Down is `slipway down` without the start of a process.")
	after, e := rootLinks()
	if r != nil && e == nil && !slices.Equal(before, after) {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the links of the machine's own namespace changed meanwhile, which neither does: before %v, after %v", before, after))
	}
	return r, errors.Join(err, e)
}

// rootLinks are the links of the namespace that the bench runs in.
func rootLinks() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var out []string
	for _, l := range links {
		out = append(out, fmt.Sprintf("%d %s", l.Attrs().Index, l.Attrs().Name))
	}
	return out, nil
}

// mininetOnce makes hosts with Mininet, where they touch nothing else, and
// removes them. When it is killed they go with it.
func mininetOnce(ctx context.Context, hosts int) ([]reading, error) {
	cmd := exec.CommandContext(ctx, "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		debianPython, "-c", mininetHosts, strconv.Itoa(hosts))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	var said bytes.Buffer
	cmd.Stderr = &said
	raw, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run Mininet: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	var took struct {
		Up, Down float64
		Reaches  bool
	}
	if err := json.Unmarshal(raw, &took); err != nil {
		return nil, fmt.Errorf("read Mininet's times: %w: %q", err, raw)
	}
	if !took.Reaches {
		return nil, errors.New("run Mininet: its hosts do not reach each other")
	}
	return hostTimes(took.Up, took.Down, hosts), nil
}

func hostTimes(up, down float64, hosts int) []reading {
	n := float64(hosts)
	return []reading{{perHost, "s", up / n}, {downPerHost, "s", down / n}, {wholeUp, "s", up}, {wholeDown, "s", down}}
}

// podsOnce brings a lab with as many pods up, and down.
func podsOnce(ctx context.Context, o Options, pods int) ([]reading, error) {
	var objects strings.Builder
	for i := range pods {
		fmt.Fprintf(&objects, "apiVersion: v1\nkind: Pod\nmetadata: {name: h%d}\nspec: {nodeName: node01, containers: [{name: c, image: bench:1}]}\n---\n", i+1)
	}
	begin := time.Now()
	l, err := Up(ctx, o.Exe, "hosts", "  network: {mode: flannel-host-gw}\n  nodes:\n    - {name: node01, roles: [control-plane, worker]}\n", objects.String())
	up := time.Since(begin)
	if err != nil {
		return nil, err
	}
	_, first, err := l.At("h1")
	if err == nil {
		err = l.Reaches(ctx, fmt.Sprintf("h%d", pods), first.Address)
	}
	begin = time.Now()
	if e := l.Close(ctx); err != nil || e != nil {
		return nil, errors.Join(err, e)
	}
	return hostTimes(up.Seconds(), time.Since(begin).Seconds(), pods), nil
}
