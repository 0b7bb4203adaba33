package installer

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What follows from a file is done when the file changes, in the same run: it was
// as wanted before.
func TestWhatFollowsFromAChange(t *testing.T) {
	h := newSandbox(t, "node01")
	items := func(text string) []Item {
		return []Item{
			File{Path: "/etc/config", Mode: 0o644, Content: []byte(text)},
			Action{Name: "started with it", Check: "cmp -s /etc/config /etc/running", Do: "cp /etc/config /etc/running", Back: "rm -f /etc/running"},
		}
	}
	for _, text := range []string{"one\n", "two\n"} {
		changed, err := apply(t, h, planOf("node01", items(text)...))
		if diff := cmp.Diff([]string{"file /etc/config", "action started with it"}, changed); diff != "" || err != nil {
			t.Error(diff, err)
		}
		if got := h.sh(t, "cat /etc/running"); got != text {
			t.Errorf("it runs with %q", got)
		}
	}
	// Two that cannot both be as wanted are an error, and no endless loop.
	at := func(name, text string) Item {
		return Action{Name: name, Check: "test $(cat /etc/who) = " + text, Do: "echo " + text + " >/etc/who", Back: ":"}
	}
	h.sh(t, "echo a >/etc/who")
	if _, err := apply(t, h, planOf("node01", at("first", "a"), at("second", "b"))); err == nil {
		t.Error("a contradiction was carried out")
	}
}

// What takes a moment after it was done is waited for.
func TestWhatTakesAMoment(t *testing.T) {
	h := newSandbox(t, "node01")
	late := Action{Name: "late", Check: "test -e /etc/late", Do: "(sleep 0.7; touch /etc/late) </dev/null >/dev/null 2>&1 &", Back: "rm -f /etc/late"}
	if changed, err := apply(t, h, planOf("node01", late)); err != nil || len(changed) != 1 {
		t.Error(changed, err)
	}
}

// What had come about and is gone again, as the health of a service that was
// started once more, is waited for again.
func TestWhatComesAboutTwice(t *testing.T) {
	h := newSandbox(t, "node01")
	h.sh(t, "echo 0 >/etc/looks")
	healthy := Wait{Name: "healthy", Until: time.Minute, Check: "n=$(cat /etc/looks); echo $((n + 1)) >/etc/looks; test $n -eq 1 || test $n -gt 6"}
	if changed, err := apply(t, h, planOf("node01", healthy)); err != nil || len(changed) != 0 { // nothing was done to it
		t.Error(changed, err)
	}
	if looks := strings.TrimSpace(h.sh(t, "cat /etc/looks")); len(looks) == 1 && looks < "7" {
		t.Errorf("looked at %s times", looks)
	}
	h.sh(t, "echo 0 >/etc/looks")
	never := Wait{Name: "healthy", Until: time.Second, Check: "n=$(cat /etc/looks); echo $((n + 1)) >/etc/looks; test $n -eq 1"}
	if _, err := apply(t, h, planOf("node01", never)); err == nil {
		t.Error("it is not healthy")
	}
}
