#!/bin/sh
# Every test twice: as built for use, and under the address and undefined-behaviour sanitizers.
set -u
cd "$(dirname "$0")/.." || exit 1
passed=0
failed=0
mkdir -p build

for san in "" address,undefined; do
	name=${san:-plain}
	log=build/check-$name.log
	echo "== $name build"
	start=$(date +%s)
	${MAKE:-make} --no-print-directory -j2 SAN="$san" all tests-built && ${MAKE:-make} --no-print-directory SAN="$san" test >"$log" 2>&1
	status=$?
	[ -e "$log" ] && cat "$log"
	ok=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1/p' "$log" 2>/dev/null | tail -n 1)
	bad=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\2/p' "$log" 2>/dev/null | tail -n 1)
	[ $status -eq 0 ] || [ "${bad:-0}" -gt 0 ] || bad=1
	echo "== $name: ${ok:-0} passed, ${bad:-0} failed in $(($(date +%s) - start)) s"
	passed=$((passed + ${ok:-0}))
	failed=$((failed + ${bad:-0}))
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
