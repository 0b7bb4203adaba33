package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"slipway/installer/images"
)

// writtenImage is what `components image` says.
type writtenImage struct {
	Image string `json:"image"`
	File  string `json:"file"`
}

func (a *app) componentsImageCmd() *cobra.Command {
	var file, ref string
	c := &cobra.Command{
		Use: "image [NAME]", Short: "Write a container image of ours to a file",
		Long: `Write a container image into an archive in the OCI image layout: without a name the one
that the pods of 'slipway bench --kubeconfig' run, which has this very program and nothing
else; or one of ` + strings.Join(images.Names(), ", ") + `, whose components must have been built. Clusters that
Slipway made have or are given them; for others they are pushed to a registry that their
nodes reach, or imported on the nodes.`,
		Example: "  slipway components image -w slipway.tar\n" +
			"  skopeo copy oci-archive:slipway.tar docker://registry.example/slipway:v1\n" +
			"  slipway bench --kubeconfig ~/.kube/config --image registry.example/slipway:v1\n" +
			"  slipway components image echo -w echo.tar   # for slipway install verify --kubeconfig",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) == 1 && args[0] != selfImage {
				if ref != "" {
					return usageError("--ref is of the image %s", selfImage)
				}
				ref, err = copyImage(cmd.Context(), file, args[0])
			} else {
				ref, err = writeSelf(file, ref)
			}
			if err != nil {
				return err
			}
			w := writtenImage{ref, file}
			return a.print(w, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s: %s\n", w.File, w.Image)
				return err
			})
		},
	}
	c.Flags().StringVarP(&file, "write", "w", "slipway-image.tar", "the file to write")
	c.Flags().StringVar(&ref, "ref", "", "what the image is called; default slipway.local/slipway, with its sum as the tag")
	return c
}

// selfImage is the name of the image with this program.
const selfImage = "slipway"

// writeSelf writes this program's image, and says what it is called.
func writeSelf(path, ref string) (string, error) {
	program, err := os.Executable()
	if err == nil && ref == "" {
		ref, err = images.SelfRef(program)
	}
	if err != nil {
		return "", err
	}
	return ref, writeWhole(path, func(f *os.File) error { return images.WriteSelf(f, program, ref) })
}

// copyImage writes the archive of another image of ours.
func copyImage(ctx context.Context, path, name string) (string, error) {
	built, err := images.Build(ctx, "", name)
	var unknown *images.UnknownError
	if errors.As(err, &unknown) {
		return "", &coded{exitUsage, err}
	}
	if err != nil {
		return "", err
	}
	refs := slices.Sorted(maps.Keys(built))
	from, err := os.Open(built[refs[0]].Path)
	if err != nil {
		return "", err
	}
	defer from.Close() //nolint:errcheck // only read
	return strings.Join(refs, " "), writeWhole(path, func(f *os.File) error {
		_, err := io.Copy(f, from)
		return err
	})
}

// writeWhole leaves a whole file or none.
func writeWhole(path string, write func(*os.File) error) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return &coded{exitUsage, fmt.Errorf("write the image: %w", err)}
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	return os.Rename(f.Name(), path)
}
