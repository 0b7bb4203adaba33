#!/usr/bin/env bash
# Runs golangci-lint, built from the version pinned in hack/tools/go.mod.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
go=$(hack/go-path.sh)
out=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$out" ]; then
	echo "not formatted:" $out >&2
	exit 1
fi
(cd hack/tools && "$go" build -o "$top/bin/golangci-lint" github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
exec bin/golangci-lint run ./...
