#!/bin/sh
# rootfs.sh DIR PROGRAM PACKAGE... packs the file system of a test machine: this
# machine's own distribution, from where this machine's apt has it, with some
# packages. PROGRAM is what it runs first when it boots.
set -eu
root=$1 first=$2
shift 2
packages=$(echo "$*" | tr ' ' ,)
. /etc/os-release
sources=$(mktemp)
trap 'rm -f "$sources"' EXIT
list() {
	apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v code="$VERSION_CODENAME" '($1 == "Debian" || $1 == "Ubuntu") && index($3, code) == 1 { print "deb", $2, $3, $4 }' | sort -u
}
list >"$sources"
# A machine that was just made knows no package yet.
[ -s "$sources" ] && find /var/lib/apt/lists -name '*Packages*' | grep -q . || { apt-get update -qq && list >"$sources"; }
[ -s "$sources" ] || { echo "apt knows no packages of $ID $VERSION_CODENAME" >&2; exit 3; }
# It may reach them through a proxy only.
set --
proxy=$(apt-config dump | grep -iE '^Acquire::(http|https)::Proxy ' || true)
[ -z "$proxy" ] || set -- --aptopt="$proxy"
mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" "$@" \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
	"$VERSION_CODENAME" "$root" - <"$sources"
first=$(realpath "$first")
cd "$root"
rm -rf var/cache/apt/* var/lib/apt/lists/* etc/apt/apt.conf.d/99mmdebstrap usr/share/doc usr/share/man
mkdir -p var/cache/apt/archives/partial var/lib/apt/lists/partial

# Whoever boots it says who it is.
rm -f etc/machine-id var/lib/dbus/machine-id etc/ssh/ssh_host_* etc/hostname etc/resolv.conf
# Nothing that takes time or reaches out.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer logrotate.timer \
	systemd-timesyncd.service systemd-networkd-wait-online.service systemd-resolved.service console-getty.service nginx.service haproxy.service keepalived.service nftables.service conntrackd.service \
	NetworkManager.service NetworkManager-wait-online.service NetworkManager-dispatcher.service; do
	rm -f etc/systemd/system/*.wants/"$unit"
	case $unit in nginx* | haproxy* | keepalived* | nftables* | systemd-resolved* | NetworkManager*) ;; *) ln -sf /dev/null "etc/systemd/system/$unit" ;; esac
done
rm -f etc/systemd/system/dbus-org.freedesktop.resolve1.service
# People who may log in, each with a way of its own to become root.
chroot . useradd --create-home --shell /bin/bash ops
chroot . useradd --create-home --shell /bin/bash asked
chroot . useradd --create-home --shell /bin/bash visitor
printf 'asked:let me in\n' | chroot . chpasswd
printf 'ops ALL=(ALL:ALL) NOPASSWD: ALL\nasked ALL=(ALL:ALL) ALL\n' >etc/sudoers.d/test
chmod 440 etc/sudoers.d/test
install -m 755 "$first" usr/local/sbin/test-machine
cat >etc/systemd/system/test-machine.service <<'END'
[Unit]
Description=What makes a container a machine
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/test-machine

[Install]
WantedBy=sysinit.target
END
mkdir -p etc/systemd/system/sysinit.target.wants
ln -sf ../test-machine.service etc/systemd/system/sysinit.target.wants/test-machine.service
printf 'UseDNS no\nPasswordAuthentication no\nAuthorizedKeysFile /etc/ssh/authorized_keys\nHostKey /etc/ssh/ssh_host_ed25519_key\nMaxStartups 100\n' >etc/ssh/sshd_config.d/test.conf
