package netns_test

import (
	"net"
	"testing"

	"slipway/internal/netns"
	"slipway/internal/testnet"
)

func TestAnonymousIsEmptyAndApart(t *testing.T) {
	testnet.Need(t, testnet.Root)
	here, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close() //nolint:errcheck // read only
	ns, err := netns.Anonymous()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close() //nolint:errcheck // read only

	ours, err := here.Inode()
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := ns.Inode()
	if err != nil {
		t.Fatal(err)
	}
	if ours == fresh {
		t.Fatal("the new namespace is the caller's")
	}
	if err := ns.Do(func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			if l.Flags&net.FlagUp != 0 {
				t.Errorf("%s is up in a new namespace", l.Name)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
