package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"slipway/internal/netns"
	"slipway/lab"
)

// probeLeftovers looks for labs that were not finished and for namespaces with
// our prefix that no lab answers for.
func probeLeftovers(ctx context.Context, _ *scratch) (string, error) {
	labs, err := lab.Names()
	if err != nil {
		return "", err
	}
	var unfinished []string
	for _, name := range labs {
		st, err := lab.SettledSoon(ctx, name)
		if errors.Is(err, fs.ErrPermission) {
			return "", fmt.Errorf("%w: %w", errUnseen, err)
		}
		if err != nil && !errors.Is(err, lab.ErrNoLab) {
			return "", err
		}
		if st == nil || !st.Complete {
			unfinished = append(unfinished, name)
		}
	}
	names, err := netns.Names(strings.TrimSuffix(lab.NSOfMachine("", ""), "-"))
	if err != nil {
		return "", err
	}
	stray := slices.DeleteFunc(names, func(ns string) bool {
		return slices.ContainsFunc(labs, func(l string) bool { return strings.HasPrefix(ns, lab.NSOfMachine(l, "")) })
	})
	detail := fmt.Sprintf("%d labs", len(labs))
	if len(labs) == 1 {
		detail = "1 lab"
	}
	switch {
	case len(unfinished) > 0:
		return detail, less("not finished: %s", strings.Join(unfinished, ", "))
	case len(stray) > 0:
		return detail, less("%d namespaces of no lab: %s", len(stray), firstOf(stray, 3))
	}
	return detail, nil
}

func firstOf(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:n], ", ") + ", …"
}
