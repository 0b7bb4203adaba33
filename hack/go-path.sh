#!/usr/bin/env bash
# Prints the go command that builds this project: the one on PATH if it is new
# enough (or can fetch the toolchain that go.mod asks for), else the toolchain
# that hack/deps.sh put into the module cache.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
for go in go /usr/local/go/bin/go /usr/lib/go/bin/go; do
	command -v "$go" >/dev/null 2>&1 || continue
	minor=$("$go" version 2>/dev/null | sed -nE 's/.*go1\.([0-9]+).*/\1/p')
	# From 1.21 on the go command knows about toolchains (go.dev/doc/toolchain).
	if [ "${minor:-0}" -ge 21 ]; then
		command -v "$go"
		exit 0
	fi
done
cat "$top/bin/.go-path" 2>/dev/null || echo go
