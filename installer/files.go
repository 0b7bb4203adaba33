package installer

import (
	"fmt"
	"io/fs"
)

// Root owns what belongs to the system.
const Root = "root:root"

// File is a file with its content.
type File struct {
	Path    string
	Mode    fs.FileMode // permission bits
	Owner   string      // "user:group"; empty is Root
	Content []byte
	Secret  bool // never shown
}

// ID names the file.
func (f File) ID() string { return "file " + f.Path }

// Probe prints its kind, mode, owner and sum.
func (f File) Probe() string { return "file_state " + quote(f.Path) }

// Want is that of the content.
func (f File) Want() string {
	return fmt.Sprintf("file %o %s %s", f.Mode.Perm(), owner(f.Owner), sum(f.Content))
}

// Change puts the file in place as a whole.
func (f File) Change() string {
	return fmt.Sprintf("keep %s\n{ %s} | put_file %s %o %s", quote(f.Path), literal(f.Content), quote(f.Path), f.Mode.Perm(), quote(owner(f.Owner)))
}

// Undo removes the file, or puts back what was there.
func (f File) Undo(before string) string { return undoPath(f.ID(), f.Path, before) }

// Shown is the file's content.
func (f File) Shown() (string, []byte, bool) { return f.Path, f.Content, f.Secret }

func owner(o string) string {
	if o == "" {
		return Root
	}
	return o
}

const absent = "absent"

func undoPath(id, path, before string) string {
	if before == absent { // with what a crash may have left of it
		return "rm -f " + quote(path) + " " + quote(path+".part")
	}
	return fmt.Sprintf("put_back %s %s", tag(id), quote(path))
}

// Directory is a directory.
type Directory struct {
	Path  string
	Mode  fs.FileMode
	Owner string // empty is Root
	// Data: what programs put there goes with it when it is undone.
	Data bool
}

// ID names the directory.
func (d Directory) ID() string { return "directory " + d.Path }

// Probe prints its mode and owner.
func (d Directory) Probe() string { return "file_state " + quote(d.Path) }

// Want is its mode and owner.
func (d Directory) Want() string {
	return fmt.Sprintf("directory %o %s", d.Mode.Perm(), owner(d.Owner))
}

// Change makes it, and what it lies in.
func (d Directory) Change() string {
	p := quote(d.Path)
	return fmt.Sprintf("make_parents %s\nmkdir -p %s\nchmod %o %s\nchown %s %s", p, p, d.Mode.Perm(), p, quote(owner(d.Owner)), p)
}

// Undo removes a directory that was not there: if it is empty, or with the data
// in it. One that was there gets its mode and owner back.
func (d Directory) Undo(before string) string {
	p := quote(d.Path)
	if before == absent {
		if d.Data {
			return "rm -rf " + p
		}
		// Last of all: what lies in it may have to go first.
		return "printf '%s\\n' " + p + " >>\"$RECORDS/made\""
	}
	var mode, own string
	if _, err := fmt.Sscanf(before, "directory %s %s", &mode, &own); err != nil {
		return ":"
	}
	return fmt.Sprintf("chmod %s %s\nchown %s %s", quote(mode), p, quote(own), p)
}

// Program is a program from the store, at a path that is a link there.
type Program struct {
	Path string
	Blob Blob
}

// ID names the program.
func (p Program) ID() string { return "program " + p.Path }

// Probe prints where the link leads, and whether there is anything.
func (p Program) Probe() string {
	return fmt.Sprintf("if [ -L %[1]s ] && [ ! -e %[1]s ]; then echo dangling; else file_state %[1]s; fi", quote(p.Path))
}

// Want is a link to the blob.
func (p Program) Want() string { return "link " + StorePath(p.Blob.Sum) }

// Change sets the link.
func (p Program) Change() string {
	return fmt.Sprintf("keep %[1]s\nmake_parents %[1]s\nln -sfn %[2]s %[1]s.part\nmv -fT %[1]s.part %[1]s", quote(p.Path), quote(StorePath(p.Blob.Sum)))
}

// Undo removes the link, or puts back what was there.
func (p Program) Undo(before string) string { return undoPath(p.ID(), p.Path, before) }

// Blobs is the program itself.
func (p Program) Blobs() []Blob { return []Blob{p.Blob} }
