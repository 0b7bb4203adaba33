package ssh

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	"slipway/installer"
)

// frame is the script that starts a program: it says that it is there, waits for
// the word, and gives way to the program. Where nobody waits any more, the word
// does not come, and nothing runs. $1 is a mark, $2 the program's words, quoted for a shell and
// then for printf. It is free of quotes, backslashes, exclamation marks and line
// ends, so that any login shell (sh, csh, fish) hands it over as it is. The mark
// alone is no sign: a shell may show what it is told (set -x).
const frame = `m=$1; eval "set -- $(printf %b "$2")"; ` +
	`PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin; export PATH; cd /; ` +
	`if command -v "$1" >/dev/null 2>&1; then s=; read -r s </proc/$$/stat; ` +
	`echo "$m out run $s"; echo "$m err" >&2; ` +
	`read -r m && test "$m" = go || exit 125; exec "$@"; fi; ` +
	`echo "$m out missing"; echo "$m err" >&2; exit 127`

func words(argv []string) string {
	var out []string
	for _, a := range argv {
		out = append(out, installer.Quote(a))
	}
	return strings.Join(out, " ")
}

// printable hides from the login shell what one of them treats as special in
// single quotes; printf %b brings it back.
var printable = strings.NewReplacer(`\`, `\0134`, `'`, `\0047`, "!", `\0041`, "\n", `\0012`, "\r", `\0015`)

// framed is what the login shell is told. via goes before the inner shell: sudo
// and its options.
func framed(via, mark string, argv []string) string {
	return "exec " + via + "sh -c '" + frame + "' sh " + mark + " '" + printable.Replace(words(argv)) + "'"
}

// newMark returns a word that nothing else prints.
func newMark() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return "slipway-" + hex.EncodeToString(b)
}

// maxNoise bounds what may come before a program begins.
const maxNoise = 256 << 10

var errNoise = errors.New("too much came before the program began")

// gate lets through what comes after the line with the mark, and keeps what comes
// before it.
type gate struct {
	mark  string
	to    io.Writer
	opens func(rest string) // called once, with what follows the mark in its line
	// noise is called with everything that came, as long as the gate is closed.
	noise func(all []byte)
	// breaks is called when nothing more can be taken: too much noise, or to failed.
	breaks func(error)

	mu     sync.Mutex
	before []byte
	open   bool
	failed error // of to
}

// Write takes what comes.
func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		return len(p), g.pass(p)
	}
	g.before = append(g.before, p...)
	at := bytes.Index(g.before, []byte(g.mark))
	end := -1
	if at >= 0 {
		end = bytes.IndexByte(g.before[at:], '\n')
	}
	if end < 0 {
		if len(g.before) > maxNoise {
			g.breaks(errNoise)
			return 0, errNoise
		}
		if g.noise != nil {
			g.noise(g.before)
		}
		return len(p), nil
	}
	line, rest := g.before[at+len(g.mark):at+end], g.before[at+end+1:]
	g.before, g.open = g.before[:at], true
	if g.opens != nil {
		g.opens(string(line))
	}
	return len(p), g.pass(rest)
}

func (g *gate) pass(p []byte) error {
	if len(p) == 0 || g.to == nil {
		return nil
	}
	if g.failed == nil {
		if _, g.failed = g.to.Write(p); g.failed != nil {
			g.breaks(g.failed)
		}
	}
	return g.failed
}

// said is what came before the mark, at most the end of it.
func (g *gate) said() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	const most = 2000
	b := g.before
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "?"))
}

// process is the program on the host: its id, and what tells it from a later one
// of the same id.
type process struct{ pid, group, start string }

// parseProcess reads /proc/PID/stat (proc_pid_stat(5)): fields 1, 5 and 22. The
// second is in parentheses, and may hold anything.
func parseProcess(stat string) (process, bool) {
	pid, _, _ := strings.Cut(strings.TrimSpace(stat), " ")
	at := strings.LastIndexByte(stat, ')')
	if at < 0 {
		return process{}, false
	}
	f := strings.Fields(stat[at+1:]) // from field 3 on
	if len(f) < 20 {
		return process{}, false
	}
	p := process{pid: pid, group: f[2], start: f[19]}
	for _, n := range []string{p.pid, p.group, p.start} {
		if v, err := strconv.ParseUint(n, 10, 64); err != nil || v < 2 {
			return process{}, false
		}
	}
	return p, true
}
