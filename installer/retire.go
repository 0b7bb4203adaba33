package installer

import (
	"context"
	"strings"
)

// retireSome follows the records of some items, the last first, as undoAll does
// for all. They are not known any more then: what comes back is recorded anew.
const retireSome = `
[ -d "$RECORDS" ] || exit 0
for record in $(ls "$RECORDS" | grep '^[0-9]*-.*[.]sh$' | sort -r); do
	tag=${record#*-}
	tag=${tag%.sh}
	case " $TAGS " in *" $tag "*) ;; *) continue ;; esac
	sed -n '1s/^# //p' "$RECORDS/$record"
	( set -eu
	. "$RECORDS/$record"
	)
	# Records are numbered by their count: none may be missing.
	printf ':\n' >"$RECORDS/$record"
	mv "$RECORDS/$record" "$RECORDS/${record%%-*}-retired.sh"
	rm -f "$RECORDS/known/$tag" "$RECORDS/kept/$tag"
done
`

// Retire takes back what was done on a host for some items, by their IDs, and
// returns what that was. Others stay. It is for what a changed plan no longer has.
func Retire(ctx context.Context, h Host, ids []string) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var tags []string
	for _, id := range ids {
		tags = append(tags, tag(id))
	}
	return undone(ctx, h, "what is not wanted any more", "TAGS='"+strings.Join(tags, " ")+"'\n"+retireSome)
}
