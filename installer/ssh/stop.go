package ssh

import (
	"context"
	"fmt"
	"io"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// A program that is to end has graceful long to do so by itself, and is killed
// then. stopLimit bounds all of it: the host may be gone.
const (
	graceful  = 3 // seconds
	stopLimit = 20 * time.Second
	// closeLimit is for the last of the output. What holds it open is not ours.
	closeLimit = 2 * time.Second
)

// stop ends the program. Closing the session would not: sshd lets a program without
// a terminal run on (OpenSSH: session_close_by_channel), and passes no signal to
// what sudo runs, which is not the user's. So its process group is ended by a
// second session, as root, if the process is still the one that began; the signal
// of the protocol is what is left where that cannot be had.
func (x *exchange) stop(ctx context.Context, ended <-chan error) {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	// What has its mark and not the word ends by itself.
	if x.started != nil && x.started.process.pid != "" && !x.conn.isLost() {
		p := x.started.process
		script := fmt.Sprintf(`same() { read -r s </proc/%[1]s/stat && set -- ${s##*)} && test "${20}" = %[3]s; }
same || exit 0 # dash's kill knows no --
kill -TERM -%[2]s
n=0
while same && test $n -lt %[4]d; do sleep 0.1 2>/dev/null || sleep 1; n=$((n + 1)); done
kill -KILL -%[2]s`, p.pid, p.group, p.start, graceful*10)
		// The group may hold sudo, and this very shell does not belong to it.
		_, _ = x.h.session(ctx, x.conn, x.become, run{argv: []string{"sh", "-c", script}, stdout: io.Discard, stderr: io.Discard})
	} else if !x.conn.isLost() {
		_ = x.session.Signal(gossh.SIGTERM)
	}
	_ = x.session.Close()
	select {
	case <-ended: //nolint:errcheck // it was to end
	case <-time.After(closeLimit):
	}
}
