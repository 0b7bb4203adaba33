package images

import (
	"archive/tar"
	"cmp"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"
)

// entry is one file of a layer: from a file of this machine, or data, or a link.
type entry struct {
	path string // absolute, in the image
	from string // a file of this machine
	data string
	link string // the target of a symbolic link
	mode int64  // 0755 where it is from a file, else 0644, unless set
	dir  bool
}

// base is what every image has: the mount points that a runtime expects, a place
// for temporary files, and who is who.
var base = []entry{
	{path: "/dev", dir: true}, {path: "/proc", dir: true}, {path: "/sys", dir: true},
	{path: "/tmp", dir: true, mode: 0o1777},
	{path: "/etc/passwd", data: "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
	{path: "/etc/group", data: "root:x:0:\nnogroup:x:65534:\n"},
	{path: "/etc/nsswitch.conf", data: "hosts: files dns\n"},
}

// complete adds the base and the directories above everything, and sorts: a
// layer's bytes depend on its files alone.
func complete(entries []entry) []entry {
	all := slices.Concat(base, entries)
	seen := map[string]bool{"/": true}
	for _, e := range all {
		seen[e.path] = true
	}
	for _, e := range slices.Clone(all) {
		for d := path.Dir(e.path); !seen[d]; d = path.Dir(d) {
			seen[d] = true
			all = append(all, entry{path: d, dir: true})
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.path, b.path) })
	return slices.CompactFunc(all, func(a, b entry) bool { return a.path == b.path })
}

// writeLayer writes a layer's tar.
func writeLayer(w io.Writer, entries []entry) error {
	t := tar.NewWriter(w)
	for _, e := range entries {
		if err := e.write(t); err != nil {
			return fmt.Errorf("put %s into a layer: %w", e.path, err)
		}
	}
	return t.Close()
}

func (e entry) write(t *tar.Writer) error {
	h := &tar.Header{Name: e.path[1:], Mode: cmp.Or(e.mode, 0o644), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
	switch {
	case e.dir:
		h.Name, h.Typeflag, h.Mode = h.Name+"/", tar.TypeDir, cmp.Or(e.mode, 0o755)
	case e.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
	case e.from != "":
		return e.copy(t, h)
	}
	h.Size = int64(len(e.data))
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(t, e.data)
	return err
}

func (e entry) copy(t *tar.Writer, h *tar.Header) error {
	f, err := os.Open(e.from)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Size, h.Mode = info.Size(), cmp.Or(e.mode, 0o755)
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}
