#!/bin/bash
# Tests run.sh itself: a guest that hangs, panics or vanishes, a test that fails and a broken BPF program each turn the run
# red, within the time limit; a sound one passes; and what cannot run is skipped, not passed.
# Usage: selftest.sh BUILD_DIR. Ends with 'N passed, N failed'.
set -u -o pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
[ $# -eq 1 ] || { sed -n '4s/^# //p' "$0" >&2; exit 2; }
build=$(readlink -f "$1")
command -v clang >/dev/null || { echo "selftest: clang is missing" >&2; exit 1; }

work=$build/vm-selftest
rm -rf "$work"
for kind in sound broken; do
	mkdir -p "$work/objects/$kind"
	clang -target bpf -mcpu=v3 -O2 -g -Wall -Werror -c "$here/selftest/$kind.bpf.c" -o "$work/objects/$kind/$kind.bpf.o" || exit 1
done

passed=0 failed=0
check() { # WHAT COMMAND...
	local what=$1
	shift
	if "$@"; then
		passed=$((passed + 1))
		echo "ok   $what"
	else
		failed=$((failed + 1))
		echo "FAIL $what"
	fi
}
not() { ! "$@"; }
says() { grep -aq -- "$1" "$work/out"; }

run() { # the runner on the tests that go wrong
	VM_TESTS=$here/selftest VM_LOGS=$work/logs VM_GUEST_ENV=SELFTEST_OBJECTS=$work/objects KERNEL=6.12 TEST=$1 \
		"$here/run.sh" "$build" >"$work/out" 2>&1
	status=$?
	cat "$work/out"
}

# Nothing to boot with: /dev/null is no folder.
VM_CACHE=/dev/null/cache run "fails sound"
check "without QEMU nothing passes" says '^0 passed, 0 failed, 2 skipped$'
check "and nothing fails" [ $status -eq 0 ]
VM_CACHE=/dev/null/cache VM_REQUIRE=1 run "fails sound"
check "unless it is required" says '^0 passed, 2 failed, 0 skipped$'
check "and then the run is red" [ $status -eq 1 ]
VM_CACHE=/dev/null/cache run nonesuch
check "a test that does not exist is no success" [ $status -eq 2 ]

started=$SECONDS
run "sound broken_bpf fails hang panic silent skips"
seconds=$((SECONDS - started))
if says 'skipped$' && says '^skip .* sound '; then
	echo "skipped: $(grep -a '^skip .* sound ' "$work/out")"
	echo "$passed passed, $failed failed, 1 skipped"
	[ $failed -eq 0 ]
	exit
fi
check "the run is red" [ $status -eq 1 ]
check "five of seven failed" says '^1 passed, 5 failed, 1 skipped$'
check "a sound program passes" says '^ok .* sound '
check "a broken BPF program fails" says '^FAIL .* broken_bpf .*exit status 1'
check "and is named, with the verifier's reason" says 'selftest_broken (xdp) is refused'
check "a failed test fails" says '^FAIL .* fails .*exit status 1'
check "a hang fails at its time limit" says '^FAIL .* hang .*did not end within'
check "a panic fails" says '^FAIL .* panic .*the guest died: Kernel panic'
check "a guest that vanishes fails" says '^FAIL .* silent .*the guest died'
check "a test that skips itself does not pass" says '^skip .* skips .*on purpose'
limits=$(sed -n 's/^# limit: *//p' "$here"/selftest/*.sh | awk '{ n += $1 } END { print n }')
check "all within the limits" [ $seconds -le $((limits * ${TIMEOUT_SCALE:-1})) ]
check "no guest is left" not grep -qsa "qemu-system-x86_6[4].*init=$work/" /proc/[0-9]*/cmdline
check "no verifier table has the refused program" not grep -q selftest_broken "$work/logs/verifier.md"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
