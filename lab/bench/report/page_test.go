package report

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"slipway/internal/testnet"
	"slipway/internal/testpage"
)

var pictures = flag.String("pictures", "", "write pictures of the page, light, dark and printed, to this directory")

// browser is a headless Chromium with the page in it.
type browser struct{ *testpage.Browser }

func (b *browser) open(t *testing.T, r *Report) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bench.html")
	if err := os.WriteFile(file, []byte(rendered(t, r, HTML)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(b.Ctx, chromedp.EmulateViewport(1400, 1000), chromedp.Navigate("file://"+file)); err != nil {
		t.Fatal(err)
	}
}

func eval[T any](t *testing.T, b *browser, script string) T {
	t.Helper()
	v, err := chromedp.Run(b.Ctx, chromedp.Evaluate[T](script))
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return v
}

func (b *browser) theme(t *testing.T, scheme string) {
	t.Helper()
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	if _, err := chromedp.Call(b.Ctx, emulation.SetEmulatedMedia, media); err != nil {
		t.Fatal(err)
	}
}

func (b *browser) clean(t *testing.T) {
	t.Helper()
	for _, s := range b.Bad() {
		t.Error(s)
	}
}

// TestPageInABrowser opens the page as a reader does: charts are there, dots
// stand where their rounds are, both themes draw, the raw report can be read
// back, markup in names stays text, and nothing is fetched or complained of.
func TestPageInABrowser(t *testing.T) {
	b := &browser{testpage.Open(t)}
	r := fixture()
	r.Series[2].Variant = "<img src=x onerror=alert(1)>"
	r.Warnings = append(r.Warnings, "</script><script>alert(2)</script>")
	b.theme(t, "light")
	b.open(t, r)
	b.await(t, 3) // each case's main metric; one of them has ratios
	// The other metrics with a direction are there for who wants to see them.
	eval[chromedp.Void](t, b, `document.querySelector(".group details").open = true`)
	b.await(t, 5)
	if got := eval[int](t, b, `document.querySelectorAll("img").length`); got != 0 {
		t.Error("a variant's name became markup")
	}
	text := eval[string](t, b, `document.querySelector("main").innerText`)
	for _, want := range []string{"40.0 (39.4–40.8)", "×0.50 (0.50–0.50)", "tso gso gro", "6.18.0", "alert(2)", "<img src=x"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	raw, err := Read(strings.NewReader(eval[string](t, b, `document.getElementById("raw").textContent`)), "page")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, raw); diff != "" {
		t.Errorf("the page's raw report: %s", diff)
	}
	b.dotsStand(t)
	light := eval[string](t, b, `getComputedStyle(document.body).backgroundColor`)
	b.picture(t, "light")
	b.theme(t, "dark")
	testnet.Eventually(t, 10*time.Second, "the page and its charts follow the system into the dark", func() (bool, string) {
		ground := eval[string](t, b, `getComputedStyle(document.body).backgroundColor`)
		ink := eval[string](t, b, `document.querySelector(".chart svg text").getAttribute("fill")`)
		return ground != light && ink == "#eef2f6", ground + " " + ink
	})
	b.picture(t, "dark")
	b.print(t, "print")
	testnet.Eventually(t, 10*time.Second, "after printing the page is dark again", func() (bool, string) {
		return eval[bool](t, b, `document.documentElement.classList.contains("dark")`), "light"
	})
	b.clean(t)
}

// await waits until so many charts are drawn.
func (b *browser) await(t *testing.T, charts int) {
	t.Helper()
	testnet.Eventually(t, 10*time.Second, "charts", func() (bool, string) {
		got := eval[int](t, b, `document.querySelectorAll(".chart svg").length`)
		return got == charts, fmt.Sprintf("%d of %d", got, charts)
	})
}

// dotsStand reads the circles of the first chart: 24 rounds, and those of the
// variant that is twice as fast are twice as far from zero.
func (b *browser) dotsStand(t *testing.T) {
	t.Helper()
	paths := eval[string](t, b, `JSON.stringify([...document.querySelectorAll(".chart svg")[0].querySelectorAll("path[fill-opacity],path[transform]")].filter(p => p.getAttribute("transform")?.startsWith("matrix")).map(p => p.getAttribute("transform")))`)
	var transforms []string
	if err := json.Unmarshal([]byte(paths), &transforms); err != nil {
		t.Fatal(err)
	}
	if len(transforms) != 24 {
		t.Fatalf("%d dots, want 24: three variants with eight rounds", len(transforms))
	}
	x := func(i int) float64 {
		m := regexp.MustCompile(`^matrix\(([^)]*)\)`).FindStringSubmatch(transforms[i])
		var a, bb, c, d, e, f float64
		if _, err := fmt.Sscanf(strings.ReplaceAll(m[1], ",", " "), "%g %g %g %g %g %g", &a, &bb, &c, &d, &e, &f); err != nil {
			t.Fatal(err)
		}
		return e
	}
	// Rounds 2 and 3 of vxlan are 20.5 and 19.5 Gbit/s, those of host-gw 41 and 39.
	if one, two := x(1)-x(2), x(9)-x(10); math.Abs(two-2*one) > 0.05 || one <= 0 {
		t.Errorf("1 Gbit/s is %g pixels, 2 are %g", one, two)
	}
}

// print makes a PDF, which draws the page in light colours, and sees that charts
// fit a sheet of A4: 180 mm are 680 pixels.
func (b *browser) print(t *testing.T, name string) {
	t.Helper()
	if _, err := chromedp.Call(b.Ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"}); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(b.Ctx, chromedp.EmulateViewport(680, 1000)); err != nil {
		t.Fatal(err)
	}
	eval[chromedp.Void](t, b, `dispatchEvent(new Event("beforeprint"))`)
	if got := eval[float64](t, b, `Math.max(...[...document.querySelectorAll(".chart svg")].map((s) => s.getBoundingClientRect().right))`); got > 680 {
		t.Errorf("printed, charts reach to pixel %g of 680", got)
	}
	b.picture(t, name)
	eval[chromedp.Void](t, b, `dispatchEvent(new Event("afterprint"))`)
	b.theme(t, "dark")
	pdf, err := chromedp.Call(b.Ctx, cdpage.PrintToPDF, cdpage.PrintToPDFParams{})
	if err != nil {
		t.Fatal(err)
	}
	if len(pdf.Data) < 1000 {
		t.Errorf("a PDF of %d bytes", len(pdf.Data))
	}
	if *pictures != "" {
		if err := os.WriteFile(filepath.Join(*pictures, name+".pdf"), []byte(pdf.Data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *browser) picture(t *testing.T, name string) {
	t.Helper()
	if *pictures == "" {
		return
	}
	png, err := chromedp.Run(b.Ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*pictures, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestCurvesInABrowser: a sweep is lines whose points stand where they belong, a
// key takes a line out, and a case that the summary names can be gone to.
func TestCurvesInABrowser(t *testing.T) {
	b := &browser{testpage.Open(t)}
	b.theme(t, "light")
	b.open(t, curves())
	testnet.Eventually(t, 10*time.Second, "the first charts", func() (bool, string) {
		return eval[bool](t, b, `!!document.querySelector("#part1 .chart svg")`), "none"
	})
	// A doubling each: writes of 1, 16, 128 and 1024 KiB give host-gw 2, 4, 1 and 8.
	points := func() int {
		return eval[int](t, b, `document.querySelectorAll("#part1 .chart[data-kind=figures] svg path[transform^=matrix]").length`)
	}
	if got := points(); got != 8 {
		t.Errorf("%d points, want 8: four in each of two variants", got)
	}
	if got := eval[string](t, b, `[...document.querySelectorAll("#part1 .chart[data-kind=figures] svg text")].map((e) => e.textContent).filter((s) => /KiB|MiB/.test(s)).join(" ")`); got != "1KiB 16KiB 128KiB 1MiB" {
		t.Errorf("the parameter's axis says %q", got)
	}
	b.picture(t, "curves")
	eval[chromedp.Void](t, b, `document.querySelector("#part1 .keys button").click()`)
	testnet.Eventually(t, 10*time.Second, "one line is gone", func() (bool, string) { return points() == 4, fmt.Sprint(points()) })
	if got := eval[string](t, b, `document.querySelector("#summary a[href='#part2']").textContent`); !strings.Contains(got, "streams=4") {
		t.Errorf("the second line of the summary is %q", got)
	}
	b.theme(t, "dark")
	testnet.Eventually(t, 10*time.Second, "dark", func() (bool, string) {
		return eval[bool](t, b, `document.documentElement.classList.contains("dark")`), "light"
	})
	b.picture(t, "curves-dark")
	b.print(t, "curves-print")
	b.clean(t)
}

// big is a run as large as they come: ten variants in twenty cases, of which
// seven are a sweep, with ten metrics of fifteen rounds.
func big() *Report {
	r := fixture()
	r.Series, r.Plan.Variants = nil, nil
	for c := range 20 {
		params := map[string]string{"write": "128KiB", "streams": fmt.Sprint(c)}
		if c > 1 {
			params["streams"] = "x" + params["streams"]
		}
		if c >= 13 {
			params = map[string]string{"size": fmt.Sprint(16 << (c - 13)), "streams": "1"}
		}
		for v := range 10 {
			s := Series{Variant: fmt.Sprintf("flannel-variant/%d", v), Workload: "tcp-stream", Path: "other-node", Target: "pod", Params: params, MTU: 1450 + v, Offloads: "rx tx sg tso gso gro", Main: "metric-3"}
			for m := range 10 {
				metric := Metric{Name: fmt.Sprintf("metric-%d", m), Unit: "bit/s", Better: Higher}
				for round := range 15 {
					x := 1e9 * float64(1+v) * (1 + 0.01*float64((round*7+v*3+m)%15)) * math.Sqrt(float64(1+c))
					metric.Rounds = append(metric.Rounds, &x)
				}
				s.Metrics = append(s.Metrics, metric)
			}
			r.Series = append(r.Series, s)
		}
	}
	for v := range 10 {
		r.Plan.Variants = append(r.Plan.Variants, fmt.Sprintf("flannel-variant/%d", v))
	}
	r.Conclude("flannel-variant/2")
	return r
}

// A page of the largest run draws what is in sight and no more.
func TestBigPageInABrowser(t *testing.T) {
	b := &browser{testpage.Open(t)}
	b.theme(t, "light")
	b.open(t, big())
	b.picture(t, "big")
	eval[chromedp.Void](t, b, `document.querySelector("#part1").scrollIntoView()`)
	testnet.Eventually(t, 10*time.Second, "the first charts", func() (bool, string) {
		return eval[bool](t, b, `!!document.querySelector("#part1 .chart svg")`), "none"
	})
	t.Logf("loaded after %v ms", eval[float64](t, b, `performance.timing.loadEventEnd - performance.timing.navigationStart`))
	if all, drawn := eval[int](t, b, `document.querySelectorAll(".chart").length`), eval[int](t, b, `document.querySelectorAll(".chart svg").length`); drawn > 8 || all < 200 {
		t.Errorf("%d of %d charts are drawn", drawn, all)
	}
	b.picture(t, "big-bars")
	eval[chromedp.Void](t, b, `document.querySelector("#part14").scrollIntoView()`)
	testnet.Eventually(t, 10*time.Second, "the sweep's lines", func() (bool, string) {
		return eval[bool](t, b, `!!document.querySelector("#part14 .chart svg path")`), "none"
	})
	b.picture(t, "big-sweep")
	b.theme(t, "dark")
	testnet.Eventually(t, 10*time.Second, "dark", func() (bool, string) {
		return eval[bool](t, b, `document.documentElement.classList.contains("dark")`), "light"
	})
	b.picture(t, "big-sweep-dark")
	b.clean(t)
}

// The page is one file of moderate size that names nothing to be fetched.
func TestPageIsSelfContained(t *testing.T) {
	t.Parallel()
	text := rendered(t, fixture(), HTML)
	if len(text) > 1_100_000 {
		t.Errorf("the page has %d bytes", len(text))
	}
	for _, bad := range []string{"<link rel=\"stylesheet\"", "<script src", "@import", "url(http"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}
