package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"slipway/internal/netns"
	"slipway/internal/run"
)

// dump is the namespace's links, addresses and routes as ip(8) sees them: all
// that an attachment decides, nothing that changes by itself.
func dump(t testing.TB, ns *netns.NS) string {
	t.Helper()
	ip := func(args ...string) []byte {
		b, err := run.Cmd{NS: ns, Name: "ip", Args: args}.Output(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var links []struct {
		Name     string `json:"ifname"`
		Alias    string `json:"ifalias"`
		Master   string `json:"master"`
		Address  string `json:"address"`
		MTU      int
		Flags    []string
		LinkInfo struct {
			Kind  string                           `json:"info_kind"`
			Slave struct{ Hairpin, Isolated bool } `json:"info_slave_data"`
		}
	}
	if err := json.Unmarshal(ip("-d", "-j", "link"), &links); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range links {
		if l.Name != "eth0" && !strings.HasPrefix(l.Name, "cali") && l.Name != "cni0" {
			l.Address = "random"
		}
		if l.Name == "cni0" { // a bridge follows its ports' MTU and lowest MAC
			l.MTU, l.Address = 0, ""
		}
		out = append(out, fmt.Sprintf("link %s alias %q master %q %s mtu %d up %v kind %s %+v",
			l.Name, l.Alias, l.Master, l.Address, l.MTU, slices.Contains(l.Flags, "UP"), l.LinkInfo.Kind, l.LinkInfo.Slave))
	}
	slices.Sort(out)
	for line := range strings.Lines(string(ip("-br", "-4", "addr"))) {
		f := strings.Fields(line)
		name, _, _ := strings.Cut(f[0], "@") // "eth0@if2": the peer's index is chance
		out = append(out, "addr "+name+" "+strings.Join(f[2:], " "))
	}
	routes := strings.Split(strings.ReplaceAll(string(ip("-4", "route", "show", "table", "all")), " linkdown", ""), "\n")
	slices.Sort(routes)
	return strings.Join(append(out, routes...), "\n")
}
