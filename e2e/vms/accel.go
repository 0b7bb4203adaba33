package vms

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// probePatience is how long a virtual machine that the processor runs may take to
// begin. One that is emulated takes longer, and is not meant.
const probePatience = 20 * time.Second

// emulation is what works everywhere. Translated code of this many MB is kept: the
// API's server alone has some tens of MB of code, which become ten times as much.
var emulation = []string{"-accel", "tcg,tb-size=512", "-cpu", "max,la57=off"}

// accelerator says how machines are run: by the processor if /dev/kvm not only
// opens but boots the kernel, as is tried, in the directory.
func accelerator(image, dir string) []string {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return emulation
	}
	_ = f.Close()
	if kvm := []string{"-accel", "kvm", "-cpu", "host"}; boots(image, filepath.Join(dir, "probe.console"), kvm) {
		return kvm
	}
	return emulation
}

func boots(image, console string, accel []string) bool {
	cmd := qemu(image, 512, 1, accel, "vm.probe", "-nic", "none", "-serial", "file:"+console, "-pidfile", console+".pid")
	if err := cmd.Start(); err != nil {
		return false
	}
	end := time.AfterFunc(probePatience, func() { _ = cmd.Process.Kill() })
	defer end.Stop()
	_ = cmd.Wait()
	said, _ := os.ReadFile(console)
	return strings.Contains(string(said), "vm.probe answered")
}
