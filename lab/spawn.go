package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"slipway/lab/procs"
)

// Spawn starts one of this program's commands as a part of a lab: in a session
// of its own, with the lab's mark, by which `down` finds it, and with a log in
// the lab's directory.
func Spawn(st *State, command string, args ...string) error {
	exe, err := self()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(filesOf(st.Lab).dir, command+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start `slipway %s`: %w", command, err)
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	cmd := exec.Command(exe, append([]string{command, "--lab", st.Lab}, args...)...)
	cmd.Env = append(os.Environ(), procs.MarkEnv+"="+procMark(st.Lab, st.ID), StateDirEnv+"="+StateDir())
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start `slipway %s`: %w", command, err)
	}
	go cmd.Wait() //nolint:errcheck // whether it works is asked of the process itself
	return nil
}
