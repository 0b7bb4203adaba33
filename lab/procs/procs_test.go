package procs

import (
	"os/exec"
	"strconv"
	"testing"
)

// A process is found from the moment on at which whoever starts it knows that it runs:
// what closes on exec, as a lab's lock, is closed before the kernel shows the
// environment.
func TestFoundAtOnce(t *testing.T) {
	for i := range 300 {
		entry := MarkEnv + "=procs-test/" + strconv.Itoa(i)
		cmd := exec.Command("/bin/cat")
		cmd.Env = []string{entry}
		in, err := cmd.StdinPipe() // it ends when this is closed
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		found := has(cmd.Process.Pid, entry)
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if !found {
			t.Fatalf("process %d of 300 was not found", i)
		}
	}
}
