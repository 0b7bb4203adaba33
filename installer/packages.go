package installer

import (
	"fmt"
	"slices"
	"strings"
)

// Package is a package of the system's, by what it is called in different families.
type Package struct {
	Name string // Debian's
	RPM  string // RHEL's, Fedora's and SUSE's; empty if it is called the same
	// Has is exit code 0 where what the package is for is there, however it came:
	// "command -v curl".
	Has string
	// Service is a unit that the package enables and that nobody asked for.
	Service string
}

func (p Package) rpm() string {
	if p.RPM != "" {
		return p.RPM
	}
	return p.Name
}

// Packages are what a host needs of its system's own packages.
type Packages struct {
	List []Package
	// Versions are those that are known to do, by Debian's names: where packages
	// cannot be had, it is said which are needed.
	Versions map[string]string
}

// ID names them.
func (p Packages) ID() string {
	var names []string
	for _, x := range p.List {
		names = append(names, x.Name)
	}
	return "packages " + strings.Join(names, ", ")
}

// manager is a script that finds the host's package manager. Fedora and EPEL have
// apt-get as well, which knows of no package there.
const manager = `manager=; debian=; if [ -s /var/lib/dpkg/status ]; then debian=apt-get; fi
for m in $debian dnf yum zypper; do if command -v $m >/dev/null 2>&1; then manager=$m; break; fi; done
`

// missing is a script that sets the names that are missing, as the host's package
// manager calls them.
func (p Packages) missing() string {
	var b strings.Builder
	b.WriteString(manager + "missing= services=\n")
	for _, x := range p.List {
		fmt.Fprintf(&b, "if ! ( %s\n) >/dev/null 2>&1; then case $manager in apt-get|'') missing=\"$missing %s\" ;; *) missing=\"$missing %s\" ;; esac; services=\"$services %s\"; fi\n", x.Has, x.Name, x.rpm(), x.Service)
	}
	return b.String()
}

// Probe prints what is missing.
func (p Packages) Probe() string {
	return p.missing() + `if [ -z "$missing" ]; then echo installed; else echo "missing$missing"; fi`
}

// Want is that nothing is.
func (p Packages) Want() string { return "installed" }

// Command is what an administrator would type.
func (p Packages) Command() (string, bool) {
	var names []string
	for _, x := range p.List {
		names = append(names, x.Name)
	}
	return "apt-get install --no-install-recommends " + strings.Join(names, " ") + "   # those that are missing, or their like of dnf, yum, zypper", false
}

// all is a script that lists the packages that are installed.
const all = `all() { case $manager in apt-get) dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' ;; *) rpm -qa --qf '%{NAME}\n' ;; esac | sort -u; }
`

// install has Debian's packages start no service (invoke-rc.d(8), policy-rc.d).
const install = `install() {
	case $manager in
	apt-get)
		if [ ! -e /usr/sbin/policy-rc.d ]; then
			trap 'rm -f /usr/sbin/policy-rc.d' EXIT
			printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
			chmod 755 /usr/sbin/policy-rc.d
		fi
		get="apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=120 -o APT::Sandbox::User=root"
		DEBIAN_FRONTEND=noninteractive $get install $missing || { $get update && DEBIAN_FRONTEND=noninteractive $get install $missing; } ;;
	zypper) zypper --non-interactive install --no-recommends $missing ;;
	*) $manager install -y $missing ;;
	esac
}
`

// Change installs what is missing, and notes what came with it.
func (p Packages) Change() string {
	var known []string
	for _, x := range p.List {
		if v := p.Versions[x.Name]; v != "" {
			known = append(known, fmt.Sprintf("%s %s", x.Name, v))
		}
	}
	slices.Sort(known)
	hint := "install them by hand, or give the host a package mirror that it reaches"
	if len(known) > 0 {
		hint += "; versions that are known to do: " + strings.Join(known, ", ")
	}
	return p.missing() + all + install + fmt.Sprintf(`if [ -z "$missing" ]; then exit 0; fi
if [ -z "$manager" ]; then printf 'packages are missing, and there is no package manager that is known here:%%s\n%%s\n' "$missing" %[1]s >&2; exit 1; fi
saved=$RECORDS/saved/$TAG
mkdir -p "$RECORDS/saved"
[ -e "$saved.before" ] || { all >"$saved.part"; on_disk "$saved.part"; mv "$saved.part" "$saved.before"; }
said=$RECORDS/saved/said
if ! install >"$said" 2>&1; then
	{ tail -n 5 "$said"; printf 'packages are missing, and cannot be installed:%%s\n%%s\n' "$missing" %[1]s; } >&2
	rm -f "$said"
	exit 1
fi
rm -f "$said"
for s in $services; do systemctl disable "$s" >/dev/null 2>&1 || true; done
all >"$saved.after"
comm -13 "$saved.before" "$saved.after" >>"$saved.new"
rm -f "$saved.before" "$saved.after"`, quote(hint))
}

// Undo removes the packages that were not there, and what came with them. Of an
// installation that was cut off, it removes those that were named.
func (p Packages) Undo(before string) string {
	names, wanted := strings.CutPrefix(before, "missing ")
	if !wanted {
		return ":"
	}
	return fmt.Sprintf(`saved=$RECORDS/saved/%[1]s
new=$(cat "$saved.new" 2>/dev/null || true)
if [ -e "$saved.before" ]; then new="$new %[2]s"; fi
rm -f "$saved".*
if [ -s /var/lib/dpkg/status ]; then
	there=$(for n in $new; do case $(dpkg-query -W -f '${db:Status-Status}' "$n" 2>/dev/null) in installed|config-files|unpacked|half-*) echo "$n" ;; esac; done)
	[ -z "$there" ] || DEBIAN_FRONTEND=noninteractive dpkg --purge $there >&2
elif command -v rpm >/dev/null 2>&1; then
	there=$(for n in $new; do rpm -q "$n" >/dev/null 2>&1 && echo "$n"; done || true)
	[ -z "$there" ] || rpm -e $there >&2
fi`, tag(p.ID()), strings.TrimSpace(names))
}

// Module is a part of the kernel.
type Module struct {
	Name  string // "br_netfilter"
	There string // exit code 0: the kernel has it, built in or loaded
}

// ID names the module.
func (m Module) ID() string { return "module " + m.Name }

// Probe prints whether the kernel has it.
func (m Module) Probe() string {
	return fmt.Sprintf("if ( %s\n) >/dev/null 2>&1; then echo loaded; else echo absent; fi", m.There)
}

// Want is that it has.
func (m Module) Want() string { return "loaded" }

// Command is what an administrator would type.
func (m Module) Command() (string, bool) { return "modprobe " + m.Name, false }

// Change loads it.
func (m Module) Change() string { return "modprobe " + quote(m.Name) }

// Undo unloads it if it was not there. One that others use by now stays.
func (m Module) Undo(before string) string {
	if before != absent {
		return ":"
	}
	return "modprobe -r " + quote(m.Name) + " 2>/dev/null || true"
}
