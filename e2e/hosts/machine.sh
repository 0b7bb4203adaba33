#!/bin/sh
# Runs in a test machine, first of all: what a container lacks that a machine has,
# without a way to the kernel that it shares.
set -u
# The controllers' groups are the machine's own from its top on.
for d in /sys/fs/cgroup/*/; do
	mount -o remount,rw,bind "$d" 2>/dev/null
done
# Settings of the whole kernel: programs read and write files of the machine's,
# which have the values that kubelet asks for.
mkdir -p /run/settings
stand_in() {
	[ -e "$1" ] || return 0
	file=/run/settings/$(echo "$1" | tr / -)
	echo "$2" >"$file"
	mount --bind "$file" "$1"
}
stand_in /proc/sys/vm/overcommit_memory 1
stand_in /proc/sys/vm/panic_on_oom 0
stand_in /proc/sys/kernel/panic 10
stand_in /proc/sys/kernel/panic_on_oops 1
stand_in /proc/sys/kernel/keys/root_maxkeys 1000000
stand_in /proc/sys/kernel/keys/root_maxbytes 25000000
id=$(cat /etc/machine-id)
real=$(readlink -f /sys/class/dmi/id/product_uuid)
stand_in "$real" "$(echo "$id" | sed 's/^\(........\)\(....\)\(....\)\(....\)/\1-\2-\3-\4-/')"
# Nothing ever comes from the kernel's log, and what goes there is lost.
[ -e /dev/kmsg ] || mknod -m 644 /dev/kmsg c 1 3
exit 0
