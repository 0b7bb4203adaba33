package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"slipway/installer"
	"slipway/installer/components"
	"slipway/installer/images"
	"slipway/installer/verify"
	"slipway/internal/netns"
	"slipway/lab"
	"slipway/topology"
)

// Verification is how to verify a lab's cluster: kubectl on its masters, the client
// in its pods, on its nodes and on the machine outside.
func Verification(ctx context.Context, name string) (verify.Options, error) {
	var o verify.Options
	st, err := lab.Settled(ctx, name)
	if err != nil {
		return o, err
	}
	if !st.Complete || st.Snapshot == nil {
		return o, fmt.Errorf("lab %s is only partly up (`slipway up` repairs it)", name)
	}
	echo, err := components.Lookup(ctx, "echo")
	if err != nil {
		return o, err
	}
	if o.Image, err = images.Ref("echo"); err != nil {
		return o, err
	}
	o.Kubectl = verify.OnMasters(mastersOf(st))
	o.Outside = inNamespace(lab.NSOfMachine(name, lab.ExternalName), echo.Path("echo"))
	if st.Snapshot.Components == topology.ComponentsFull {
		return o, nil
	}
	// Containers do not run in a light lab: the client comes from this machine.
	program, err := blob(echo.Path("echo"), strings.TrimPrefix(echo.Sums["echo"], "sha256:"))
	o.DNS = st.Snapshot.ClusterDNS.String()
	o.Node = func(node string) verify.Runner { return verify.OnHost(lab.OpenMachine(name, node), program) }
	o.Pod = func(key, _ string) verify.Runner { return inNamespace(lab.NSOfPod(name, key), echo.Path("echo")) }
	return o, err
}

func mastersOf(st *lab.State) (out []installer.Host) {
	for _, n := range st.Snapshot.Nodes {
		if n.HasRole(topology.RoleControlPlane) {
			out = append(out, lab.OpenMachine(st.Lab, n.Name))
		}
	}
	return out
}

// inNamespace runs the echo program in one of the lab's network namespaces.
func inNamespace(name, program string) verify.Runner {
	return func(ctx context.Context, stdin []byte) ([]byte, error) {
		ns, err := netns.Open(name)
		if err != nil {
			return nil, err
		}
		defer ns.Close() //nolint:errcheck // the process stays in it
		argv := verify.Argv(program)
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		var out, said bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &said
		if err := ns.Do(cmd.Start); err != nil {
			return nil, err
		}
		if err := cmd.Wait(); err != nil {
			return out.Bytes(), errors.Join(err, errors.New(strings.TrimSpace(said.String())))
		}
		return out.Bytes(), nil
	}
}
