#!/bin/bash
# image.sh DIR PACKAGE… makes the files that test machines boot from: base.ext4
# (the file system, to be laid under an overlay), vmlinuz and initrd.gz. It is this
# machine's own distribution with its stock kernel, from where this machine's apt
# has both.
set -euo pipefail
dir=$1
shift
packages=$(IFS=,; echo "$*")
. /etc/os-release
case $ID in ubuntu) meta=linux-image-virtual ;; *) meta=linux-image-cloud-amd64 ;; esac
root=$dir/root
mkdir -p "$root" "$dir/kernel"

sources() {
	apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v code="$VERSION_CODENAME" '($1 == "Debian" || $1 == "Ubuntu") && index($3, code) == 1 { print "deb", $2, $3, $4 }' | sort -u
}
sources >"$dir/sources"
# A machine that was just made knows no package yet.
if ! [ -s "$dir/sources" ] || ! apt-cache show "$meta" >/dev/null 2>&1; then
	apt-get update -qq
	sources >"$dir/sources"
fi
[ -s "$dir/sources" ] || { echo "apt knows no packages of $ID $VERSION_CODENAME" >&2; exit 3; }
# It may reach them through a proxy only.
set --
while IFS= read -r line; do set -- "$@" --aptopt="$line"; done < <(apt-config dump | grep -iE '^Acquire::(http|https)::Proxy ' || true)
mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" "$@" \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	"$VERSION_CODENAME" "$root" - <"$dir/sources"

# The kernel is unpacked, not installed: an initramfs made for this one disk is
# a tenth of the distribution's, which counts where every instruction is emulated.
image=$(apt-cache depends "$meta" | awk '/Depends: linux-image/ { print $2; exit }')
modules=$(apt-cache depends "$meta" | awk '/Depends: linux-modules/ { print $2 }')
[ "$ID" != ubuntu ] || modules="$modules ${image/image/modules} ${image/image/modules-extra}"
(cd "$dir/kernel" && apt-get -o APT::Sandbox::User=root download -qq "$image" $modules && for deb in *.deb; do dpkg-deb -x "$deb" .; done)
version=$(ls "$dir/kernel/lib/modules")
mkdir -p "$root/usr/lib/modules"
mv "$dir/kernel/lib/modules/$version" "$root/usr/lib/modules/"
mkdir -p "$root/boot"
mv "$dir/kernel/boot/config-$version" "$root/boot/"
mv "$dir/kernel/boot/vmlinuz-$version" "$dir/vmlinuz"
chroot "$root" depmod "$version"

cat >"$root/usr/local/sbin/test-identity" <<'END'
#!/bin/sh
# What the machine is comes on the kernel's command line.
for a in $(cat /proc/cmdline); do
	case $a in
	vm.name=*) name=${a#*=} ;; vm.address=*) address=${a#*=} ;; vm.key=*) key=${a#*=} ;;
	esac
done
echo "$name" >/etc/hostname
hostname "$name"
# Once: what an installation adds stays.
grep -qw "$name" /etc/hosts 2>/dev/null || printf '127.0.0.1 localhost\n%s %s\n' "${address%/*}" "$name" >/etc/hosts
link=""
while [ -z "$link" ]; do
	link=$(ls /sys/class/net | grep '^e' | head -1)
	[ -n "$link" ] || sleep 0.2
done
ip link set "$link" up
ip addr replace "$address" dev "$link"
# The operator is the first of the segment, and leads nowhere.
ip route replace default via "${address%.*}.1"
echo "nameserver ${address%.*}.1" >/etc/resolv.conf
for home in /root /home/ops; do
	mkdir -p "$home/.ssh"
	echo "ssh-ed25519 $key test" >"$home/.ssh/authorized_keys"
	chmod 700 "$home/.ssh"
done
chown -R ops:ops /home/ops/.ssh
[ -f /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
END
chmod 755 "$root/usr/local/sbin/test-identity"
cat >"$root/etc/systemd/system/test-identity.service" <<'END'
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service systemd-udev-trigger.service local-fs.target
Before=network.target ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=infinity
ExecStart=/usr/local/sbin/test-identity
[Install]
WantedBy=multi-user.target
END
# On a busy machine that emulates them, services take minutes to start.
mkdir -p "$root/etc/systemd/system.conf.d"
printf '[Manager]\nDefaultTimeoutStartSec=30min\nDefaultTimeoutStopSec=10min\nDefaultDeviceTimeoutSec=30min\n' >"$root/etc/systemd/system.conf.d/slow.conf"
# Also those that say for themselves how long they take.
mkdir -p "$root/etc/systemd/system/service.d"
printf '[Service]\nTimeoutStartSec=30min\n' >"$root/etc/systemd/system/service.d/slow.conf"
wants=$root/etc/systemd/system/multi-user.target.wants
mkdir -p "$wants"
ln -sf ../test-identity.service "$wants/"
ln -sf /lib/systemd/system/ssh.service "$wants/"
# Nothing that takes time or reaches out.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer logrotate.timer getty@tty1.service systemd-timesyncd.service systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service systemd-resolved.service; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# Installed, and to be started by whoever wants them: also by the first boot's presets
# (systemd.preset(5)), which enable whatever there is.
mkdir -p "$root/etc/systemd/system-preset"
for unit in nginx.service haproxy.service nftables.service ipvsadm.service; do
	rm -f "$wants/$unit" "$root/etc/systemd/system/sysinit.target.wants/$unit"
	echo "disable $unit" >>"$root/etc/systemd/system-preset/00-test.preset"
done
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id" "$root/etc/hostname" "$root/var/lib/dbus/machine-id"
echo uninitialized >"$root/etc/machine-id"
mkdir "$root/opt/test"
printf '/dev/vda / ext4 rw,noatime 0 1\n/dev/vdb /opt/test ext4 ro,nofail 0 0\n' >"$root/etc/fstab"
chroot "$root" useradd -m -s /bin/bash ops
echo 'ops ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/ops"
chmod 440 "$root/etc/sudoers.d/ops"
printf 'UseDNS no\nPasswordAuthentication no\nMaxStartups 100\nHostKey /etc/ssh/ssh_host_ed25519_key\n' >"$root/etc/ssh/sshd_config.d/test.conf"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*

# The initramfs: the modules of a virtio disk and network, in order, and busybox.
ird=$dir/initrd
mkdir -p "$ird"/{bin,m,proc,dev,new,sys}
cp "$(command -v busybox)" "$ird/bin/busybox"
for module in virtio_pci virtio_blk virtio_net virtio_rng ext4; do
	chroot "$root" modprobe -S "$version" --show-depends "$module" 2>/dev/null | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r path; do
	file=$(basename "$path")
	case $file in
	*.zst) zstd -qdo "$ird/m/${file%.zst}" "$root$path"; file=${file%.zst} ;;
	*.xz) xz -dc "$root$path" >"$ird/m/${file%.xz}"; file=${file%.xz} ;;
	*) cp "$root$path" "$ird/m/" ;;
	esac
	echo "$file" >>"$ird/m/order"
done
cat >"$ird/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t proc p /proc
/bin/busybox mount -t devtmpfs d /dev
/bin/busybox mount -t sysfs s /sys
# Only whether this kernel boots on this accelerator was the question.
/bin/busybox grep -q vm.probe /proc/cmdline && echo vm.probe answered && /bin/busybox poweroff -f
for m in $(/bin/busybox cat /m/order); do /bin/busybox insmod "/m/$m"; done
n=0
while ! [ -b /dev/vda ] && [ $n -lt 3000 ]; do /bin/busybox usleep 20000; n=$((n + 1)); done
/bin/busybox mount -t ext4 -o rw,noatime /dev/vda /new
/bin/busybox umount /sys
/bin/busybox umount /proc
/bin/busybox mount --move /dev /new/dev
exec /bin/busybox switch_root /new /sbin/init
END
chmod 755 "$ird/init"
(cd "$ird" && find . | cpio -o -H newc --quiet | gzip -1) >"$dir/initrd.gz"

truncate -s 8G "$dir/base.ext4"
mke2fs -q -t ext4 -L root -m 0 -E lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0 -d "$root" "$dir/base.ext4"
rm -rf "$root" "$ird" "$dir/kernel" "$dir/sources"
