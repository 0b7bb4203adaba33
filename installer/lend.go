package installer

import (
	"context"
	"fmt"
	"strings"
)

// lent is a place for what was there before, gone with the next boot.
const lent = "/run/slipway-lent"

// Lend brings a program into a host's store for a while, and has noted before what
// was there: the program, and what it lies in. A note that is there is of a command
// that was killed, and holds.
func Lend(ctx context.Context, h Host, b Blob) error {
	script := fmt.Sprintf(`set -eu
umask 077
mkdir -p %[1]s
[ ! -e %[1]s/%[3]s ] || exit 0
for p in %[2]s; do
	if [ -e "$p" ]; then echo "$p"; fi
done >%[1]s/%[3]s.part
mv %[1]s/%[3]s.part %[1]s/%[3]s`, lent, strings.Join(places(b), " "), b.Sum)
	if err := plainly(ctx, h, script); err != nil {
		return err
	}
	return h.Store(ctx, b)
}

// places are the program, and what it lies in, from the inside.
func places(b Blob) []string {
	path := StorePath(b.Sum)
	out := []string{path}
	for i := strings.LastIndexByte(path, '/'); i > 0 && path[:i] != "/opt"; i = strings.LastIndexByte(path[:i], '/') {
		out = append(out, path[:i])
	}
	return out
}

// TakeBack removes what was lent: what was not there before. A store that cannot be written to,
// as a lab's, is not the host's own, and keeps it.
func TakeBack(ctx context.Context, h Host, b Blob) error {
	return plainly(ctx, h, TakeBackScript(b))
}

// TakeBackScript is what takes a program back that was lent, for a shell on the host, and
// what came of it if it was not sent to the end.
func TakeBackScript(b Blob) string {
	return fmt.Sprintf(`set -u
[ -e %[1]s/%[3]s ] || exit 0
for p in %[2]s; do
	if grep -qxF "$p" %[1]s/%[3]s; then continue; fi
	if [ -d "$p" ]; then
		rmdir "$p" 2>/dev/null || true
	else
		said=$(rm -f "$p.part" "$p" 2>&1) || case $said in *Read-only*) ;; *) echo "$said" >&2; exit 1 ;; esac
	fi
done
rm -f %[1]s/%[3]s
rmdir %[1]s 2>/dev/null || true`, lent, strings.Join(places(b), " "), b.Sum)
}

// plainly runs a script that says nothing if it goes well.
func plainly(ctx context.Context, h Host, script string) error {
	r, err := shell(ctx, h, script)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", r.Code, strings.TrimSpace(string(r.Stderr)))
	}
	return err
}
