// Package daytwo changes clusters that are installed: nodes come and go, programs
// and certificates are replaced, everything is kept and brought back. It goes by
// the installer's plans, one host at a time, and stops where a host is not well.
package daytwo
