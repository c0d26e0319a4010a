#!/bin/sh
# Runs the tests of one build. Usage: tests/run.sh BUILD_DIR unit|bpf|e2e|soak...
# Ends with one line, "N passed, N failed"; exits non-zero on any failure, and when no test ran.
set -u
build=$1
shift
cd "$(dirname "$0")/.." || exit 1
passed=0
failed=0
skipped=0
failures=

# Leaks are failures; a sanitizer's report is an abort, not a line in a log.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=1:detect_stack_use_after_return=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:abort_on_error=1}"

# cmocka programs: those of one folder. A skipped test is neither passed nor failed.
programs() {
	for t in "$1"/test_*; do
		[ -x "$t" ] && [ -f "$t" ] || continue
		out=$(timeout 300 "$t" 2>&1)
		status=$?
		ok=$(printf '%s\n' "$out" | sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' | awk '{ n += $1 } END { print n + 0 }')
		bad=$(printf '%s\n' "$out" | grep -c '^\[  FAILED  \] [a-z_A-Z]')
		if [ $status -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
		skip=$(printf '%s\n' "$out" | sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' | awk '{ n += $1 } END { print n + 0 }')
		passed=$((passed + ok))
		failed=$((failed + bad))
		skipped=$((skipped + skip))
		if [ $status -ne 0 ]; then
			failures="$failures ${t##*/}"
			printf '%s\n' "$out"
			echo "FAIL ${t##*/} (exit status $status)"
		elif [ "$skip" -gt 0 ]; then
			printf 'skip %-28s %3d tests, %d skipped: not possible here (they need root, BPF, or more of the kernel)\n' "${t##*/}" "$ok" "$skip"
		else
			printf 'ok   %-28s %3d tests\n' "${t##*/}" "$ok"
		fi
	done
}

# The end-to-end suites print the same closing line themselves.
python_suite() {
	log=$build/$1.log
	timeout "$2" /usr/bin/python3 -B tests/e2e/run.py --build "$build" --suite "$1" >"$log" 2>&1
	status=$?
	cat "$log"
	ok=$(sed -n 's/^[a-z0-9]*: *\([0-9]*\) passed, \([0-9]*\) failed.*/\1/p' "$log" | tail -n 1)
	bad=$(sed -n 's/^[a-z0-9]*: *\([0-9]*\) passed, \([0-9]*\) failed.*/\2/p' "$log" | tail -n 1)
	[ -n "$ok" ] || { ok=0; bad=1; }
	[ $status -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
	passed=$((passed + ok))
	failed=$((failed + bad))
	[ "$bad" -eq 0 ] || failures="$failures $1"
}

for suite in "$@"; do
	case $suite in
	unit) programs "$build/tests" ;;
	bpf) programs "$build/tests/bpf" ;;
	e2e) python_suite e2e 900 ;;
	soak) python_suite soak 1800 ;;
	*) echo "run.sh: no suite $suite" >&2; exit 2 ;;
	esac
done

[ -z "$failures" ] || echo "failed:$failures"
[ $((passed + failed)) -gt 0 ] || { echo "no test ran"; exit 1; }
[ "$skipped" -eq 0 ] || echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
