package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"slipway/installer/components"
	"slipway/installer/site"
	"slipway/lab"
	"slipway/lab/kube"
	"slipway/topology"
)

func (a *app) kubectlCmd() *cobra.Command {
	return &cobra.Command{
		Use: "kubectl ARGS...", Short: "Run kubectl on the API of a lab or of real hosts",
		Long: `Run the kubectl of the component catalogue as the administrator of a lab's cluster,
or with --site of one that was installed on real hosts. All that comes behind the word
kubectl is kubectl's; -L LAB or --site NAME goes before it.`,
		Example: `  slipway kubectl get pods -A -o wide
  slipway kubectl create deployment web --image=nginx --replicas=3
  slipway -L demo kubectl expose deployment web --type=NodePort --port=80
  slipway kubectl --site prod get nodes`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (args[0] == "--help" || args[0] == "-h") {
				return cmd.Help()
			}
			args, name, err := a.takeLab(args)
			if err != nil {
				return err
			}
			if name != "" {
				return a.kubectlOnSite(cmd.Context(), name, args)
			}
			return a.kubectl(cmd.Context(), args)
		},
	}
}

// takeLab reads --lab and --site where cobra leaves all flags alone: only before
// the first word, since kubectl has a flag -L of its own.
func (a *app) takeLab(args []string) (rest []string, site string, err error) {
	for len(args) > 0 {
		switch name, value, joined := strings.Cut(args[0], "="); {
		case joined && name == "--lab":
			a.lab, args = value, args[1:]
		case joined && name == "--site":
			site, args = value, args[1:]
		case args[0] == "-L" || args[0] == "--lab" || args[0] == "--site":
			if len(args) < 2 {
				return nil, "", usageError("%s needs a name", args[0])
			}
			if args[0] == "--site" {
				site = args[1]
			} else {
				a.lab = args[1]
			}
			args = args[2:]
		default:
			return args, site, nil
		}
	}
	return args, site, nil
}

// kubectl becomes kubectl.
func (a *app) kubectl(ctx context.Context, args []string) error {
	name, err := a.realLab()
	if err != nil {
		return err
	}
	config, err := kube.Kubeconfig(ctx, name)
	if err != nil {
		return err
	}
	return becomeKubectl(ctx, filepath.Join(lab.Dir(name), "kubeconfig"), config, args)
}

// kubectlOnSite becomes kubectl for a cluster on real hosts.
func (a *app) kubectlOnSite(ctx context.Context, name string, args []string) error {
	s, config, err := siteKubeconfig(name)
	if err != nil {
		return err
	}
	return becomeKubectl(ctx, filepath.Join(s.Dir, "kubeconfig"), config, args)
}

// siteKubeconfig is an administrator's way to the API of real hosts.
func siteKubeconfig(name string) (*site.Site, *clientcmdapi.Config, error) {
	s, err := site.Load(name)
	if err != nil {
		return nil, nil, &coded{exitUsage, err}
	}
	text, err := s.Kubeconfig()
	if err != nil {
		return nil, nil, err
	}
	config, err := clientcmd.Load(text)
	return s, config, err
}

// becomeKubectl writes a kubeconfig and becomes kubectl with it.
func becomeKubectl(ctx context.Context, path string, config *clientcmdapi.Config, args []string) error {
	built, err := components.Lookup(ctx, "kubernetes")
	if err != nil {
		return err
	}
	if err := kube.Write(path, config); err != nil {
		return err
	}
	env := append(os.Environ(), "KUBECONFIG="+path)
	if err := syscall.Exec(built.Path("kubectl"), append([]string{"kubectl"}, args...), env); err != nil {
		return fmt.Errorf("run kubectl: %w", err)
	}
	return nil
}

// errNoAPI reports a lab without an API.
var errNoAPI = errors.New("this lab has no API: it was made with `components: none` (`slipway up --components light` makes one that has)")

// realLab is the lab to work on, which must have real components.
func (a *app) realLab() (string, error) {
	name, err := a.labName()
	if err != nil {
		return "", err
	}
	st, err := lab.ReadState(name)
	if err != nil {
		return "", err
	}
	if !isReal(st.Cluster) {
		return "", usageError("lab %s: %w", name, errNoAPI)
	}
	return name, nil
}

func isReal(c *topology.Cluster) bool {
	return c.Spec.Components == topology.ComponentsLight || c.Spec.Components == topology.ComponentsFull
}

func (a *app) kubeconfigCmd() *cobra.Command {
	var merge bool
	var file, onSite string
	c := &cobra.Command{
		Use: "kubeconfig", Short: "Print or merge the kubeconfig of a lab or of real hosts",
		Long: `Print a kubeconfig with which the administrator of a lab's cluster reaches its API,
or merge it into a file of yours, whose other entries stay and whose current context
becomes the lab's. The API answers on a loopback port of this machine while the lab
is up; the port outlives a restart if it is free. With --site it is the API of a cluster
on real hosts, at its virtual address or its first master's.`,
		Example: `  slipway kubeconfig > lab.conf && kubectl --kubeconfig lab.conf get nodes
  slipway kubeconfig --merge                 # into $KUBECONFIG, else ~/.kube/config
  slipway kubeconfig --merge --file my.conf
  slipway kubeconfig --site prod > prod.conf`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := a.kubeconfigOf(cmd.Context(), onSite)
			if err != nil {
				return err
			}
			if !merge && file == "" {
				text, err := clientcmd.Write(*config)
				if err != nil {
					return err
				}
				_, err = a.out.Write(text)
				return err
			}
			if file == "" {
				file = clientcmd.NewDefaultPathOptions().GetDefaultFilename()
			}
			write := kube.Write
			if merge {
				write = kube.Merge
			}
			if err := write(file, config); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "slipway: %s has the context %s\n", file, config.CurrentContext)
			return nil
		},
	}
	c.Flags().StringVar(&onSite, "site", "", "that of a cluster on real hosts")
	c.Flags().BoolVar(&merge, "merge", false, "merge into $KUBECONFIG, else ~/.kube/config, or the file of --file")
	c.Flags().StringVar(&file, "file", "", "write to this file (mode 0600) instead of stdout")
	return c
}

// kubeconfigOf is that of a lab, or of real hosts.
func (a *app) kubeconfigOf(ctx context.Context, onSite string) (*clientcmdapi.Config, error) {
	if onSite != "" {
		_, config, err := siteKubeconfig(onSite)
		return config, err
	}
	name, err := a.realLab()
	if err != nil {
		return nil, err
	}
	return kube.Kubeconfig(ctx, name)
}
