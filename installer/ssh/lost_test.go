package ssh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"slipway/installer"
	"slipway/internal/testnet"
)

// What ran when the connection went is not run again, and the error says that
// nobody knows how it ended. The host can be used again.
func TestConnectionLostWhileAProgramRuns(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", allowed, "")
	for _, user := range []string{"root", "ops"} {
		h := o.open(t, m, user)
		_, err := h.Run(t.Context(), sh("echo once >>/var/tmp/ran; "+killConnections))
		var lost *LostError
		if !errors.As(err, &lost) || !lost.Began || !strings.Contains(err.Error(), "node01: the connection was lost while sh ran: nobody knows how it ended") {
			t.Errorf("%s: %v", user, err)
		}
		r, err := h.Run(t.Context(), sh("cat /var/tmp/ran; rm /var/tmp/ran"))
		if err != nil || string(r.Stdout) != "once\n" {
			t.Errorf("%s: afterwards: %q, %v", user, r.Stdout, err)
		}
	}
}

// killConnections kills the sshd of each connection, and leaves the one that
// listens, which is older.
const killConnections = `for p in $(pgrep sshd); do
	case $(tr '\0' ' ' </proc/$p/cmdline) in *listener*|*sshd_config*) ;; *) kill -KILL $p ;; esac
done`

// A connection that was lost before anything began is made again, unseen.
func TestConnectionLostInBetween(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", "", "")
	h := o.open(t, m, "root")
	for range 3 {
		m.sh(t, killConnections)
		if r, err := h.Run(t.Context(), sh("echo here")); err != nil || string(r.Stdout) != "here\n" {
			t.Fatalf("%q, %v", r.Stdout, err)
		}
	}
}

// sshd drops connections when many come at once; that is not the end.
func TestDroppedInTheHandshake(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", "", "MaxStartups 2:100:2")
	targets := make([]Target, 12)
	for i := range targets {
		targets[i] = m.target("root")
		targets[i].Name = fmt.Sprint("node", i)
	}
	opts := o.options()
	opts.Parallel = 3 // of which sshd drops one, at times
	hosts, err := OpenAll(t.Context(), targets, opts)
	defer CloseAll(hosts)
	if err != nil || len(hosts) != len(targets) {
		t.Errorf("%d hosts, %v", len(hosts), err)
	}
}

// A blob whose way was cut is gone on with where it was cut, and only if what is
// there is its beginning.
func TestStoreGoesOnAfterACut(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", allowed, "")
	blob, _ := newBlob(t, 24<<20)
	part := installer.StorePath(blob.Sum) + ".part"
	var once sync.Once
	var kinds []Kind
	resumed := int64(0)
	h := o.open(t, m, "ops", func(o *Options) {
		o.Tell = func(e Event) {
			switch e.Kind {
			case Sending:
				once.Do(func() {
					testnet.Eventually(t, patience, "some of it is there", func() (bool, string) {
						got := m.sh(t, "stat -c %s "+part+" 2>/dev/null || true")
						return got != "" && got != "0", got
					})
					m.sh(t, killConnections)
				})
			case Resuming:
				resumed = e.Done
				fallthrough
			case Again:
				kinds = append(kinds, e.Kind)
			}
		}
	})
	if err := h.Store(t.Context(), blob); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(kinds) != "[again resuming]" || resumed <= 0 || resumed > blob.Size {
		t.Errorf("%v, from byte %d", kinds, resumed)
	}
	if got := m.sh(t, "sha256sum </opt/slipway/store/"+blob.Sum); !strings.HasPrefix(got, blob.Sum) {
		t.Errorf("stored: %s", got)
	}
	kinds = nil
	other, _ := newBlob(t, 2<<20)
	m.sh(t, "mv "+installer.StorePath(blob.Sum)+" "+installer.StorePath(other.Sum)+".part")
	m.sh(t, "truncate -s 1000000 "+installer.StorePath(other.Sum)+".part; printf x | dd conv=notrunc of="+installer.StorePath(other.Sum)+".part 2>&1")
	if err := h.Store(t.Context(), other); err != nil || len(kinds) > 0 {
		t.Errorf("a part of something else: %v, %v", kinds, err)
	}
}

// A program whose run is given up ends on the host: asked first, killed when it
// does not listen, and with what it started.
func TestGivingUpEndsTheProgram(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", allowed, "")
	for _, user := range []string{"root", "ops"} {
		for name, script := range map[string]string{
			"listens": `trap 'echo asked >/var/tmp/asked; exit' TERM; : >/var/tmp/here; sleep 1000 & wait`,
			"deaf":    `trap '' TERM; : >/var/tmp/here; sleep 1001; sleep 1000`,
		} {
			h := o.open(t, m, user)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := h.Run(ctx, sh(script))
				done <- err
			}()
			testnet.Eventually(t, patience, "it runs", func() (bool, string) {
				return m.sh(t, "test -e /var/tmp/here && pgrep -x sleep || true") != "", ""
			})
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("%s, %s: %v", user, name, err)
			}
			testnet.Eventually(t, patience, "it is gone: "+name, func() (bool, string) {
				got := m.sh(t, "pgrep -r S,R,D -x sleep || true") // the dead wait for pid 1
				return got == "", got
			})
			asked := m.sh(t, "test ! -e /var/tmp/asked || echo yes; rm -f /var/tmp/asked /var/tmp/here")
			if want := map[string]string{"listens": "yes"}[name]; asked != want {
				t.Errorf("%s, %s: was asked: %q", user, name, asked)
			}
			if r, err := h.Run(t.Context(), sh("echo here")); err != nil || string(r.Stdout) != "here\n" {
				t.Errorf("%s, %s: afterwards %q, %v", user, name, r.Stdout, err)
			}
		}
	}
}

// More programs at once than sshd allows on a connection take turns.
func TestManyAtOnce(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", "", "")
	h := o.open(t, m, "root")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			r, err := h.Run(t.Context(), sh(fmt.Sprint("echo ", i)))
			if err != nil || string(r.Stdout) != fmt.Sprintln(i) {
				t.Errorf("%d: %q, %v", i, r.Stdout, err)
			}
		})
	}
	wg.Wait()
}

// What a full disk or one that cannot be written does not take is an error with
// path, need and room, and leaves nothing behind.
func TestStoreOnABadDisk(t *testing.T) {
	o := newOperator(t)
	small := newMachine(t, o, "small", "mount -t tmpfs -o size=1m tmpfs /opt", "")
	fixed := newMachine(t, o, "fixed", "mount -t tmpfs -o ro tmpfs /opt", "")
	fine := newMachine(t, o, "fine", "", "")
	hosts, err := OpenAll(t.Context(), []Target{small.target("root"), fixed.target("root"), fine.target("root")}, o.options())
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(hosts)
	blob, _ := newBlob(t, 4<<20)
	var bad *StoreError
	err = hosts["small"].Store(t.Context(), blob)
	want := fmt.Sprintf("small: /opt/slipway/store/%s: 4194304 bytes are needed, 1048576 are free on /opt", blob.Sum)
	if !errors.As(err, &bad) || err.Error() != want || bad.Hint() != "make room on /opt" {
		t.Errorf("full: %v, want %s", err, want)
	}
	err = hosts["fixed"].Store(t.Context(), blob)
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "Read-only file system") || !strings.Contains(bad.Hint(), "mounted read-only") {
		t.Errorf("read-only: %v", err)
	}
	if err := hosts["fine"].Store(t.Context(), blob); err != nil {
		t.Errorf("the host beside them: %v", err)
	}
	// Somebody else fills it meanwhile.
	blob, _ = newBlob(t, 900<<10)
	opts := o.options()
	filled := false
	opts.Tell = func(e Event) {
		if e.Kind == Sending && !filled {
			filled = true
			small.sh(t, "head -c 1000000 /dev/zero >/opt/theirs || true")
		}
	}
	h, err := Open(t.Context(), small.target("root"), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close() //nolint:errcheck // a test
	err = h.Store(t.Context(), blob)
	if err != nil && (!errors.As(err, &bad) || bad.Code != storeFull) {
		t.Errorf("filled meanwhile: %v", err)
	}
}
