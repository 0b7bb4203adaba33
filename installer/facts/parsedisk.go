package facts

import (
	"slices"
	"strconv"
	"strings"
)

// disks is what is said of file systems, before it is put together.
type disks struct {
	places        [][2]string // a path, and what of it is there
	mounts        map[string][2]string
	sizes, inodes []string // rows of df, with headings
}

// mount takes a line of /proc/mounts: device, where, kind, options.
func (d *disks) mount(line string) {
	if words := strings.Fields(line); len(words) >= 4 {
		put(&d.mounts, words[1], [2]string{words[2], words[3]}) // the last is on top
	}
}

// all puts together what is known of each path. df has a row for each.
func (d *disks) all() (out []Disk) {
	for i, place := range d.places {
		words, ok := row(d.sizes, i, len(d.places))
		if !ok {
			continue // it was said on stderr why
		}
		disk := Disk{Path: place[0], Mount: words[5], Kind: d.mounts[words[5]][0]}
		disk.Size, disk.Free = amount(words[1])<<10, amount(words[3])<<10
		disk.ReadOnly = slices.Contains(strings.Split(d.mounts[words[5]][1], ","), "ro")
		if words, ok := row(d.inodes, i, len(d.places)); ok {
			disk.Inodes = amount(words[3])
		}
		out = append(out, disk)
	}
	return out
}

// row is the i-th of a table of df's that has rows for all paths: POSIX has device,
// blocks, used, available, capacity, where.
func row(table []string, i, all int) (words []string, ok bool) {
	if len(table) != all+1 {
		return nil, false
	}
	words = strings.Fields(table[i+1])
	return words, len(words) >= 6
}

// amount is a number, or 0 where a file system has none of something.
func amount(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
