// Package vms gives tests machines with a kernel of their own: QEMU runs this
// machine's distribution with the kernel that it ships, on taps of a bridge in a
// namespace that the rig made. What labs and the installer do is thereby tried on
// another kernel than the one that the tests run on, with its own modules,
// sysctls and reboots.
//
// Where /dev/kvm cannot boot that kernel, every instruction is emulated: a
// machine takes a minute to boot, and some programs twenty times as long as
// outside. Whoever waits here waits in minutes.
package vms
