// Calico's node programs in one binary: which it is goes by the name it is run
// under, so that links to it share one file on disk and its pages in memory.
// Upstream's calico-node (node/cmd/calico-node) goes by flags instead, and has
// its debugger for eBPF besides, which is C.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/projectcalico/calico/cni-plugin/pkg/ipamplugin"
	"github.com/projectcalico/calico/cni-plugin/pkg/plugin"
	confdconfig "github.com/projectcalico/calico/confd/pkg/config"
	confd "github.com/projectcalico/calico/confd/pkg/run"
	felix "github.com/projectcalico/calico/felix/daemon"
	"github.com/projectcalico/calico/libcalico-go/lib/logutils"
	"github.com/projectcalico/calico/node/pkg/lifecycle/startup"
	"github.com/sirupsen/logrus"
)

// version is the release that manifests/calico.yaml of this commit installs. The
// module's own is no release of calico's, and its nodes refuse to start beside it.
const version = "v3.28.5"

// confdDir is where calico's image has confd's templates.
const confdDir = "/etc/calico/confd"

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "calico":
		plugin.Main(version)
	case "calico-ipam":
		ipamplugin.Main(version)
	case "calico-startup":
		logTo("startup")
		startup.VERSION = version
		startup.Run()
	case "calico-felix":
		logTo("felix")
		felix.Run("/etc/calico/felix.cfg", version, "", "")
	case "calico-confd":
		logTo("confd")
		c, err := confdconfig.InitConfig(true)
		if err != nil {
			fmt.Fprintln(os.Stderr, "calico-confd:", err)
			os.Exit(1)
		}
		c.ConfDir = confdDir
		confd.Run(c)
	default:
		names := []string{"calico", "calico-ipam", "calico-startup", "calico-felix", "calico-confd"}
		fmt.Fprintf(os.Stderr, "%s: run me as one of %s\n", name, strings.Join(names, ", "))
		os.Exit(2)
	}
}

// logTo begins the log of a daemon.
func logTo(component string) {
	logrus.SetOutput(os.Stdout)
	logrus.AddHook(&logutils.ContextHook{})
	logrus.SetFormatter(&logutils.Formatter{Component: component})
}
