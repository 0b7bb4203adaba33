package scenario

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/topology"
)

// minimal is a drill with all that it must have.
const minimal = `title: {en: T, zh: 题}
kind: drill
level: 1
minutes: 5
-- about.en.md --
A story.
-- about.zh.md --
故事。
-- cluster.yaml --
apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: x}
-- break --
node node01 true
-- checks --
# First. | 第一。
probe a b:80
# Second.
! probe a c:80
trace a b:80 --verdict delivered
-- hints.en.md --
One.
---
Two.
-- hints.zh.md --
一。
---
二。
-- solution --
# Why. | 为什么。
# Still why. | 还是为什么。
node node01 ip route del 10.0.0.0/8
wait --for 5s probe a b:80

# Then. | 然后。
? pod a true
! slipway trace a b
stdout dropped
`

func TestParse(t *testing.T) {
	s, err := Parse("dir/my-drill.txtar", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "my-drill" || s.Kind != Drill || s.Level != 1 || s.Minutes != 5 || s.Mode != topology.FlannelVXLAN || s.Components != topology.ComponentsNone {
		t.Errorf("%+v", s)
	}
	if got := []string{s.Title("zh"), s.Title("fr"), s.Prose("zh"), s.Hints[1].In("zh"), s.Checks[0].Name.In("zh"), s.Checks[1].Name.In("zh")}; !slices.Equal(got, []string{"题", "T", "故事。", "二。", "第一。", "Second."}) {
		t.Errorf("texts: %q", got)
	}
	if len(s.Checks) != 2 || s.Checks[1].Script.Line != 19 || !strings.HasPrefix(s.Checks[1].Script.Text, "! probe a c:80\n") {
		t.Errorf("the second check: %+v", s.Checks[1])
	}
	type part struct {
		Why      string
		Commands []string
	}
	var got []part
	for _, p := range s.Solution {
		got = append(got, part{p.Why.In("en"), p.Commands})
	}
	want := []part{
		{"Why. Still why.", []string{"node node01 ip route del 10.0.0.0/8"}},
		{"Then.", []string{"pod a true", "slipway trace a b"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("solution (-want +got)\n%s", d)
	}
}

// What is wrong in a file is said with its place there, all at once.
func TestParseComplains(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown key", "minutes: 5", "minuets: 5", `x.txtar:4:1: unknown field "minuets"`},
		{"kind", "kind: drill", "kind: puzzle", `x.txtar:2:1: kind is lesson or drill, not "puzzle"`},
		{"level", "level: 1", "level: 7", `x.txtar:3:1: level is 1, 2 or 3, not 7`},
		{"no title in zh", "title: {en: T, zh: 题}", "title: {en: T}", `x.txtar:1:1: there is no title in zh`},
		{"cluster", "metadata: {name: x}", "metadata: {naam: x}", `x.txtar:12:12: metadata.naam`},
		{"command", "node node01 true", "nod node01 true", `x.txtar:14:1: nod: unknown command`},
		{"quote", "pod a true", "pod a 'true", `x.txtar:36:3: unterminated quoted argument`},
		{"flag", "! probe a c:80", "! probe a c:80 --prto tcp", `x.txtar:19:3: probe: unknown flag: --prto`},
		{"verdict", "--verdict delivered", "--verdict eaten", `x.txtar:20:1: trace: `},
		{"waits for nothing", "wait --for 5s probe a b:80", "wait --for 5s", `x.txtar:33:1: wait: invalid usage: wait for which command?`},
		{"hints of one language", "---\n二。", "二。", `x.txtar:1:1: 1 hints in zh and 2 in en`},
		{"no story", "-- about.zh.md --\n故事。\n", "", `x.txtar:1:1: there is no part "about.zh.md"`},
		{"no break", "-- break --\nnode node01 true\n", "", `x.txtar:1:1: a drill has break`},

		{"outside", "-- break --", "-- ../x --\n-- break --", `x.txtar:13:1: "../x" leaves the scenario's directory`},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(minimal, c.old, c.new, 1)
			if text == minimal {
				t.Fatalf("%q is not there", c.old)
			}
			_, err := Parse("x.txtar", []byte(text))
			if c.want == "" {
				if err != nil {
					t.Errorf("%v", err)
				}
				return
			}
			var diags topology.Diagnostics
			if !errors.As(err, &diags) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestParseSaysAllAtOnce(t *testing.T) {
	text := strings.NewReplacer("level: 1", "level: 0", "probe a b:80\n#", "prob a b:80\n#").Replace(minimal)
	_, err := Parse("x.txtar", []byte(text))
	var diags topology.Diagnostics
	if !errors.As(err, &diags) || len(diags) != 2 {
		t.Errorf("%v", err)
	}
}

// Every scenario that comes with the program is well-formed, in both languages.
func TestAll(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	modes := map[topology.ModeName]int{}
	drills := 0
	for _, s := range all {
		if !slices.Equal(s.Languages, Languages) {
			t.Errorf("%s is in %v", s.Name, s.Languages)
		}
		if s.Kind != Drill {
			continue
		}
		drills++
		modes[s.Mode]++
		if n := len(s.Hints); n < 2 || n > 4 {
			t.Errorf("%s has %d hints, want 2 to 4", s.Name, n)
		}
		for _, p := range s.Solution {
			if p.Why.In(English) == "" || p.Why.In(Chinese) == "" {
				t.Errorf("%s: its solution does not say why in both languages: %v", s.Name, p.Commands)
			}
		}
	}
	if drills < 25 || len(modes) != 5 {
		t.Errorf("%d drills in %v", drills, modes)
	}
}

func TestUnknownNames(t *testing.T) {
	var unknown *UnknownError
	for _, name := range []string{"nothing", "", "..", "%"} {
		if _, err := Load(name); !errors.As(err, &unknown) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := LoadRunning(name); err == nil {
			t.Errorf("%q runs", name)
		}
	}
	if _, err := Load("./nothing.txtar"); err == nil || errors.As(err, &unknown) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestShow(t *testing.T) {
	vars := []string{"ip_web=10.244.1.2", "ip_web_2=10.244.1.3"}
	for _, c := range []struct{ line, lab, want string }{
		{"node node01 ip route del $ip_web/32", "", "slipway exec node01 -- ip route del 10.244.1.2/32"},
		{"pod client sh -c 'echo $ip_web_2 $HOME'", "sc-x", "slipway exec -L sc-x client -- sh -c 'echo 10.244.1.3 $HOME'"},
		{"slipway up -q", "sc-x", "slipway up -L sc-x -q"},
		{"trace a b:80 --verdict dropped --place=node01 --proto udp", "", "slipway trace a b:80 --proto udp"},
		{"probe a b:80 --count 30", "", "slipway trace a b:80"},
	} {
		if got := show(c.line, vars, c.lab); got != c.want {
			t.Errorf("%q: got %q, want %q", c.line, got, c.want)
		}
	}
}

func TestLocaleLanguage(t *testing.T) {
	for _, c := range []struct{ all, lang, want string }{
		{"", "zh_CN.UTF-8", "zh"}, {"", "zh", "zh"}, {"", "C.UTF-8", "en"}, {"", "", "en"}, {"en_GB.UTF-8", "zh_TW.UTF-8", "en"}, {"zh_SG.UTF-8", "de_DE", "zh"},
	} {
		t.Setenv("LC_ALL", c.all)
		t.Setenv("LC_MESSAGES", "")
		t.Setenv("LANG", c.lang)
		if got := LocaleLanguage(); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}
