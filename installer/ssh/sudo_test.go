package ssh

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// noSudo takes sudo away: /usr/bin as the machine has it, without the one file.
const noSudo = `mkdir -p $1/files/bin/up $1/files/bin/work
mount -t overlay -o lowerdir=/usr/bin,upperdir=$1/files/bin/up,workdir=$1/files/bin/work overlay /usr/bin
rm /usr/bin/sudo
`

// asks lets the user become root with the password.
const asks = `printf 'ops ALL=(ALL) ALL\n' >/etc/sudoers.d/ops
`

// Each way in which sudo makes nobody root has its own error.
func TestSudo(t *testing.T) {
	o := newOperator(t)
	with := func(p string) Sudo {
		return func(context.Context, string) (string, error) { return p, nil }
	}
	for name, c := range map[string]struct {
		prepare string
		sudo    Sudo
		want    Reason // empty: root
	}{
		"free":     {allowed, nil, ""},
		"unneeded": {allowed, with("never asked for"), ""},
		"password": {asks, with(password), ""},
		"nopass":   {asks, nil, NeedsPassword},
		"wrong":    {asks, with("wrong"), WrongPassword},
		"empty":    {asks, with(""), NeedsPassword},
		"stranger": {"", with(password), NotAllowed},
		"other":    {"printf 'ops ALL=(ALL) /bin/ls\\n' >/etc/sudoers.d/ops", with(password), NotAllowed},
		"nosudo":   {noSudo, nil, NoSudo},
		"terminal": {"printf 'Defaults:ops requiretty\\nops ALL=(ALL) NOPASSWD: ALL\\n' >/etc/sudoers.d/ops", nil, NeedsTerminal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, o, name, c.prepare, "")
			opts := o.options()
			opts.Sudo = c.sudo
			h, err := Open(t.Context(), m.target("ops"), opts)
			if h != nil {
				defer h.Close() //nolint:errcheck // a test
			}
			var e *SudoError
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want == "":
				r, err := h.Run(t.Context(), sh("id -u; cat"))
				if err != nil || string(r.Stdout) != "0\n" {
					t.Errorf("%q %q %v", r.Stdout, r.Stderr, err)
				}
			case !errors.As(err, &e) || e.Reason != c.want:
				t.Errorf("%v, want %s", err, c.want)
			case e.Hint() == "" || strings.Contains(err.Error(), "slipway-"):
				t.Errorf("%v (%s)", err, e.Hint())
			}
		})
	}
}

// The password is in no program's words or environment, in no file, in no error
// and in nothing that is told; and what a program reads does not begin with it.
func TestPasswordStaysSecret(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", asks, "")
	var told []string
	h := o.open(t, m, "ops", func(o *Options) {
		o.Sudo = func(context.Context, string) (string, error) { return password, nil }
		o.Tell = func(e Event) { told = append(told, e.Text) }
	})
	r, err := h.Run(t.Context(), sh(`cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\0' '\n'; cat`))
	if err != nil || r.Code != 0 || strings.Contains(string(r.Stdout)+string(r.Stderr), password) || !strings.Contains(string(r.Stdout), "sudo") {
		t.Errorf("%v, exit code %d, %d bytes", err, r.Code, len(r.Stdout))
	}
	if got := m.sh(t, "grep -rl "+password+" /etc /var/log /var/tmp /home /run || true"); got != "" {
		t.Errorf("in files: %s", got)
	}
	if all := strings.Join(told, "\n"); strings.Contains(all, password) {
		t.Errorf("told: %s", all)
	}
	o2 := o.options()
	o2.Sudo = func(context.Context, string) (string, error) { return password + "-but-wrong", nil }
	if _, err := Open(t.Context(), m.target("ops"), o2); err == nil || strings.Contains(err.Error(), password) {
		t.Errorf("error: %v", err)
	}
}
