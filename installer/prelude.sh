# Functions that the scripts of the installer have in common. POSIX sh.
export LC_ALL=C
umask 077
RECORDS=/var/lib/slipway/undo

# one_line prints the last line of what it reads, an empty one of nothing.
one_line() { printf '%s\n' "$(tail -n 1)"; }

# file_state PATH prints what is at a path.
file_state() {
	if [ -L "$1" ]; then
		printf 'link %s\n' "$(readlink "$1")"
	elif [ -d "$1" ]; then
		printf 'directory %s\n' "$(stat -c '%a %U:%G' "$1")"
	elif [ -f "$1" ]; then
		printf 'file %s %s\n' "$(stat -c '%a %U:%G' "$1")" "$(sha256sum <"$1" | cut -d' ' -f1)"
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

# put_file PATH MODE OWNER reads a file and puts it in place as a whole.
put_file() {
	if [ -d "$1" ] && [ ! -L "$1" ]; then
		echo "$1 is a directory: a file belongs there" >&2
		return 1
	fi
	make_parents "$1"
	if ! { cat >"$1.part" && chmod "$2" "$1.part" && chown "$3" "$1.part" && mv -f "$1.part" "$1"; }; then
		rm -f "$1.part"
		return 1
	fi
}

# open_records makes the place for what leads back.
open_records() { mkdir -p "$RECORDS/kept"; }

# begin INDEX TAG starts an item.
begin() {
	TAG=$2
	printf 'begin\t%s\n' "$1"
}

done_with() { printf 'done\t%s\n' "$1"; }

# new_record says whether nothing was ever recorded of the item.
new_record() { ! ls "$RECORDS"/*-"$TAG".sh >/dev/null 2>&1; }

# write_record reads the script that undoes the item. Records are numbered in the
# order of the first changes.
write_record() {
	cat >"$RECORDS/record.part"
	# They only ever grow, and go from the last on: their count is the next number.
	number=$(ls "$RECORDS" | grep -c '^[0-9]*-.*[.]sh$' || true)
	mv "$RECORDS/record.part" "$RECORDS/$(printf %06d "$number")-$TAG.sh"
}

# keep PATH keeps what is at a path, the first time.
keep() {
	if { [ -e "$1" ] || [ -L "$1" ]; } && [ ! -e "$RECORDS/kept/$TAG" ] && [ ! -L "$RECORDS/kept/$TAG" ]; then
		cp -a "$1" "$RECORDS/kept/$TAG.part"
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
