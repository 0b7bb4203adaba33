package cluster

import (
	"slipway/installer"
	"slipway/installer/images"
	"slipway/topology"
)

// StandInStep is the step that only a lab's nodes have.
const StandInStep = "stand-ins"

// standIn is, on a lab's nodes, the registry that answers for every image that
// cannot be pulled there: with the echo server.
func (p *planner) standIn() (installer.Step, bool, error) {
	echo, ok := p.Images[p.image("echo")]
	if !ok || !p.inLab() {
		return installer.Step{}, false, nil
	}
	work, err := on(p.kubelets(), func(topology.NodeState) ([]installer.Item, error) {
		program, err := p.program("slipway", "slipway")
		if err != nil {
			return nil, err
		}
		mirror := installer.File{Path: "/etc/containerd/certs.d/_default/hosts.toml", Mode: 0o644, Content: []byte(images.HostsTOML(images.StandInAddress))}
		unit, err := service("slipway-image-stand-in.service", map[string]any{"Bin": binDir, "Archive": installer.StorePath(echo.Sum)}, program)
		return []installer.Item{program, Archive{echo}, mirror, unit}, err
	})
	return installer.Step{
		Name: StandInStep, Work: work,
		Why: "A lab reaches no registry. For images that it does not have, a server that answers HTTP stands in, and says that it does.",
	}, true, err
}

// Archive is a file in a host's store that is read from there.
type Archive struct{ Blob installer.Blob }

// ID names the archive by its sum.
func (a Archive) ID() string { return "archive " + a.Blob.Sum[:12] }

// Probe prints whether the store has it.
func (a Archive) Probe() string {
	return "if [ -e " + installer.StorePath(a.Blob.Sum) + " ]; then echo there; else echo absent; fi"
}

// Want is that it is there.
func (a Archive) Want() string { return "there" }

// Change has nothing to do: archives are stored before changes begin.
func (a Archive) Change() string { return ":" }

// Undo leaves it, as it leaves programs: the store is told apart by sums.
func (a Archive) Undo(string) string { return ":" }

// Blobs is the archive.
func (a Archive) Blobs() []installer.Blob { return []installer.Blob{a.Blob} }
