package topology

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"

	"slipway/internal/digest"
)

// Program is a program of the user's own, which nodes run in the place of the
// catalogue's.
type Program struct {
	Name ProgramName `yaml:"name" json:"name"`
	// File is where it is: relative to the cluster file as it is written there,
	// absolute once [Load] has read it.
	File string `yaml:"file" json:"file"`
	// SHA256 is what the file has to be, as 64 hexadecimal digits; [Load] fills it in.
	SHA256 string `yaml:"sha256,omitempty" json:"sha256,omitempty"`
}

// ProgramName is a program's, as it is called on the nodes.
type ProgramName string

// ProgramNames are those that a cluster's nodes run, and that can be the user's
// own. What runs in containers comes with their images.
func ProgramNames() []ProgramName {
	return []ProgramName{
		"etcd", "etcdctl", "etcdutl",
		"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet", "kube-proxy",
		"containerd", "containerd-shim-runc-v2", "ctr", "runc", "host-local", "loopback", "portmap", "bridge", "flanneld",
	}
}

var sumPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (v *validator) programs() {
	seen := map[ProgramName]string{}
	for i, p := range v.c.Spec.Programs {
		path := indexPath("spec.programs", i)
		if v.bad[path] {
			continue
		}
		switch {
		case v.bad[path+".name"]:
		case p.Name == "":
			v.errorf(path+".name", "missing-field", "want the name of a program")
		default:
			unique(v, seen, p.Name, path+".name", "duplicate-program")
		}
		if p.File == "" {
			v.errorf(path+".file", "missing-field", "the path is empty")
		}
		if p.SHA256 != "" && !sumPattern.MatchString(p.SHA256) {
			v.errorf(path+".sha256", "bad-sum", "%q is not 64 hexadecimal digits in lower case", shorten(p.SHA256))
		}
	}
}

// loadPrograms finds a cluster's own programs and what they are: whoever reads the
// cluster later finds the same, or that they were changed.
func loadPrograms(c *Cluster, doc *document, dir string) {
	for i := range c.Spec.Programs {
		p := &c.Spec.Programs[i]
		if p.File == "" {
			continue // reported by validate
		}
		path := indexPath("spec.programs", i)
		abs, err := filepath.Abs(ManifestPath(dir, p.File))
		var sum string
		if err == nil {
			sum, err = sumOf(abs)
		}
		switch {
		case err != nil:
			doc.report(SeverityError, doc.locate(path+".file"), path+".file", "missing-program", "cannot read %q: %s", p.File, reason(err))
		case p.SHA256 == "" || p.SHA256 == sum:
			p.File, p.SHA256 = abs, sum
		case sumPattern.MatchString(p.SHA256):
			doc.report(SeverityError, doc.locate(path+".sha256"), path+".sha256", "wrong-sum", "%q has the SHA-256 %s", p.File, sum)
		}
	}
}

// sumOf is the SHA-256 of a program's file.
func sumOf(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is not a file")
	}
	sum, _, err := digest.File(path)
	return sum, err
}
