# Takes a blob into the store: store.sh DIRECTORY SUM SIZE. Says in one line what
# is there, reads where to go on from, then the rest of the blob. POSIX sh.
# Codes: 0 taken, 10 cannot be written, 11 too little space, 12 cut short, 13 not
# what the sum says.
export LC_ALL=C
umask 022
dir=$1 sum=$2 size=$3
part=$dir/$sum.part

hash() { h=$(sha256sum <"$1") && printf '%s' "${h%% *}"; }
length() { stat -c %s "$1"; }

# free prints the bytes that are free where a path lies, and where that is mounted.
free() {
	at=$1
	while [ ! -e "$at" ]; do at=${at%/*}; at=${at:-/}; done
	df -Pk "$at" | { read -r _; read -r _ _ _ kib _ mount; printf '%s %s' "$((kib * 1024))" "$mount"; }
}

if [ -f "$dir/$sum" ] && [ "$(length "$dir/$sum")" = "$size" ] && [ "$(hash "$dir/$sum")" = "$sum" ]; then
	echo have
	exit 0
fi
mkdir -p "$dir" || { echo "failed $(free "$dir")"; exit 10; }
have=0
[ ! -f "$part" ] || have=$(length "$part")
[ "$have" -le "$size" ] || have=0
room=$(free "$dir")
if [ "${room%% *}" -lt "$((size - have))" ]; then
	echo "full $room"
	exit 11
fi
: >>"$part" || { echo "failed $room"; exit 10; }
if [ "$have" -gt 0 ]; then
	echo "part $have $(hash "$part")"
else
	echo "none"
fi
read -r from || exit 12
if [ "$from" = 0 ]; then : >"$part" || exit 10; fi
if ! cat >>"$part"; then
	rm -f "$part" # a full disk is everybody's trouble
	echo "failed $(free "$dir")"
	exit 10
fi
[ "$(length "$part")" = "$size" ] || { echo "short $(length "$part")"; exit 12; }
if [ "$(hash "$part")" != "$sum" ]; then
	rm -f "$part"
	echo "wrong"
	exit 13
fi
chmod 755 "$part" && { sync "$part" 2>/dev/null || sync; } && mv -f "$part" "$dir/$sum" || exit 10
echo taken
