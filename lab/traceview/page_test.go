package traceview

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"slipway/datapath/trace"
	"slipway/internal/testnet"
	"slipway/internal/testpage"
)

// hack/trace-screenshot.sh sets these.
var (
	screenshot = flag.String("screenshot", "", "write a picture of the page to this file")
	pictured   = flag.String("page", "", "of this page, which slipway trace -o html wrote, instead of one that the tests have")
	pictureHop = flag.Int("hop", 9, "at this hop")
	pictureIn  = flag.String("theme", "light", "light or dark")
)

// browser is a headless Chromium with the page in it.
type browser struct{ *testpage.Browser }

func (b *browser) run(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.Ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// subtitles are the addresses of the tests' nodes.
var subtitles = Subtitles{"node01": "192.168.233.30", "node02": "192.168.233.31"}

// open shows a trace.
func (b *browser) open(t *testing.T, tr *trace.Trace) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trace.html")
	if err := os.WriteFile(file, []byte(drawn(t, tr, func(w io.Writer, t *trace.Trace) error { return HTML(w, t, subtitles) })), 0o644); err != nil {
		t.Fatal(err)
	}
	b.run(t, chromedp.Navigate("file://"+file))
}

// shown is what a reader sees of the hop: its title, what it did, and the count.
func (b *browser) shown(t *testing.T) (title, did, count string) {
	t.Helper()
	return b.text(t, "#hop-title"), b.text(t, "#hop-did"), b.text(t, "#count")
}

func (b *browser) text(t *testing.T, selector string) string {
	t.Helper()
	s, err := chromedp.Run(b.Ctx, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q).innerText", selector)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *browser) press(t *testing.T, keys ...string) {
	t.Helper()
	for _, k := range keys {
		b.run(t, chromedp.KeyEvent(k))
	}
}

// clean fails the test if anything went wrong in the browser.
func (b *browser) clean(t *testing.T) {
	t.Helper()
	for _, s := range b.Bad() {
		t.Error(s)
	}
}

func wantHop(t *testing.T, b *browser, title, did, count string) {
	t.Helper()
	gotTitle, gotDid, gotCount := b.shown(t)
	if !strings.HasPrefix(gotTitle, title) || !strings.HasPrefix(gotDid, did) || gotCount != count {
		t.Errorf("shown: %q, %q, %q; want %q, %q, %q", gotTitle, gotDid, gotCount, title, did, count)
	}
}

func TestPageInABrowser(t *testing.T) {
	b := &browser{testpage.Open(t)}
	t.Run("keyboard", func(t *testing.T) { keyboard(t, b) })
	t.Run("sides", func(t *testing.T) { sides(t, b) })
	t.Run("every trace", func(t *testing.T) { everyTrace(t, b) })
	t.Run("hostile rule", func(t *testing.T) { hostile(t, b) })
}

// keyboard goes along the service trace. Its request has 38 hops and its reply
// as many; the ninth is the DNAT, the fourteenth the encapsulation.
func keyboard(t *testing.T, b *browser) {
	b.open(t, vxlanService())
	wantHop(t, b, "socket", "", "1 / 76")
	right := kb.ArrowRight
	b.press(t, right, right, right, right, right, right, right, right)
	wantHop(t, b, "prerouting cni0 · node01", "DNAT 10.96.0.10:8080 → 10.244.2.3:80", "9 / 76")
	if s := b.text(t, "#stack"); !strings.Contains(s, "10.96.0.10 → 10.244.2.3") || !strings.Contains(s, "8080 → 80") {
		t.Errorf("the headers do not show what DNAT changed: %q", s)
	}
	if s := b.text(t, "#hop-facts"); !strings.Contains(s, dnatRule) {
		t.Errorf("the rule is not shown verbatim: %q", s)
	}
	b.press(t, kb.ArrowLeft)
	wantHop(t, b, "ingress cni0 · node01", "", "8 / 76")
	b.press(t, right, right, right, right, right, right)
	wantHop(t, b, "encap flannel.1 · node01", "into vxlan vni 1, 192.168.233.30 → 192.168.233.31", "14 / 76")
	if s := b.text(t, "#stack"); !strings.Contains(s, "VXLAN — put on") {
		t.Errorf("the stack does not show the tunnel: %q", s)
	}
	b.press(t, kb.End, right) // there is nothing behind the end
	wantHop(t, b, "deliver eth0 · default/client", "to 10.244.1.2:40312", "76 / 76")
	b.press(t, kb.Home, kb.ArrowLeft)
	wantHop(t, b, "socket", "", "1 / 76")
	b.press(t, " ")
	testnet.Eventually(t, 10*time.Second, "playing goes forward", func() (bool, string) {
		count := b.text(t, "#count")
		return count != "1 / 76", count
	})
	b.press(t, " ")
	if s := b.text(t, "#play"); s != "play" {
		t.Errorf("after pausing the button says %q", s)
	}
	b.run(t, chromedp.Evaluate[chromedp.Void](`document.querySelector("#hops .hop:last-child").click()`))
	wantHop(t, b, "deliver eth0 · default/client", "", "76 / 76")
	b.clean(t)
}

// sides hides what was not wanted: without the reply 38 hops, without the
// prediction only those that an observation has.
func sides(t *testing.T, b *browser) {
	tr := disagreeing()
	b.open(t, tr)
	all := len(ways(tr)[0].steps) + len(tr.Reply.Predicted)
	wantHop(t, b, "socket", "", fmt.Sprintf("1 / %d", all))
	b.press(t, "r")
	wantHop(t, b, "socket", "", fmt.Sprintf("1 / %d", len(ways(tr)[0].steps)))
	b.press(t, "p")
	wantHop(t, b, "output eth0 · default/client", "", fmt.Sprintf("1 / %d", len(tr.Observed)))
	b.press(t, kb.End)
	wantHop(t, b, "wire master01 · fabric", "DROPPED the frame is for another MAC", fmt.Sprintf("%d / %d", len(tr.Observed), len(tr.Observed)))
	b.press(t, "p", "o", kb.End) // only the prediction
	wantHop(t, b, "deliver eth0 · default/nginx-7c5b", "to 10.244.2.3:80", fmt.Sprintf("%d / %d", len(tr.Predicted), len(tr.Predicted)))
	b.press(t, "d")
	b.clean(t)
}

// everyTrace walks each trace to its end and back, also those that end early,
// that only one side knows, and one of which nothing is known.
func everyTrace(t *testing.T, b *browser) {
	for name, tr := range everything() {
		b.open(t, tr)
		hops := 0
		for _, w := range ways(tr) {
			hops += len(w.steps)
		}
		want := fmt.Sprintf("%d / %d", hops, hops)
		if hops == 0 {
			want = "no hops"
		}
		b.press(t, kb.PageDown, kb.End, "r", "r", "p", "o", "p", "o", kb.End)
		if got := b.text(t, "#count"); got != want {
			t.Errorf("%s: at the end the page counts %q, want %q", name, got, want)
		}
		if got := b.text(t, "#verdict"); !strings.Contains(strings.ToLower(got), tr.Verdict.String()) {
			t.Errorf("%s: the verdict reads %q", name, got)
		}
	}
	b.clean(t)
}

// hostile: a rule whose text looks like a script is shown, not run.
func hostile(t *testing.T, b *browser) {
	b.open(t, unknown())
	b.press(t, kb.End)
	wantHop(t, b, "forward cni0 · node01", "UNKNOWN the match u32 is not evaluated", "11 / 11")
	if s := b.text(t, "#hop-facts"); !strings.Contains(s, oddRule) {
		t.Errorf("the rule is not shown verbatim: %q", s)
	}
	b.clean(t)
}

// TestScreenshot makes the picture of the documentation.
func TestScreenshot(t *testing.T) {
	if *screenshot == "" {
		t.Skip("makes a picture with -screenshot FILE")
	}
	b := &browser{testpage.Open(t)}
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: *pictureIn}, {Name: "prefers-reduced-motion", Value: "reduce"}}}
	if _, err := chromedp.Call(b.Ctx, emulation.SetEmulatedMedia, media); err != nil {
		t.Fatal(err)
	}
	b.run(t, chromedp.EmulateViewport(1280, 800))
	if *pictured != "" {
		b.run(t, chromedp.Navigate("file://"+*pictured))
	} else {
		b.open(t, vxlanService())
	}
	for range *pictureHop - 1 {
		b.press(t, kb.ArrowRight)
	}
	png, err := chromedp.Run(b.Ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*screenshot, png, 0o644); err != nil {
		t.Fatal(err)
	}
	b.clean(t)
}
