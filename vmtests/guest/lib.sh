# For the scripts beside it, inside the guest: BUILD is the build folder, VMTESTS this folder's parent; the root is the host's,
# copy on write. A script ends with 0 (passed), 77 (skipped; the last line says why) or anything else (failed).
set -u
fail() { echo "FAIL: $*"; exit 1; }
skip() { echo "skipped: $*"; exit 77; }
fact() { echo "fact: $*"; }

# kernel_at_least 6.12
kernel_at_least() { [ "$(printf '%s\n%s\n' "$1" "$(uname -r)" | sort -V | head -n 1)" = "$1" ]; }

# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}
