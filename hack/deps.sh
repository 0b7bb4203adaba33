#!/usr/bin/env bash
# Installs what building and testing needs on Debian and Ubuntu. Does nothing,
# in a few milliseconds, when everything is there.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo

# command:package
need="ip:iproute2 iptables-legacy:iptables nft:nftables ping:iputils-ping tcpdump:tcpdump tshark:tshark
bird:bird2 curl:curl iperf3:iperf3 openssl:openssl tc:iproute2 sysctl:procps git:git chromium:chromium
conntrack:conntrack gcc:gcc"
missing=""
for pair in $need; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
# flanneld's udp backend is C. gcc without the headers compiles nothing.
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
go=$("$top/hack/go-path.sh")
if ! "$go" version >/dev/null 2>&1; then
	missing="$missing golang-go"
fi
if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "deps: install these yourself (this is not a Debian or Ubuntu machine):$missing" >&2
		exit 3
	fi
	echo "deps: installing$missing" >&2
	export DEBIAN_FRONTEND=noninteractive
	$sudo apt-get update -qq
	# Nothing that a package starts by itself is wanted: bird2 is only a peer in tests.
	$sudo env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

go=$("$top/hack/go-path.sh")
minor=$("$go" version | sed -nE 's/.*go1\.([0-9]+).*/\1/p')
if [ "${minor:-0}" -lt 21 ]; then
	# Too old to fetch a toolchain by itself, but a toolchain is a module like any other.
	want=$(sed -nE 's/^go ([0-9.]+)$/\1/p' "$top/go.mod")
	arch=$("$go" env GOARCH)
	echo "deps: fetching the Go $want toolchain" >&2
	dir=$(cd /tmp && GO111MODULE=on GOFLAGS=-mod=mod GONOSUMDB=golang.org/toolchain GONOSUMCHECK=1 "$go" mod download -json "golang.org/toolchain@v0.0.1-go$want.linux-$arch" | sed -nE 's/.*"Dir": "(.*)",?$/\1/p')
	chmod -R u+x "$dir/bin" "$dir/pkg/tool" 2>/dev/null || true
	mkdir -p "$top/bin"
	echo "$dir/bin/go" >"$top/bin/.go-path"
fi
