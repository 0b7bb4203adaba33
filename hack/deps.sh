#!/usr/bin/env bash
# deps.sh [labs|components|tests] installs what is needed on Debian and Ubuntu:
# to build, and for labs with everything that lessons use; also for building and
# running real components; also for all tests. Does nothing, in a few
# milliseconds, when everything is there.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
for_what=${1:-labs}

# command:package
labs="ip:iproute2 tc:iproute2 iptables-legacy:iptables nft:nftables ping:iputils-ping tcpdump:tcpdump curl:curl
conntrack:conntrack dig:bind9-dnsutils ethtool:ethtool sysctl:procps git:git sudo:sudo"
# flanneld's udp backend is C, and gcc without the headers compiles nothing. runc is
# linked with libseccomp, so that it runs on nodes that have no such library.
components="gcc:gcc /usr/include/stdio.h:libc6-dev /usr/include/seccomp.h:libseccomp-dev pkg-config:pkg-config
haproxy:haproxy nginx:nginx /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream keepalived:keepalived
ipset:ipset openssl:openssl busybox:busybox-static nc.openbsd:netcat-openbsd"
tests="tshark:tshark bird:bird2 iperf3:iperf3 chromium:chromium node:nodejs npm:npm sshd:openssh-server
systemd-nspawn:systemd-container mmdebstrap:mmdebstrap rpmbuild:rpm createrepo_c:createrepo-c dnf:dnf zypper:zypper"
case $for_what in
labs) need=$labs ;;
components) need="$labs $components" ;;
tests) need="$labs $components $tests" ;;
*) echo "deps: no such group: $for_what" >&2; exit 2 ;;
esac
missing=""
for pair in $need; do
	case $pair in
	/*) [ -e "${pair%%:*}" ] ;;
	*) command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] ;;
	esac && continue
	case " $missing " in *" ${pair##*:} "*) ;; *) missing="$missing ${pair##*:}" ;; esac
done
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
