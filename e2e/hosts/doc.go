// Package hosts gives tests machines that are real to the installer: each has its
// own systemd, sshd, users and file system, and a namespace for its network. They
// share this machine's kernel, and are called what they are: "SSH host, shared
// kernel". An operator, in a namespace and with a home of its own, reaches them by
// SSH alone, and runs slipway as people do.
//
// Nothing here touches the machine: its links, its kernel's settings and its
// control groups outside of the test's own stay as they are.
package hosts
