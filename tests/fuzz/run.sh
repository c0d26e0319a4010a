#!/bin/sh
# Runs every fuzzer in DIR for SECONDS each, one after the other. The corpora grow in DIR/corpus, inputs that crash are
# kept in DIR/crashes. Exits non-zero when a fuzzer found something.
#
#   tests/fuzz/run.sh DIR SECONDS
set -u

[ $# -eq 2 ] || { echo "usage: $0 DIR SECONDS" >&2; exit 2; }
dir=$1
seconds=$2
case $seconds in
'' | *[!0-9]* | 0) echo "$0: SECONDS must be a positive number, not '$seconds'" >&2; exit 2 ;;
esac
[ -d "$dir" ] || { echo "$0: no directory '$dir'" >&2; exit 2; }

# The undefined-behaviour sanitizer goes on after a finding unless told otherwise.
UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}
export UBSAN_OPTIONS

passed=0
failed=0
mkdir -p "$dir/crashes" "$dir/log"
printf '%-20s %10s %9s %8s %7s  %s\n' fuzzer inputs inputs/s covered corpus result
for fuzzer in "$dir"/fuzz_*; do
	[ -f "$fuzzer" ] && [ -x "$fuzzer" ] || continue
	name=${fuzzer##*/}
	log=$dir/log/$name
	mkdir -p "$dir/corpus/$name"
	if "$fuzzer" -max_total_time="$seconds" -timeout=10 -print_final_stats=1 \
		-artifact_prefix="$dir/crashes/$name-" "$dir/corpus/$name" >"$log" 2>&1; then
		result=ok
		passed=$((passed + 1))
	else
		result="FAILED, see $log"
		failed=$((failed + 1))
	fi
	inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
	covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
	corpus=$(find "$dir/corpus/$name" -type f | wc -l)
	printf '%-20s %10s %9s %8s %7s  %s\n' "$name" "${inputs:--}" "${rate:--}" "${covered:--}" "$corpus" "$result"
done
[ $((passed + failed)) -gt 0 ] || { echo "$0: no fuzzers in '$dir'" >&2; failed=1; }
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
