# What a machine is and has, one fact a line: its name and its fields, apart by
# tabs. POSIX sh; it changes nothing. Lists of what is asked for are set before.
export LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

tab=$(printf '\t')

# say NAME FIELD... prints a fact.
say() {
	line=$1
	shift
	for field; do line="$line$tab$field"; done
	printf '%s\n' "$line"
}

# Lines after \001 and a name are facts of that name, until \001 alone.
begin() { printf '\001%s\n' "$1"; }
end() { printf '\n\001\n'; }

# each NAME COMMAND... prints every line of a command as a fact.
each() {
	name=$1
	shift
	if command -v "$1" >/dev/null 2>&1; then
		begin "$name"
		"$@" 2>/dev/null
		end
	fi
}

# Processes are what takes time here: one for a command, and one for what stands in
# $(…). So programs are asked once for all, and their words taken apart elsewhere.

# first FILE sets text to its first line.
first() {
	text=
	{ [ -r "$1" ] && read -r text <"$1"; } 2>/dev/null || true
}

# told NAME FILE prints a file's first line as a fact.
told() {
	first "$2"
	say "$1" "$text"
}

# soon COMMAND... bounds a program that may wait for a service.
soon() {
	if command -v timeout >/dev/null 2>&1; then timeout 5 "$@"; else "$@"; fi
}

clock() { say clock "$1" "$(date +%s.%N)"; }

system() {
	if [ -r /etc/os-release ]; then each os cat /etc/os-release; else each os cat /usr/lib/os-release; fi
	each uname uname -n -r -m
	told init /proc/1/comm
	while read -r key real text; do
		if [ "$key" = Uid: ]; then say uid "${text%%[!0-9]*}"; fi
	done </proc/self/status
	told machine-id /etc/machine-id
	told product-uuid /sys/class/dmi/id/product_uuid
	say cpus "$(nproc 2>/dev/null || grep -c ^processor /proc/cpuinfo)"
	while read -r line; do
		case $line in
		MemTotal:*) say memory "$line" ;;
		MemAvailable:*) say memory "$line" && break ;;
		esac
	done </proc/meminfo
	while read -r line; do
		case $line in Filename*) ;; *) say swap "$line" ;; esac
	done </proc/swaps
	first /etc/timezone
	say zone "$(readlink -f /etc/localtime 2>/dev/null)" "$text" "$(date +%z)"
	if [ -d /run/systemd/system ] && command -v timedatectl >/dev/null 2>&1; then
		say synchronized "$(soon timedatectl show -p NTPSynchronized --value 2>/dev/null)"
	fi
}

# resolvers tells which name servers there are. A machine without the first file is
# told of as well.
resolvers() {
	for f in $RESOLVERS; do
		servers=
		if [ -r "$f" ]; then
			while read -r key value rest || [ -n "$key" ]; do
				if [ "$key" = nameserver ]; then servers="$servers${servers:+ }$value"; fi
			done <"$f"
		fi
		say resolver "$f" "$servers"
	done
}

virtualization() {
	kind=
	if command -v systemd-detect-virt >/dev/null 2>&1; then kind=$(systemd-detect-virt 2>/dev/null); fi
	say virt "$kind" "$(readlink /proc/self/ns/pid 2>/dev/null)"
}

# disks tells of the file systems that paths are on, or will be.
disks() {
	all=
	for d in $DIRECTORIES; do
		at=$d
		while [ ! -e "$at" ] && [ "$at" != / ]; do
			at=${at%/*}
			at=${at:-/}
		done
		say place "$d" "$at"
		all="$all $at"
	done
	each mount cat /proc/mounts
	each size df -P -k $all
	each inodes df -P -i $all
}

network() {
	for dir in /sys/class/net/*; do
		[ -r "$dir/address" ] || continue
		kind=
		while IFS='=' read -r key value; do
			if [ "$key" = DEVTYPE ]; then kind=$value; fi
		done <"$dir/uevent"
		real=
		if [ -e "$dir/device" ]; then real=physical; fi
		words=
		for f in address mtu type flags; do
			first "$dir/$f"
			words="$words$tab$text"
		done
		printf 'link\t%s\t%s\t%s%s\n' "${dir##*/}" "$kind" "$real" "$words"
	done
	each address ip -o address show
	each route ip -4 route show
	each route6 ip -6 route show default
	if command -v ss >/dev/null 2>&1; then
		each socket ss -ltunp # once for both: it looks through all processes
	else
		each proc-tcp cat /proc/net/tcp
		each proc-tcp cat /proc/net/tcp6
		each proc-udp cat /proc/net/udp
		each proc-udp cat /proc/net/udp6
	fi
}

# rules prints what is in the way of packets, and whose chains there are, of what
# iptables-save prints, with a line that names the family before each.
rules() {
	awk '
		function whose() { for (p in owned) { printf "chains\t%s\t%s\t%d\n", family, p, owned[p]; delete owned[p] }; denied = 0 }
		/^family / { whose(); family = $2 }
		/^\*/ { table = substr($1, 2) }
		/^:/ {
			chain = substr($1, 2)
			if ($2 != "-") printf "policy\t%s\t%s\t%s\t%s\n", family, table, chain, $2
			if (match(chain, /^(KUBE-|FLANNEL-|CNI-|CILIUM_|cali[-]|WEAVE)/)) owned[substr(chain, 1, RLENGTH)]++
		}
		/^-A (INPUT|FORWARD|OUTPUT) .*-j (DROP|REJECT)/ { if (denied++ < 20) printf "deny\t%s\t%s\t%s\n", family, table, $0 }
		END { whose() }'
}

# save FAMILY COMMAND prints the rules of a family, if there is such a command.
save() {
	if command -v "$2" >/dev/null 2>&1; then
		echo "family $1"
		"$2" 2>/dev/null
	fi
}

firewall() {
	told selinux /sys/fs/selinux/enforce
	told apparmor /sys/module/apparmor/parameters/enabled
	if [ -r /etc/ufw/ufw.conf ]; then say ufw "$(sed -n 's/^ENABLED=//p' /etc/ufw/ufw.conf)"; fi
	if command -v firewall-cmd >/dev/null 2>&1; then say firewalld "$(soon firewall-cmd --state 2>/dev/null)"; fi
	# Which backend plain iptables has, and what is left in the other.
	version=$(iptables-restore --version 2>/dev/null)
	case $version in
	*'(nf_tables)') say iptables nft; other=iptables-legacy-save ;;
	*v1*) say iptables legacy; other=iptables-nft-save ;;
	*) other=none-such ;;
	esac
	# Not -S: it would load the module of a table that nobody has.
	{ save ip iptables-save; save ip6 ip6tables-save; save ip "$other"; } | rules
	if command -v nft >/dev/null 2>&1; then
		nft list chains 2>/dev/null | awk '
			$1 == "table" { table = $2 "\t" $3; printf "nft-table\t%s\n", table }
			$1 == "chain" { chain = $2 }
			$1 == "type" && / policy drop;/ { printf "nft-drop\t%s\t%s\t%s\n", table, chain, $4 }'
	fi
}

kernel() {
	read -r key key release text </proc/version
	for m in $MODULES; do
		state=missing
		if [ -d "/sys/module/$m" ]; then
			state=loaded
		elif [ "$m" = br_netfilter ] && [ -d /proc/sys/net/bridge ]; then
			state=loaded
		elif [ "$m" = overlay ] && grep -qw overlay /proc/filesystems; then
			state=loaded
		elif [ "$m" = nf_tables ] && nft list tables >/dev/null 2>&1; then
			state=loaded
		elif [ ! -d "/lib/modules/$release" ]; then
			state=unknown
		elif modprobe -n -q "$m" 2>/dev/null || grep -qs "/$m[.]ko" "/lib/modules/$release/modules.builtin" "/lib/modules/$release/modules.dep"; then
			state=available
		fi
		say module "$m" "$state"
	done
	# Not read by the shell, which takes a byte at a time: the kernel gives the first alone.
	( cd /proc/sys && each sysctl grep -s '' /dev/null $SYSCTLS )
	if [ -r /sys/fs/cgroup/cgroup.controllers ]; then
		first /sys/fs/cgroup/cgroup.controllers
		say cgroup 2 "$text"
	else
		say cgroup 1 "$(awk '!/^#/ && $4 == 1 { printf "%s%s", space, $1; space = " " }' /proc/cgroups 2>/dev/null)"
	fi
}

software() {
	# Fedora and EPEL have apt-get and dpkg as well, which know of no package there.
	debian=
	if [ -s /var/lib/dpkg/status ]; then debian=apt-get; fi
	for m in $debian dnf yum zypper apk pacman; do
		if command -v $m >/dev/null 2>&1; then
			say package-manager $m
			break
		fi
	done
	if [ -n "$debian" ] && command -v dpkg-query >/dev/null 2>&1; then
		each package dpkg-query -W -f '${Package}\t${Version}\t${db:Status-Abbrev}\n' $PACKAGES
	elif command -v rpm >/dev/null 2>&1; then
		rpm -q --qf '%{NAME}\t%{VERSION}-%{RELEASE}\tii\n' $PACKAGES 2>/dev/null | grep "$tab" | sed "s/^/package$tab/"
	fi
	begin command
	for c in $COMMANDS; do command -v "$c"; done 2>/dev/null
	end
	if command -v systemctl >/dev/null 2>&1; then
		each unit systemctl show -p Id -p LoadState -p ActiveState -p MainPID $UNITS
	fi
}

leftovers() {
	for p in $LEFTOVERS; do
		if [ -d "$p" ]; then
			for f in "$p"/*; do
				if [ -e "$f" ]; then say left "$f"; fi
			done
		elif [ -e "$p" ]; then
			say left "$p"
		fi
	done
	for p in $OWN; do
		if [ -f "$p" ]; then
			first "$p"
			say own "$p" "$text"
		elif [ -d "$p" ]; then
			say own "$p"
		fi
	done
}

all() {
	say slipway-facts 1
	clock begin
	system
	resolvers
	virtualization
	disks
	network
	firewall
	kernel
	software
	leftovers
	clock end
	say slipway-facts end
}

# What runs here must not read the script.
all </dev/null
