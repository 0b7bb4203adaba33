# Functions that the scripts of the installer have in common. POSIX sh.
export LC_ALL=C
umask 077
RECORDS=/var/lib/slipway/undo

# file_state PATH prints what is at a path.
file_state() {
	if [ -L "$1" ]; then
		printf 'link %s\n' "$(readlink "$1")"
	elif [ -d "$1" ]; then
		printf 'directory %s\n' "$(stat -c '%a %U:%G' "$1")"
	elif [ -f "$1" ]; then
		mode=$(stat -c '%a %U:%G' "$1")
		hash=$(sha256sum <"$1")
		printf 'file %s %s\n' "$mode" "${hash%% *}"
	elif [ -e "$1" ]; then
		printf 'other\n'
	else
		printf 'absent\n'
	fi
}

# make_parents PATH makes the directories that a path lies in, and notes which.
make_parents() {
	case $1 in
	*/*) parent=${1%/*} ;;
	*) return 0 ;;
	esac
	if [ -n "$parent" ] && [ ! -d "$parent" ]; then
		( make_parents "$parent" )
		printf '%s\n' "$parent" >>"$RECORDS/made"
		mkdir -m 755 "$parent"
	fi
}

# on_disk FILE waits until a file's content is on the disk: one that is renamed before may
# be an empty one after a power cut. A sync that knows no files (coreutils before 8.24)
# writes everything.
on_disk() { sync "$1" 2>/dev/null || sync; }

# put_file PATH MODE OWNER reads a file and puts it in place as a whole: a machine that
# loses power finds no empty unit.
put_file() {
	if [ -d "$1" ] && [ ! -L "$1" ]; then
		echo "$1 is a directory: a file belongs there" >&2
		return 1
	fi
	make_parents "$1"
	if ! { cat >"$1.part" && chmod "$2" "$1.part" && { [ "$3" = root:root ] || chown "$3" "$1.part"; } && on_disk "$1.part" && mv -f "$1.part" "$1"; }; then
		rm -f "$1.part"
		return 1
	fi
}

# open_records makes the place for what leads back. Records only ever grow, and
# go from the last on: their count is the next number.
open_records() {
	mkdir -p "$RECORDS/kept" "$RECORDS/known"
	NUMBER=$(ls "$RECORDS" | grep -c '^[0-9]*-.*[.]sh$' || true)
}

# begin INDEX TAG starts an item.
begin() {
	TAG=$2
	printf 'begin\t%s\n' "$1"
}

done_with() { printf 'done\t%s\n' "$1"; }

# new_record says whether nothing was ever recorded of the item.
new_record() { [ ! -e "$RECORDS/known/$TAG" ]; }

# write_record reads the script that undoes the item. It counts once it is known:
# a crash before that leaves one that is written again, to the same effect. It is known
# no sooner than it is on the disk, and the change comes after both.
write_record() {
	name=00000$NUMBER
	record=$RECORDS/${name#"${name%??????}"}-$TAG.sh
	cat >"$record"
	on_disk "$record"
	: >"$RECORDS/known/$TAG"
	NUMBER=$((NUMBER + 1))
}

# keep PATH keeps what is at a path, the first time.
keep() {
	if { [ -e "$1" ] || [ -L "$1" ]; } && [ ! -e "$RECORDS/kept/$TAG" ] && [ ! -L "$RECORDS/kept/$TAG" ]; then
		cp -a "$1" "$RECORDS/kept/$TAG.part"
		if [ -f "$1" ] && [ ! -L "$1" ]; then on_disk "$RECORDS/kept/$TAG.part"; fi
		mv -T "$RECORDS/kept/$TAG.part" "$RECORDS/kept/$TAG"
	fi
}

# put_back TAG PATH puts what was kept where it was.
put_back() {
	if [ -e "$RECORDS/kept/$1" ] || [ -L "$RECORDS/kept/$1" ]; then
		rm -rf "$2"
		mv -T "$RECORDS/kept/$1" "$2"
	fi
}
