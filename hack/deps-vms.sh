#!/usr/bin/env bash
# Installs what the tests with virtual machines need besides what hack/deps.sh
# installs: QEMU, and what an image is made with.
set -euo pipefail
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo

# command:package
missing=""
for pair in qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils mmdebstrap:mmdebstrap busybox:busybox-static cpio:cpio modprobe:kmod mke2fs:e2fsprogs; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
	echo "deps-vms: install these yourself (this is not a Debian or Ubuntu machine):$missing" >&2
	exit 3
fi
echo "deps-vms: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
