package installer

import (
	"context"
	"fmt"
	"strings"
)

// CacheDir is where programs may keep what they can do without.
const CacheDir = "/var/lib/slipway/cache"

// undoAll goes through the records from the last to the first; each is gone
// once it has been followed. It needs no plan: what was done is what is undone.
const undoAll = `
if [ ! -d "$RECORDS" ]; then exit 0; fi
for record in $(ls "$RECORDS" | grep '^[0-9]*-.*[.]sh$' | sort -r); do
	sed -n '1s/^# //p' "$RECORDS/$record"
	( set -eu
	. "$RECORDS/$record"
	)
	rm -f "$RECORDS/$record"
done
if [ -e "$RECORDS/made" ]; then
	sort -r "$RECORDS/made" | while read -r made; do rmdir "$made" 2>/dev/null || true; done
fi
rm -rf "$RECORDS" ` + startedDir + ` ` + CacheDir + `
rmdir /var/lib/slipway 2>/dev/null || true
`

// Undo takes back on one host what was ever done there, the last first, and
// returns what that was.
func Undo(ctx context.Context, h Host) ([]string, error) {
	return undone(ctx, h, "the last first", undoAll)
}

// undone runs a script that follows records and prints what each is of.
func undone(ctx context.Context, h Host, step, script string) ([]string, error) {
	r, err := shell(ctx, h, prelude+"set -eu\n"+script)
	if err != nil {
		return nil, fmt.Errorf("%s: undo: %w", h.Name(), err)
	}
	var items []string
	if out := strings.TrimSuffix(string(r.Stdout), "\n"); out != "" {
		items = strings.Split(out, "\n")
	}
	if r.Code != 0 {
		e := &StepError{Phase: "undo", Step: step, Host: h.Name(), Code: r.Code, Stderr: string(r.Stderr)}
		if len(items) > 0 {
			e.Item = items[len(items)-1]
		}
		return items, e
	}
	return items, nil
}
