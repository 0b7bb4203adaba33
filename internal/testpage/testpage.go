// Package testpage opens pages in a headless Chromium, for tests, and notes
// whatever a page does that it should not: errors, messages, dialogs, requests.
package testpage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"slipway/internal/testnet"
)

// Browser is a headless Chromium, and what went wrong in it.
type Browser struct {
	// Ctx is what chromedp takes; it ends with the test, after a minute at most.
	Ctx context.Context //nolint:containedctx // it is the tab

	mu  sync.Mutex
	bad []string
}

// Open starts Chromium with a profile of its own and nothing that talks
// to the network by itself.
func Open(t *testing.T) *Browser {
	t.Helper()
	testnet.Need(t, testnet.Chromium)
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
	)
	alloc, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits until the browser has ended, so that its profile can go
		closeTab()
	})
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	b := &Browser{Ctx: ctx}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	_, noNetwork := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	_, noLog := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	_, noRuntime := chromedp.Call(ctx, runtime.Enable, cdp.Empty{})
	if err := errors.Join(noNetwork, noLog, noRuntime); err != nil {
		t.Fatal(err)
	}
	return b
}

// listen notes every error, message, dialog and request that a page makes.
func (b *Browser) listen(ev any) {
	note := func(format string, args ...any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.bad = append(b.bad, fmt.Sprintf(format, args...))
	}
	switch e := ev.(type) {
	case *runtime.EventExceptionThrown:
		note("exception: %s", e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		note("console.%s", e.Type)
	case *log.EventEntryAdded:
		note("log: %s: %s", e.Entry.Level, e.Entry.Text)
	case *cdpage.EventJavascriptDialogOpening:
		note("dialog: %s", e.Message)
	case *network.EventRequestWillBeSent:
		if u := e.Request.URL; !strings.HasPrefix(u, "data:") && (!strings.HasPrefix(u, "file://") || e.Type != network.ResourceTypeDocument) {
			note("request: %s", u)
		}
	}
}

// Bad is what went wrong since it was asked the last time.
func (b *Browser) Bad() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	bad := b.bad
	b.bad = nil
	return bad
}
