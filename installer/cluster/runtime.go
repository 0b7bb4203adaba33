package cluster

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"slipway/installer"
	"slipway/topology"
)

// Where container runtimes look for plugins and configurations of networks.
const (
	cniBin  = "/opt/cni/bin"
	cniConf = "/etc/cni/net.d"
)

const ctr = binDir + "/ctr --namespace k8s.io"

// runtime is containerd with the images that need not come from a registry.
func (p *planner) runtime() (installer.Phase, error) {
	ph := installer.Phase{Title: "Container runtime",
		About: "kubelet says what shall run; containerd fetches and unpacks images and has runc start the processes, in namespaces and control groups of their own."}
	if len(p.kubelets()) == 0 {
		return ph, nil
	}
	units, err := on(p.kubelets(), p.containerd)
	if err != nil {
		return ph, err
	}
	ph.Steps = []installer.Step{{Name: "containerd", Why: "One shim a pod keeps the containers, so that containerd can be started again beneath them.", Work: units}}
	if len(p.Images) == 0 {
		return ph, nil
	}
	images, err := on(p.kubelets(), func(topology.NodeState) ([]installer.Item, error) { return p.imports(), nil })
	ph.Steps = append(ph.Steps, installer.Step{Name: "images", Why: "Given as archives, they need no registry.", Work: images})
	if err != nil {
		return ph, err
	}
	step, needed, err := p.standIn()
	if needed {
		ph.Steps = append(ph.Steps, step)
	}
	return ph, err
}

// kubelets are the nodes that run kubelet: all that pods are reached through.
// Masters are among them, tainted, so that their Node objects are somebody's.
func (p *planner) kubelets() []topology.NodeState {
	if !p.full() {
		return nil
	}
	return p.datapath()
}

// systemdCgroups reports whether systemd makes the control groups of a machine:
// it does where the machine is its own, with cgroup v2.
func (f Facts) systemdCgroups() bool { return !f.Shared && !f.CgroupV1 }

// containerd is the runtime's programs, configuration and unit.
func (p *planner) containerd(n topology.NodeState) ([]installer.Item, error) {
	items := []installer.Item{
		installer.Directory{Path: cniConf, Mode: 0o755},
		installer.Directory{Path: "/etc/containerd/certs.d", Mode: 0o755},
		installer.Directory{Path: "/var/lib/containerd", Mode: 0o700, Data: true},
		emptied("/var/lib/containerd"),
		installer.Directory{Path: "/opt/containerd", Mode: 0o711, Data: true}, // containerd's own, for programs that it loads
		installer.Directory{Path: "/var/lib/cni", Mode: 0o755, Data: true},    // addresses that plugins have given
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc"} {
		it, err := p.program(name, name)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	facts := p.Facts[n.Name]
	values := map[string]any{
		"Shared": facts.Shared, "SystemdCgroup": facts.systemdCgroups(), "Sandbox": p.image("pause"), "Bin": binDir, "CNIBin": cniBin, "CNIConf": cniConf,
	}
	text, err := render("containerd.toml", values)
	if err != nil {
		return nil, err
	}
	items = append(items, installer.File{Path: "/etc/containerd/config.toml", Mode: 0o644, Content: text})
	unit, err := service("containerd.service", values, items...)
	return append(items, runtimeCanGo(facts.CgroupRoot), unit, containers), err
}

// containers end with the runtime when it is taken away: nobody else would.
var containers = installer.Action{
	Name:  "containerd answers",
	Check: ctr + " version",
	Do:    "for i in 1 2 3 4 5 6 7 8 9 10; do " + ctr + " version >/dev/null 2>&1 && exit 0; sleep 0.5; done; exit 1",
	// The network namespaces of pods are containerd's as well. The kernel keeps one
	// for minutes while a connection that nobody ended properly is in it; the
	// machine's own end of its wire goes at once.
	Back: fmt.Sprintf(`for n in /run/netns/cni-*; do [ ! -e "$n" ] || ip -n "${n##*/}" link delete eth0 2>/dev/null || true; done
for t in $(%[1]s tasks ls -q); do %[1]s tasks kill -a -s KILL "$t" || true; done
for i in 1 2 3 4 5 6 7 8 9 10; do [ -n "$(%[1]s tasks ls -q)" ] || break; sleep 0.5; for t in $(%[1]s tasks ls -q); do %[1]s tasks rm -f "$t" || true; done; done
for c in $(%[1]s containers ls -q); do %[1]s containers rm "$c" || true; done
sed -n -e 's#^[^ ]* \(/run/containerd/[^ ]*\) .*#\1#p' -e 's#^[^ ]* \(/run/netns/cni-[^ ]*\) .*#\1#p' /proc/mounts | sort -r | while read -r m; do umount "$m" || true; done
rm -f /run/netns/cni-*`, ctr),
}

// image is the full name of the image that is called so; empty if none is given.
func (p *planner) image(name string) string {
	for _, full := range slices.Sorted(maps.Keys(p.Images)) {
		base, _, _ := strings.Cut(path.Base(full), ":")
		if base == name {
			return full
		}
	}
	return ""
}

// archiveLabel says which archive an image is from, so that another gets imported.
const archiveLabel = "slipway/archive"

// imports brings the images in, each archive once.
func (p *planner) imports() (out []installer.Item) {
	names := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(p.Images)) {
		sum := p.Images[name].Sum
		names[sum] = append(names[sum], name)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Images)) {
		if a := p.Images[name]; names[a.Sum][0] == name {
			out = append(out, Images{Names: names[a.Sum], Archive: a})
		}
	}
	return out
}

// Images are images that containerd has from an archive.
type Images struct {
	Names   []string // "slipway.local/pause:v1"; those that are in the archive
	Archive installer.Blob
}

// ID names the images.
func (i Images) ID() string { return "image " + strings.Join(i.Names, ", ") }

// Probe prints which archive the images are from.
func (i Images) Probe() string {
	return fmt.Sprintf(`list=$(%s images ls)
for n in %s; do printf '%%s\n' "$list" | sed -n "s#^$n .*%s=\\([0-9a-f]*\\).*#\\1#p" | grep . || echo absent; done | sort -u | tr '\n' ' ' | sed 's/ $//'`, ctr, strings.Join(i.Names, " "), archiveLabel)
}

// Want is the archive's sum.
func (i Images) Want() string { return i.Archive.Sum }

// Change imports the archive.
func (i Images) Change() string {
	return fmt.Sprintf("%[1]s images import --local %[2]s\nfor n in %[3]s; do %[1]s images label $n %[4]s=%[5]s; done", ctr, installer.StorePath(i.Archive.Sum), strings.Join(i.Names, " "), archiveLabel, i.Archive.Sum)
}

// Undo removes the images if they were not there.
func (i Images) Undo(before string) string {
	if before != "absent" && before != "unknown" {
		return ":"
	}
	return fmt.Sprintf("%s images rm %s || true", ctr, strings.Join(i.Names, " "))
}

// Blobs is the archive.
func (i Images) Blobs() []installer.Blob { return []installer.Blob{i.Archive} }
