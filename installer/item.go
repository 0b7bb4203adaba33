package installer

// Item is one thing that a host should have or be. All of it is text for a POSIX
// shell on the host, so that a whole step takes one connection: each method but
// ID returns a fragment that runs with `set -eu` and the functions of prelude.sh.
type Item interface {
	// ID names the item; no other of a host has the same: "file /etc/hosts".
	ID() string
	// Probe prints, in one line, the state that is there.
	Probe() string
	// Want is the line that Probe prints where nothing is to be done.
	Want() string
	// Change makes it so. It may be cut off anywhere and run again.
	Change() string
	// Undo goes back to the state that Probe printed before the first change.
	Undo(before string) string
}

// Carrier is an item that needs blobs in the host's store.
type Carrier interface{ Blobs() []Blob }

// Shower is an item whose content can be shown in a diff.
type Shower interface {
	// Path is the file, Content what it is to hold; secret content is not shown.
	Shown() (path string, content []byte, secret bool)
}

// Commander is an item that is a command, which can be shown.
type Commander interface {
	// Command is what is run; a secret one is not shown.
	Command() (script string, secret bool)
}

// Speaker is an item that can say why it is not as wanted.
type Speaker interface {
	// Words prints it.
	Words() string
}
