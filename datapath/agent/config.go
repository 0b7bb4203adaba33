package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"

	"slipway/topology"
)

// Config is the agent's configuration file.
type Config struct {
	// Node is the node's name, as Kubernetes knows it; the host's name unless set.
	Node string `yaml:"node"`
	// Cluster is the path of the cluster file, whose network settings count.
	Cluster string `yaml:"cluster"`
	// Interface is the underlay device's name, or "auto": the one that has the
	// node's address in the registry or the cluster file, else that of the
	// default route.
	Interface string   `yaml:"interface"`
	Registry  Registry `yaml:"registry"`
	CNI       CNI      `yaml:"cni"`
	// SubnetFile is where users of flannel look for the node's lease.
	SubnetFile string `yaml:"subnetFile"`
	// StateDir is for what the agent needs while the machine runs; nothing in it
	// has to outlive a reboot.
	StateDir string `yaml:"stateDir"`
	// ForeignChains are prefixes of iptables chains to leave alone; kube-proxy's
	// and the kubelet's ("KUBE-") unless set.
	ForeignChains []string `yaml:"foreignChains"`
	Log           Log      `yaml:"log"`
}

// Registry says where the nodes find each other: exactly one is set.
type Registry struct {
	Kube *KubeRegistry `yaml:"kube"`
	Etcd *EtcdRegistry `yaml:"etcd"`
}

// KubeRegistry is the Kubernetes API: each Node object is a lease.
type KubeRegistry struct {
	// Kubeconfig is a file; empty: the pod's own service account.
	Kubeconfig string `yaml:"kubeconfig"`
}

// EtcdRegistry is an etcd with flannel's layout of keys.
type EtcdRegistry struct {
	Endpoints []string `yaml:"endpoints"` // URLs
	Prefix    string   `yaml:"prefix"`    // /coreos.com/network unless set
	CA        string   `yaml:"ca"`        // files, for TLS
	Cert      string   `yaml:"cert"`
	Key       string   `yaml:"key"`
	// CreateConfig writes the network's configuration from the cluster file
	// where there is none.
	CreateConfig bool `yaml:"createConfig"`
}

// CNI says what container runtimes are told.
type CNI struct {
	// Dir is where the runtime looks for configurations; /etc/cni/net.d unless
	// set. "none": tell it nothing.
	Dir string `yaml:"dir"`
	// BinDir is where the runtime finds plugins; /opt/cni/bin unless set. The
	// plugin portmap, for hostPort, takes part if it is there.
	BinDir string `yaml:"binDir"`
	// DataDir is where the IPAM plugin keeps its reservations;
	// /var/lib/cni/networks unless set.
	DataDir string `yaml:"dataDir"`
}

// Log says how much the agent tells, on stderr.
type Log struct {
	Level  string `yaml:"level"`  // debug | info | warn | error; info unless set
	Format string `yaml:"format"` // text | json; text unless set
}

// Where things are unless the configuration says otherwise.
const (
	// DefaultConfig is where the command looks for its configuration.
	DefaultConfig = "/etc/slipway/agent.yaml"

	defaultCluster    = "/etc/slipway/cluster.yaml"
	defaultConfDir    = "/etc/cni/net.d"
	defaultBinDir     = "/opt/cni/bin"
	defaultDataDir    = "/var/lib/cni/networks"   // host-local's own (plugins/ipam/host-local/backend/disk)
	defaultSubnetFile = "/run/flannel/subnet.env" // flannel main.go, --subnet-file
	defaultStateDir   = "/run/slipway-agent"
	defaultEtcdPrefix = "/coreos.com/network" // flannel main.go, --etcd-prefix
	autoInterface     = "auto"
	noConf            = "none"
)

// LoadConfig reads a configuration file: strict, with defaults filled in and
// everything that is wrong in one error.
func LoadConfig(path string) (*Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the agent's configuration: %w", err)
	}
	c := &Config{}
	if err := yaml.UnmarshalWithOptions(raw, c, yaml.Strict()); err != nil {
		return nil, &ConfigError{path, err}
	}
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, &ConfigError{path, err}
	}
	return c, nil
}

// ConfigError is a configuration that cannot be used.
type ConfigError struct {
	Path string
	Err  error
}

// Error names the file.
func (e *ConfigError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap is what is wrong with it.
func (e *ConfigError) Unwrap() error { return e.Err }

func (c *Config) setDefaults() error {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&c.Cluster, defaultCluster}, {&c.Interface, autoInterface}, {&c.CNI.Dir, defaultConfDir},
		{&c.CNI.BinDir, defaultBinDir}, {&c.CNI.DataDir, defaultDataDir},
		{&c.SubnetFile, defaultSubnetFile}, {&c.StateDir, defaultStateDir}, {&c.Log.Level, "info"}, {&c.Log.Format, "text"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if c.ForeignChains == nil {
		c.ForeignChains = []string{"KUBE-"}
	}
	if e := c.Registry.Etcd; e != nil && e.Prefix == "" {
		e.Prefix = defaultEtcdPrefix
	}
	if c.Node != "" {
		return nil
	}
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find the node's name: %w", err)
	}
	c.Node = strings.ToLower(name)
	return nil
}

func (c *Config) check() error {
	var errs []error
	r := c.Registry
	switch {
	case (r.Kube == nil) == (r.Etcd == nil):
		errs = append(errs, errors.New(`registry: needs one of "kube" and "etcd"`))
	case r.Etcd != nil && len(r.Etcd.Endpoints) == 0:
		errs = append(errs, errors.New("registry.etcd.endpoints: needs at least one URL"))
	case r.Etcd != nil && (r.Etcd.Cert == "") != (r.Etcd.Key == ""):
		errs = append(errs, errors.New("registry.etcd: cert and key go together"))
	}
	for name, p := range map[string]string{"cluster": c.Cluster, "subnetFile": c.SubnetFile, "stateDir": c.StateDir, "cni.dataDir": c.CNI.DataDir, "cni.binDir": c.CNI.BinDir} {
		if !filepath.IsAbs(p) {
			errs = append(errs, fmt.Errorf("%s: %q is not an absolute path", name, p))
		}
	}
	if c.CNI.Dir != noConf && !filepath.IsAbs(c.CNI.Dir) {
		errs = append(errs, fmt.Errorf("cni.dir: %q is neither an absolute path nor %q", c.CNI.Dir, noConf))
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		errs = append(errs, fmt.Errorf("log.level: %q is not one of debug, info, warn, error", c.Log.Level))
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		errs = append(errs, fmt.Errorf("log.format: %q is not one of text, json", c.Log.Format))
	}
	if len(c.Interface) >= 16 || strings.ContainsAny(c.Interface, "/ ") {
		errs = append(errs, fmt.Errorf("interface: %q is no device's name", c.Interface))
	}
	return errors.Join(errs...)
}

// LogLevel is the configured one.
func (c *Config) LogLevel() slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(c.Log.Level)) // was checked
	return l
}

// loadCluster reads the cluster file that the configuration names.
func (c *Config) loadCluster() (*topology.Cluster, error) {
	cluster, diags, err := topology.Load(c.Cluster)
	if err == nil {
		err = diags.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("cluster file %s: %w", c.Cluster, err)
	}
	if c.Registry.Etcd != nil && cluster.Spec.Network.Mode.IsCalico() {
		return nil, fmt.Errorf("mode %s: the etcd registry has flannel's layout, which knows no address blocks: use the kube registry", cluster.Spec.Network.Mode)
	}
	return cluster, nil
}
