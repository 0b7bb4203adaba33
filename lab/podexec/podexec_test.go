package podexec

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"slipway/internal/testnet"
)

// specEnv makes the test binary run a spec instead of tests.
const specEnv = "PODEXEC_TEST_SPEC"

func TestMain(m *testing.M) {
	if raw := os.Getenv(specEnv); raw != "" {
		var s Spec
		err := json.Unmarshal([]byte(raw), &s)
		if err == nil {
			err = Exec(s)
		}
		fmt.Fprintln(os.Stderr, err)
		var n *NotRunError
		if errors.As(err, &n) {
			os.Exit(n.Code)
		}
		os.Exit(99)
	}
	os.Exit(m.Run())
}

func enter(t *testing.T, s Spec) (string, int) {
	t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), specEnv+"="+string(raw))
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func spec(t *testing.T, argv ...string) Spec {
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "podnic0", "10.99.0.1/24", b, "other0", "")
	return Spec{
		NetNS: a.Name(), Hostname: "web-0", Scratch: t.TempDir(), Env: []string{"PATH=" + os.Getenv("PATH")}, Argv: argv,
		Files: map[string][]byte{"/etc/resolv.conf": []byte("nameserver 10.96.0.10\n"), "/etc/hosts": []byte("10.99.0.1 web-0\n")},
	}
}

func TestCommandSeesItsPlace(t *testing.T) {
	testnet.Need(t, testnet.Root)
	before := machine(t)
	out, code := enter(t, spec(t, "sh", "-c", "hostname; cat /etc/resolv.conf /etc/hosts; ls /sys/class/net; ls -d /sys/fs/cgroup/*"))
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	for _, want := range []string{"web-0\n", "nameserver 10.96.0.10\n", "10.99.0.1 web-0\n", "\npodnic0\n", "/sys/fs/cgroup/"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	own, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, dev := range own {
		if dev.Name() != "lo" && strings.Contains(out, "\n"+dev.Name()+"\n") {
			t.Errorf("the machine's device %s shows:\n%s", dev.Name(), out)
		}
	}
	if after := machine(t); after != before {
		t.Errorf("the machine was changed:\nbefore %s\nafter %s", before, after)
	}
}

// machine is what entering a pod must not change.
func machine(t *testing.T) string {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	resolv, _ := os.ReadFile("/etc/resolv.conf") // may not exist
	hosts, _ := os.ReadFile("/etc/hosts")
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(mounts)) {
		if !strings.Contains(line, "nsfs") { // other tests' namespaces come and go
			kept = append(kept, line)
		}
	}
	return fmt.Sprint(host, string(resolv), string(hosts), kept)
}

// Files that the machine does not have appear, and those next to them that it
// has are replaced all the same, in whatever order.
func TestMissingFilesAppear(t *testing.T) {
	testnet.Need(t, testnet.Root)
	missing := []string{"/etc/slipway-test-1.conf", "/etc/slipway-test-2.conf"}
	s := spec(t, "cat", missing[0], missing[1], "/etc/hosts", "/etc/resolv.conf")
	s.Files[missing[0]], s.Files[missing[1]] = []byte("one\n"), []byte("two\n")
	want := "one\ntwo\n" + string(s.Files["/etc/hosts"]) + string(s.Files["/etc/resolv.conf"])
	for range 8 { // maps are walked in random order
		if out, code := enter(t, s); code != 0 || out != want {
			t.Fatalf("exit code %d: %s\nwant %s", code, out, want)
		}
	}
	for _, path := range missing {
		if _, err := os.Stat(path); err == nil {
			t.Fatalf("%s was written to the machine", path)
		}
	}
}

// What the command writes to its /etc/hosts stays with it.
func TestWritesStayInside(t *testing.T) {
	testnet.Need(t, testnet.Root)
	before := machine(t)
	if out, code := enter(t, spec(t, "sh", "-c", "echo 1.2.3.4 x >>/etc/hosts && hostname other && ip addr add 10.99.0.9/32 dev podnic0")); code != 0 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	if after := machine(t); after != before {
		t.Errorf("the machine was changed:\nbefore %s\nafter %s", before, after)
	}
}

func TestExitCodes(t *testing.T) {
	testnet.Need(t, testnet.Root)
	for _, c := range []struct {
		argv []string
		want int
	}{
		{[]string{"sh", "-c", "exit 7"}, 7},
		{[]string{"no-such-command"}, CodeNotFound},
		{[]string{"/etc/hostname"}, CodeNotExecutable},
	} {
		if out, code := enter(t, spec(t, c.argv...)); code != c.want {
			t.Errorf("%v: exit code %d, want %d: %s", c.argv, code, c.want, out)
		}
	}
}
