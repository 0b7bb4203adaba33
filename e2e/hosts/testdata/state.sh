# Prints what a machine is, line by line, for a comparison of before and after.
# $1 is when it was made, in seconds since 1970: files to which nothing was done since
# then are those that all machines have (old). Their sums are known to who reads this.
# What is left out, and why:
#   /proc /sys /dev            the kernel's; what counts of it is printed below
#   /tmp /var/tmp              belongs to nobody
#   /run/systemd /run/user /run/udev /run/sudo /run/log /run/motd.dynamic, the journal,
#   /var/log/{btmp,wtmp,lastlog}
#                              change by themselves as somebody logs in
#   /{run,var/lib}/NetworkManager
#                              what it has seen, for itself
#   /run/sshd.pid              another when sshd was started again
#   /var/lib/systemd           notes of systemd's own about its timers and seeds
#   times of files             reading a directory's changes them
skip="-path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/tmp -o -path /run/systemd -o -path /run/user -o -path /run/udev -o -path /run/sudo -o -path /run/log -o -path /run/motd.dynamic -o -path /run/sshd.pid
	-o -path /var/log/journal -o -path /var/log/btmp -o -path /var/log/wtmp -o -path /var/log/lastlog -o -path /var/lib/systemd -o -path /run/NetworkManager -o -path /var/lib/NetworkManager"
for top in / /run /var/lib; do
	find $top -xdev \( $skip \) -prune -o -printf 'file %p %y %m %u:%g %l\n'
	case $top in /) touched="-newerct @$1" ;; *) touched=-true ;; esac # the others are the machine's own
	find $top -xdev \( $skip \) -prune -o -type f $touched -print0 | xargs -0r sha256sum 2>/dev/null | sed 's/^\([0-9a-f]*\)  \(.*\)/sum \2 \1/'
	find $top -xdev \( $skip \) -prune -o -type f ! $touched -printf 'old %p\n'
done | sort -u
systemctl list-unit-files --no-legend --no-pager --no-ask-password | awk '$1 !~ /^session-/ { print "unit file", $1, $2 }' | sort
# Sessions come and go with those who look.
systemctl list-units --all --no-legend --no-pager --plain --type=service,socket,timer,mount |
	awk '$1 !~ /^(session-|user@|user-runtime-dir@|run-user-)/ && $2 == "loaded" && $1 !~ /^(systemd-tmpfiles-clean|systemd-logind|systemd-hostnamed|systemd-timedated|dbus|ssh@)/ { print "unit", $1, $3 }' | sort
getent passwd | sed 's/^/user /'
getent group | sed 's/^/group /'
# An interface's number, and when a peer in another namespace came, are nobody's.
ip -br link | awk '{ print "link", $1, $2, $3 }'
ip -br addr | sed 's/^/address /'
ip route show table all | sed 's/^/route /'
ip rule | sed 's/^/rule /'
# Chains that the kernel always has count for nothing; a table that was made empty
# is as good as none.
for tables in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do
	$tables 2>/dev/null | sed -n -e 's/\[[0-9]*:[0-9]*\]//' -e '/^:[A-Z]* ACCEPT/d' -e "/^[-:]/s/^/$tables /p"
done
nft list tables | grep -v -e ' filter$' -e ' nat$' -e ' mangle$' -e ' raw$' | sed 's/^/nft /'
awk '$2 !~ "^/run/(user|credentials)" { print "mount", $2, $3 }' /proc/mounts | sort
ls /run/netns 2>/dev/null | sed 's/^/network namespace /'
ss -Hlntup | awk '{ print "listens", $1, $5 }' | sort -u
# Of programs that come and go with those who look, nothing is said.
ps -eo comm= | grep -v -x -e sshd -e bash -e ps -e sort -e sed -e grep -e sudo -e sh -e '(sd-pam)' -e systemd -e systemd-logind -e systemd-tmpfile -e systemd-userwor -e systemd-timedat -e systemd-hostnam | sort -u | sed 's/^/process /'
# Counters are no settings.
find /proc/sys/net -type f -perm -u+r ! -name nf_conntrack_count ! -name '*_count' -print0 | sort -z | xargs -0 grep -H '' 2>/dev/null | sed 's/^/setting /'
# Groups of units that are there above.
find /sys/fs/cgroup -mindepth 2 -type d ! -path '*/user.slice*' ! -path '*/system.slice/*' ! -path '*/init.scope*' | sort | sed 's/^/control group /'
true
