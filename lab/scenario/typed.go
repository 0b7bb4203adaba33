package scenario

import "strings"

// typed is a command that was run, as a student types it in a shell.
func (x *run) typed(argv []string) string {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = a
		if a == "" || strings.ContainsAny(a, " \t\n'\"$&|;<>()*?[]{}\\#`") {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return show(strings.Join(quoted, " "), nil, namedLab(x.lab))
}
