package installer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/installer"
	"slipway/installer/facts"
	"slipway/installer/site"
	"slipway/internal/testnet"
	"slipway/topology"
)

// siteBed is a site whose hosts are the rig's nodes.
type siteBed struct {
	*rig.Rig
	site  *site.Site
	hosts map[string]installer.Host
	t     *testing.T
}

func newSite(t *testing.T, spec string) *siteBed {
	t.Helper()
	programs, archives := rig.Full(t)
	t.Setenv(site.StateDirEnv, t.TempDir())
	b := &siteBed{Rig: rig.New(t, spec, programs), hosts: map[string]installer.Host{}, t: t}
	b.Inputs.Images = archives
	for name, n := range b.Nodes {
		b.hosts[name] = n
	}
	var err error
	if b.site, err = site.Open(b.Inputs.Cluster, workload(t)); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *siteBed) plan() *site.Planned {
	b.t.Helper()
	found, err := facts.Gather(b.t.Context(), b.hosts)
	if err != nil {
		b.t.Fatal(err)
	}
	p, err := b.site.Plan(b.t.Context(), site.From{
		Facts: found, Given: b.Inputs.Facts,
		Supply: func(context.Context, *topology.Cluster) (programs, images map[string]installer.Blob, err error) {
			return b.Inputs.Programs, b.Inputs.Images, nil
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// timing says how long steps take.
type timing struct {
	t     *testing.T
	began time.Time
}

func (p timing) Step(installer.Phase, installer.Step) {}

func (p timing) Event(e installer.Event) {
	if e.Item == "" {
		p.t.Logf("%5.1fs %s, %s on %s: %.1fs", time.Since(p.began).Seconds(), e.Phase, e.Step, e.Host, e.Took.Seconds())
	}
}

// everything that a machine has and an installation could touch.
const everything = `exec 2>/dev/null
find /etc /opt /usr/local/bin /var/lib /var/log /run -maxdepth 4 -path /var/lib/dpkg -prune -o -path /var/lib/apt -prune -o -path /var/log/slipway -prune -o -path /run/slipway -prune -o -path /run/mount -prune -o -path /opt/slipway/store -prune -o -path '/run/netns/*' -prune -o \( -type d -printf 'd %p %m %u:%g\n' -o -type l -printf 'l %p %l\n' -o -type f -printf 'f %p %m %u:%g %s\n' -o -printf '%y %p\n' \) | sort
find /etc -type f -exec sha256sum {} + | sort
ip -o link | sed 's/^[0-9]*: //;s/ qlen.*//'
ip -4 -o addr | sed 's/^[0-9]*: //;s/valid_lft.*//'
ip -4 route show table all
ip rule
for t in filter nat mangle raw; do iptables-save -t $t | grep -v '^[#:]'; iptables-save -t $t | sed -n 's/^\(:[^ ]*\) .*/\1/p'; ip6tables-save -t $t | grep -v '^#' | sed 's/ \[.*//'; done
nft list tables
sysctl -a | grep -E '^net\.(ipv4|bridge|netfilter)|^vm\.overcommit|^kernel\.panic' | grep -vE 'tcp_mem|udp_mem|nf_conntrack_count|random|max_tw|tcp_fastopen_key|neigh\.|conf\.'
grep -v ^nsfs /proc/mounts | sed 's/ .*//' | sort | uniq -c
getent passwd
ps -eo args | grep -vE '^(ps|sed|sort|grep|sh|find|tr|cat|uniq)|exe' | sort
`

func (b *siteBed) state() string {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(b.Nodes)) {
		said, _ := b.Nodes[name].Sh(everything)
		for line := range strings.Lines(said) {
			fmt.Fprintf(&out, "%s: %s", name, line)
		}
	}
	return out.String()
}

// differ are the lines that came and went.
func differ(before, after string) string {
	var out []string
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for sign, lists := range map[string][2][]string{"+": {is, was}, "-": {was, is}} {
		other := map[string]bool{}
		for _, l := range lists[1] {
			other[l] = true
		}
		for _, l := range lists[0] {
			if !other[l] {
				out = append(out, sign+l)
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// The life of a site on machines that are bare at first: planned, applied, applied
// again, used, taken back.
func TestFull(t *testing.T) {
	b := newSite(t, "  components: full\n  network: {mode: flannel-vxlan}\n  nodes: [{name: master01, roles: [control-plane, etcd]}, {name: node01}, {name: node02}]\n")
	bare := b.state()
	p := b.plan()
	view, err := b.site.Look(t.Context(), b.hosts, p, p.Whole)
	if err != nil || len(view.Changes) == 0 || view.Rehearsed != "no" {
		t.Fatal(view, err)
	}
	var un *site.UnrehearsedError
	if err := b.site.CheckRehearsed(p); !errors.As(err, &un) {
		t.Error(err)
	}
	if got := b.state(); got != bare {
		t.Errorf("a plan changed the hosts:\n%s", differ(bare, got))
	}
	res, err := b.site.Apply(t.Context(), b.hosts, p, p.Whole, timing{t, time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d items changed in %v", res.Changed, view.Items, res.Took)
	if again := b.plan(); again.Hash != p.Hash {
		t.Errorf("the plan is another: %v", again.Items.Changed(p.Items))
	}
	if view, err = b.site.Look(t.Context(), b.hosts, p, p.Whole); err != nil || len(view.Changes) != 0 {
		t.Errorf("%v %+v", err, view)
	}
	if res, err = b.site.Apply(t.Context(), b.hosts, p, p.Whole, nil); err != nil || res.Changed != 0 {
		t.Error(res, err)
	}
	t.Run("no secret anywhere", b.noSecrets)
	f := &full{Rig: b.Rig, plan: p.Whole}
	f.kubectl(t, "rollout status deployment/web --timeout=5m")
	f.running(t)
	err = b.site.Reset(t.Context(), b.hosts, func(host string, undone []string, err error) {
		t.Logf("%s: %d items undone, %v", host, len(undone), err)
	})
	if err != nil {
		t.Fatal(err)
	}
	f.nothing(t)
	// The kernel takes namespaces of pods down in its own time.
	testnet.Eventually(t, 3*time.Minute, "all is as it was before", func() (bool, string) {
		got := b.state()
		return got == bare, differ(bare, got)
	})
}

// noSecrets looks for keys and tokens where people and programs read: in the
// operator's files, but for the store of keys itself, and in all command lines.
func (b *siteBed) noSecrets(t *testing.T) {
	var secrets []string
	err := filepath.WalkDir(b.site.PKI().Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".crt") || strings.HasSuffix(path, ".pub") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, line := range strings.Split(string(data), "\n") {
			if len(line) >= 16 && !strings.HasPrefix(line, "-----") {
				secrets = append(secrets, line)
			}
		}
		return err
	})
	if err != nil || len(secrets) < 10 {
		t.Fatal(len(secrets), err)
	}
	look := func(where, text string) {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s has a secret", where)
				return
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(b.site.Dir, "*.json*"))
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		look(f, string(data))
	}
	for name, n := range b.Nodes {
		argv, _ := n.Sh("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'; cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
		look("a command line of "+name, argv)
		logs, _ := n.Sh("cat /var/log/slipway/*")
		look("a log of "+name, logs)
	}
}
