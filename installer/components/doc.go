// Package components knows the upstream programs that a lab can run in its
// nodes or be measured against, and builds them from their own Go modules, each
// with the versions that its go.mod and go.sum pin. The modules (components/NAME
// in the source tree) are part of this program, so that it builds them without
// the source tree; a Go toolchain, and for some a C compiler, has to be there.
package components
