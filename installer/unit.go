package installer

import "fmt"

// unitDir is where administrators' units lie (systemd.unit(5)).
const unitDir = "/etc/systemd/system/"

// startedDir keeps, for each unit, a sum of what it was started with.
const startedDir = "/var/lib/slipway/started/"

// Unit is a service of systemd's that is enabled and runs.
type Unit struct {
	Name string // "etcd.service"
	Text []byte
	// Inputs are the files that the service reads when it starts. It is started
	// again when one of them is another.
	Inputs []string
}

// ID names the unit.
func (u Unit) ID() string { return "unit " + u.Name }

// inputs prints a sum of the unit and all that it reads at its start. Of a link
// into the store its target says enough.
func (u Unit) inputs() string {
	return fmt.Sprintf(`for f in %s; do if [ -L "$f" ]; then readlink "$f"; else cat "$f" 2>/dev/null || true; fi; done | sha256sum | cut -d' ' -f1`, words(append([]string{unitDir + u.Name}, u.Inputs...)))
}

// Probe prints the unit's file, whether it is enabled and active, and whether it
// runs with what its inputs are now.
func (u Unit) Probe() string {
	return fmt.Sprintf(`printf '%%s %%s %%s %%s\n' "$(sha256sum 2>/dev/null <%[1]s | cut -d' ' -f1 || true)" "$(systemctl is-enabled %[2]s 2>/dev/null || true)" "$(systemctl is-active %[2]s 2>/dev/null || true)" "$(if [ "$(cat %[3]s 2>/dev/null)" = "$(%[4]s)" ]; then echo current; else echo stale; fi)"`,
		quote(unitDir+u.Name), quote(u.Name), quote(startedDir+u.Name), u.inputs())
}

// Want is enabled, active and current.
func (u Unit) Want() string { return sum(u.Text) + " enabled active current" }

// lastWords is how many lines of a service's log an error ends with.
const lastWords = 10

// Change writes the unit and starts it, or starts it again. One that does not
// start is shown with what it said.
func (u Unit) Change() string {
	p := quote(unitDir + u.Name)
	return fmt.Sprintf("keep %[1]s\n{ %[2]s} | put_file %[1]s 644 root:root\nsystemctl daemon-reload\nsystemctl enable %[3]s\nmkdir -p %[4]s\nwith=$(%[5]s)\nsystemctl restart %[3]s || { code=$?; %[7]s >&2 || true; exit $code; }\nprintf '%%s\\n' \"$with\" >%[6]s",
		p, literal(u.Text), quote(u.Name), quote(startedDir), u.inputs(), quote(startedDir+u.Name), u.Words())
}

// Words prints the end of the unit's log.
func (u Unit) Words() string {
	return fmt.Sprintf("journalctl -u %s -n %d --no-pager", quote(u.Name), lastWords)
}

// Undo stops and removes a unit that was not there; another it starts again as
// it was.
func (u Unit) Undo(before string) string {
	p, n := quote(unitDir+u.Name), quote(u.Name)
	var file, enabled, active, current string
	// With no file the first word is missing.
	if n, _ := fmt.Sscanf(before, "%s %s %s %s", &file, &enabled, &active, &current); n < 4 || len(file) != len(sum(nil)) {
		file = ""
	}
	if file == "" {
		return fmt.Sprintf("systemctl disable --now %[1]s 2>/dev/null || true\nrm -f %[2]s %[3]s\nsystemctl daemon-reload\nsystemctl reset-failed %[1]s 2>/dev/null || true", n, p, quote(startedDir+u.Name))
	}
	script := fmt.Sprintf("put_back %s %s\nsystemctl daemon-reload\nrm -f %s", tag(u.ID()), p, quote(startedDir+u.Name))
	if enabled != "enabled" {
		script += "\nsystemctl disable " + n
	}
	if active == "active" {
		return script + "\nsystemctl restart " + n
	}
	return script + "\nsystemctl stop " + n
}

// Shown is the unit's file.
func (u Unit) Shown() (string, []byte, bool) { return unitDir + u.Name, u.Text, false }
