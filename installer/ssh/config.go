package ssh

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// route is how a target is reached: what `ssh -G` would say of it.
type route struct {
	name       string // the target's, for messages
	host       string // to connect to
	port       int
	user       string
	keyAlias   string // what the host's key is known under, "host" or "[host]:port"
	keys       []string
	onlyKeys   bool // IdentitiesOnly
	agent      string
	knownHosts []string
	acceptNew  bool
	jumps      []Target // first to last
}

func (r route) address() string { return net.JoinHostPort(r.host, strconv.Itoa(r.port)) }

// settings are files of ssh_config(5). The first that says something wins.
type settings struct {
	files []string
	read  []*ssh_config.Config
	home  string
	local string // who runs this
}

// systemConfig is read after the user's own (ssh(1), FILES).
const systemConfig = "/etc/ssh/ssh_config"

func readSettings(file string) (*settings, error) {
	u, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("who runs this: %w", err)
	}
	s := &settings{home: u.HomeDir, local: u.Username}
	if h := os.Getenv("HOME"); h != "" {
		s.home = h
	}
	switch file {
	case "":
		s.files = []string{filepath.Join(s.home, ".ssh/config"), systemConfig}
	case "none":
	default:
		s.files = []string{file}
	}
	for _, path := range s.files {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && file == "" {
			continue
		}
		if err != nil {
			return nil, err
		}
		c, err := ssh_config.DecodeBytes(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		s.read = append(s.read, c)
	}
	return s, nil
}

// one returns what is said first, empty if nothing is.
func (s *settings) one(alias, key string) (string, error) {
	for _, c := range s.read {
		v, err := c.Get(alias, key)
		if err != nil || v != "" {
			return v, err
		}
	}
	return "", nil
}

// all returns everything that is said.
func (s *settings) all(alias, key string) (out []string, err error) {
	for _, c := range s.read {
		v, err := c.GetAll(alias, key)
		if err != nil {
			return nil, err
		}
		out = append(out, v...)
	}
	return out, nil
}

// defaultKeys are the key files that ssh(1) tries when none is named.
var defaultKeys = []string{"~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519"}

// route resolves a target.
func (s *settings) route(t Target, o Options) (route, error) {
	alias := t.Host
	if alias == "" {
		alias = t.Name
	}
	said := map[string]string{}
	for _, key := range []string{"HostName", "Port", "User", "HostKeyAlias", "IdentitiesOnly", "IdentityAgent", "StrictHostKeyChecking", "ProxyJump", "ProxyCommand", "UserKnownHostsFile", "GlobalKnownHostsFile"} {
		v, err := s.one(alias, key)
		if err != nil {
			return route{}, err
		}
		said[key] = v
	}
	r := route{name: t.Name, host: alias, port: 22, user: t.User, onlyKeys: yes(said["IdentitiesOnly"]), acceptNew: o.AcceptNew || said["StrictHostKeyChecking"] == "accept-new"}
	if h := said["HostName"]; h != "" {
		r.host = strings.NewReplacer("%%", "%", "%h", alias).Replace(h)
	}
	if err := r.setPort(t.Port, said["Port"]); err != nil {
		return route{}, err
	}
	if r.user == "" {
		r.user = said["User"]
	}
	if r.user == "" {
		r.user = s.local
	}
	r.setKeyAlias(said["HostKeyAlias"])
	expand := func(v string) string { return s.expand(v, r) }
	if err := s.setKeys(&r, alias, o, said["IdentityAgent"]); err != nil {
		return route{}, err
	}
	r.knownHosts = s.knownHosts(o, said, expand)
	if said["ProxyCommand"] != "" && said["ProxyCommand"] != "none" && said["ProxyJump"] == "" {
		return route{}, fmt.Errorf("%s has a ProxyCommand, which is not followed: say it with ProxyJump", alias)
	}
	jumps, err := parseJumps(said["ProxyJump"])
	r.jumps = jumps
	return r, err
}

func yes(v string) bool { return strings.EqualFold(v, "yes") || strings.EqualFold(v, "true") }

// setPort takes the target's port, or the configuration's where that is the usual.
func (r *route) setPort(given int, said string) error {
	if given != 0 && given != r.port {
		r.port = given
		return nil
	}
	if said == "" {
		return nil
	}
	p, err := strconv.Atoi(said)
	if err != nil || p < 1 || p > 65535 {
		return fmt.Errorf("%q is no port", said)
	}
	r.port = p
	return nil
}

func (r *route) setKeyAlias(said string) {
	r.keyAlias = said
	if said == "" {
		r.keyAlias = r.address()
	} else {
		r.keyAlias = net.JoinHostPort(said, "22") // the port is no part of an alias
	}
}

func (s *settings) setKeys(r *route, alias string, o Options, agent string) error {
	named, err := s.all(alias, "IdentityFile")
	if err != nil {
		return err
	}
	if len(named) == 0 && len(o.Keys) == 0 {
		named = defaultKeys
	}
	for _, k := range slices.Concat(o.Keys, named) {
		if k = s.expand(k, *r); k != "none" && !slices.Contains(r.keys, k) {
			r.keys = append(r.keys, k)
		}
	}
	switch {
	case agent == "none":
	case agent == "" || agent == "SSH_AUTH_SOCK":
		r.agent = os.Getenv("SSH_AUTH_SOCK")
	case strings.HasPrefix(agent, "$"):
		r.agent = os.Getenv(agent[1:])
	default:
		r.agent = s.expand(agent, *r)
	}
	return nil
}

// knownHosts are the files of host keys, first the one that is written to.
func (s *settings) knownHosts(o Options, said map[string]string, expand func(string) string) []string {
	if o.KnownHosts != "" {
		return []string{o.KnownHosts}
	}
	user, system := said["UserKnownHostsFile"], said["GlobalKnownHostsFile"]
	if user == "" {
		user = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
	}
	if system == "" {
		system = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
	}
	var out []string
	for _, f := range strings.Fields(user + " " + system) {
		if f != "none" {
			out = append(out, expand(strings.Trim(f, `"`)))
		}
	}
	return out
}

// expand replaces a leading tilde and the tokens of ssh_config(5), TOKENS.
func (s *settings) expand(v string, r route) string {
	v = strings.Trim(v, `"`)
	if v == "~" || strings.HasPrefix(v, "~/") {
		v = s.home + v[1:]
	}
	return strings.NewReplacer("%%", "%", "%d", s.home, "%h", r.host, "%p", strconv.Itoa(r.port), "%r", r.user, "%u", s.local).Replace(v)
}

// parseJumps reads "user@host:port,ssh://host2".
func parseJumps(said string) ([]Target, error) {
	if said == "" || strings.EqualFold(said, "none") {
		return nil, nil
	}
	var out []Target
	for _, j := range strings.Split(said, ",") {
		j = strings.TrimPrefix(strings.TrimSpace(j), "ssh://")
		t := Target{}
		if at := strings.LastIndexByte(j, '@'); at >= 0 {
			t.User, j = j[:at], j[at+1:]
		}
		t.Host = strings.Trim(j, "[]")
		if host, port, err := net.SplitHostPort(j); err == nil {
			p, err := strconv.Atoi(port)
			if err != nil || p < 1 || p > 65535 {
				return nil, fmt.Errorf("ProxyJump %q: %q is no port", said, port)
			}
			t.Host, t.Port = host, p
		}
		if t.Host == "" {
			return nil, fmt.Errorf("ProxyJump %q names no host", said)
		}
		t.Name = t.Host
		out = append(out, t)
	}
	return out, nil
}
