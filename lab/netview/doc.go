// Package netview shows a running lab as a [trace.Network]: it reads each
// namespace when it is first asked for, finds out which namespace is at the
// other end of a device by asking the kernel, and adds what only the lab's
// daemon knows. Everything that was read can be recorded.
package netview
