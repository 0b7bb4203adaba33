package installer

import (
	"fmt"
	"strings"
)

// Block is a part of a file that others write to as well, between two marks.
type Block struct {
	Path    string
	Name    string
	Content string // whole lines
}

// ID names the block.
func (b Block) ID() string { return "block " + b.Name + " of " + b.Path }

func (b Block) marks() (begin, end string) {
	return "# BEGIN " + b.Name, "# END " + b.Name
}

// Probe prints a sum of what is between the marks.
func (b Block) Probe() string {
	begin, end := b.marks()
	return fmt.Sprintf("if grep -qxF %s %s 2>/dev/null; then sed -n '/^%s$/,/^%s$/p' %s | sed '1d;$d' | sha256sum | cut -d' ' -f1; else echo absent; fi", quote(begin), quote(b.Path), begin, end, quote(b.Path))
}

// Want is the content's.
func (b Block) Want() string { return sum([]byte(b.Content)) }

// Of is what a file has of the block.
func (b Block) Of(file []byte) []byte {
	begin, end := b.marks()
	_, rest, found := strings.Cut("\n"+string(file), "\n"+begin+"\n")
	if !found {
		return nil
	}
	inside, _, _ := strings.Cut("\n"+rest, "\n"+end+"\n")
	if inside == "" {
		return []byte{}
	}
	return []byte(inside[1:] + "\n")
}

// without prints the file without the block.
func (b Block) without() string {
	begin, end := b.marks()
	return fmt.Sprintf("sed '/^%s$/,/^%s$/d' %s", begin, end, quote(b.Path))
}

// Change puts the block at the file's end, in the place of an older one.
func (b Block) Change() string {
	begin, end := b.marks()
	return fmt.Sprintf("touch %[1]s\nmode=$(stat -c %%a %[1]s)\nown=$(stat -c %%U:%%G %[1]s)\n{ %[2]s; printf '%%s\\n' %[3]s; %[4]s printf '%%s\\n' %[5]s; } | put_file %[1]s \"$mode\" \"$own\"",
		quote(b.Path), b.without(), quote(begin), literal([]byte(b.Content)), quote(end))
}

// Undo takes the block out and leaves the rest.
func (b Block) Undo(string) string {
	return fmt.Sprintf("mode=$(stat -c %%a %[1]s)\nown=$(stat -c %%U:%%G %[1]s)\n%[2]s | put_file %[1]s \"$mode\" \"$own\"", quote(b.Path), b.without())
}

// Shown is the block alone.
func (b Block) Shown() (string, []byte, bool) { return b.Path, []byte(b.Content), false }
