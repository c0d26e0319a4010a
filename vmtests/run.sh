#!/bin/bash
# Runs the guest tests on a matrix of kernels. Usage: run.sh BUILD_DIR [smoke]
#
# Environment: KERNEL="6.1 6.12 newest"   kernels, by the names that fetch.sh knows
#              TEST="probe uring …"       scripts of vmtests/guest/, without .sh; smoke: those that say so
#              VM_JOBS=2                  guests at a time (as many as there are CPUs, and memory, for)
#              TIMEOUT_SCALE=1            multiplies every time limit, for a busy machine
#              VM_ACCEL=tcg               software emulation even where /dev/kvm works
#              VM_CACHE=DIR               packages and kernels (${XDG_CACHE_HOME:-~/.cache}/tidegate/vm)
#              VM_REFRESH=1               looks for newer kernels now, not when the package index is a day old
#              VM_REQUIRE=1               what would be skipped for want of QEMU or a kernel fails instead
#              VM_TESTS=DIR VM_LOGS=DIR   other scripts, and logs elsewhere (BUILD_DIR/vm): for the self-test
#
# A script's head says where it runs: '# kernels:', '# limit:' (seconds, boot included), '# memory:', '# smoke: yes'; with
# SMOKE set it may do less. Its exit status is the result: 0 passed, 77 skipped, all else failed. A guest that dies or does
# not end in time has failed too.
# Lines 'verified<TAB>…' of its output go into a table, BUILD_DIR/vm/verifier.md.
# Ends with a table kernel x test and 'N passed, N failed, N skipped'. Exit status: 0, 1 a failure, 2 usage.
set -u -o pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
root=$(dirname "$here")
usage() { echo "vmtest: $*" >&2; exit 2; }
# A guest has one CPU, and the largest 4 GiB of memory.
jobs_for_this_machine() {
	local by_memory=$(($(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo) / (5 << 20))) cpus
	cpus=$(nproc)
	[ $by_memory -lt "$cpus" ] || by_memory=$cpus
	echo $((by_memory > 0 ? by_memory : 1))
}

[ $# -ge 1 ] || { sed -n '2,20s/^# \{0,1\}//p' "$0" >&2; exit 2; }
build=$(readlink -f "$1")
[ -x "$build/tidegate" ] || usage "no build in $1"
smoke=
case ${2:-} in
'') ;;
smoke) smoke=yes ;;
*) usage "unexpected argument $2" ;;
esac
folder=${VM_TESTS:-$here/guest}
logs=${VM_LOGS:-$build/vm}
scale=${TIMEOUT_SCALE:-1}
[[ $scale =~ ^[1-9][0-9]?$ ]] || usage "TIMEOUT_SCALE='$scale' is not a whole number from 1 to 99"
jobs=${VM_JOBS:-$(jobs_for_this_machine)}
[[ $jobs =~ ^[1-9][0-9]{0,2}$ ]] || usage "VM_JOBS='$jobs' is not a whole number from 1 to 999"
if [ -n "${VM_CACHE:-}" ]; then cache=$VM_CACHE
elif [ -n "${XDG_CACHE_HOME:-${HOME:-}}" ]; then cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/vm
else cache=$build/vm-cache
fi

says() { sed -n "s/^# $2: *//p" "$folder/$1.sh" | head -n 1; }
is_in() { case " $2 " in *" $1 "*) ;; *) return 1 ;; esac; }

all_kernels="6.1 6.12 newest"
kernels=${KERNEL:-$all_kernels}
all_tests=$(cd "$folder" && ls -- *.sh | sed 's/\.sh$//' | grep -v '^lib$' | tr '\n' ' ')
tests=${TEST:-$all_tests}
for k in $kernels; do is_in "$k" "$all_kernels" || usage "no kernel '$k': there are $all_kernels"; done
for t in $tests; do is_in "$t" "$all_tests" || usage "no test '$t': there are $all_tests"; done
if [ -n "$smoke" ]; then
	[ -n "${KERNEL:-}" ] || kernels="6.12 newest"
	wanted=
	for t in $tests; do [ "$(says "$t" smoke)" != yes ] || wanted="$wanted $t"; done
	tests=$wanted
fi
applies() { is_in "$1" "$(says "$2" kernels)"; }
cells=0
for k in $kernels; do for t in $tests; do applies "$k" "$t" && cells=$((cells + 1)); done; done
[ $cells -gt 0 ] || usage "no test of '$tests' is for a kernel of '$kernels'"

# ---- results ----

passed=0 failed=0 skipped=0
declare -A cell name

# By the guest's own process: a line for whoever watches, and a file for the table.
result() { # KERNEL TEST ok|FAIL|skip SECONDS WHY
	mkdir -p "$logs/$1/$2"
	echo "$3 $4" >"$logs/$1/$2/result"
	printf '%-4s %-24s %-9s %4s s%s\n' "$3" "${name[$1]:-$1}" "$2" "$4" "${5:+  $5}"
}

no_guests() { # WHY KERNEL...: their tests cannot run
	local why=$1 what=skip k t
	shift
	[ -z "${VM_REQUIRE:-}" ] || what=FAIL
	for k in "$@"; do
		for t in $tests; do applies "$k" "$t" && result "$k" "$t" $what 0 "$why"; done
	done
}

# A guest's process that left no result has failed.
count() {
	local k t what seconds
	for k in $kernels; do
		for t in $tests; do
			applies "$k" "$t" || continue
			what=FAIL seconds=0
			read -r what seconds 2>/dev/null <"$logs/$k/$t/result"
			case $what in
			ok) passed=$((passed + 1)) cell[$k/$t]="ok $seconds s" ;;
			skip) skipped=$((skipped + 1)) cell[$k/$t]=skip ;;
			*) failed=$((failed + 1)) cell[$k/$t]="FAIL ${seconds:-0} s" ;;
			esac
		done
	done
}

table() {
	local k t
	printf '\n%-24s' kernel
	for t in $tests; do printf ' %-10s' "$t"; done
	printf '\n'
	for k in $kernels; do
		printf '%-24s' "${name[$k]:-$k}"
		for t in $tests; do printf ' %-10s' "${cell[$k/$t]:--}"; done
		printf '\n'
	done
}

finish() {
	count
	table
	echo
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed -eq 0 ]
	exit
}

# ---- guests ----

child=
stop_child() { [ -z "$child" ] || { kill "$child" 2>/dev/null; wait "$child"; }; }
stop_jobs() { # shellcheck disable=SC2046
	kill $(jobs -p) 2>/dev/null
	wait
}
trap 'stop_child; stop_jobs; exit 130' INT TERM HUP

boot() { # KERNEL LOG_DIR: in the background, so that a signal is heard
	"$here/boot.sh" "$cache" "$cache/kernels/$1/${name[$1]}" "$2" "$2/script" 2>"$2/boot.log" &
	child=$!
	wait $child
	local status=$?
	child=
	return $status
}

# /dev/kvm may be there and not work, in a nested guest for one: what counts is that a guest comes up.
choose_accel() { # KERNEL: the first one
	local log=$logs/kvm-trial
	[ "${VM_ACCEL:-kvm}" = kvm ] || return
	VM_ACCEL=tcg
	[ -r /dev/kvm ] && [ -w /dev/kvm ] || return
	mkdir -p "$log"
	echo 'exit 0' >"$log/script"
	VM_ACCEL=kvm VM_LIMIT=30 VM_BOOT_TRIES=1 boot "$1" "$log" && VM_ACCEL=kvm
}

write_script() { # TEST LOG_DIR
	cat >"$2/script" <<END
cd $(printf %q "$root") || exit 125
export BUILD=$(printf %q "$build") TEST_SLOW=$((4 * scale)) VMTESTS=$(printf %q "$here") SMOKE=$smoke SCALE=$scale
export ${VM_GUEST_ENV:-VM_GUEST_ENV=}
ulimit -n 65536
exec bash $(printf %q "$folder/$1.sh")
END
}

run_test() { # KERNEL TEST
	local log=$logs/$1/$2 limit started seconds status why
	write_script "$2" "$log"
	limit=$(($(says "$2" limit) * scale))
	started=$SECONDS
	VM_LIMIT=$limit VM_MEMORY=$(says "$2" memory) boot "$1" "$log"
	status=$?
	seconds=$((SECONDS - started))
	case $status in
	0) result "$1" "$2" ok $seconds && return ;;
	77) result "$1" "$2" skip $seconds "$(tail -n 1 "$log/out.log")" && return ;;
	124) why="did not end within $limit s" ;;
	125) why="the guest could not be started" ;;
	255) why="the guest died: $(grep -ao 'Kernel panic.*' "$log/console.log" | head -n 1)" ;;
	*) why="exit status $status" ;;
	esac
	why="$why; logs in $log
$(sed 's/^/     | /' "$log/boot.log")
$([ ! -e "$log/out.log" ] || tail -n 40 "$log/out.log" | sed 's/^/     | /')"
	result "$1" "$2" FAIL $seconds "$why"
}

# Those that may take longest first, so that none is left alone at the end.
run_tests() { # KERNEL...
	local k t limit
	for k in "$@"; do
		for t in $tests; do
			applies "$k" "$t" && echo "$(says "$t" limit) $k $t"
		done
	done | sort -s -rn -k 1,1 >"$logs/queue"
	while read -r limit k t <&3; do
		[ "$(jobs -rp | wc -l)" -lt "$jobs" ] || wait -n
		(trap 'stop_child; exit 130' INT TERM HUP && run_test "$k" "$t") 3<&- &
	done 3<"$logs/queue"
	wait
}

# One row a program, one column a kernel: instructions that the verifier went through, and its greatest number of states.
verifier_table() {
	local k used=()
	for k in $kernels; do
		if grep -aqs '^verified	' "$logs/$k"/*/out.log; then used+=("$k"); fi
	done
	[ ${#used[@]} -gt 0 ] || return
	for k in "${used[@]}"; do
		grep -ahs '^verified	' "$logs/$k"/*/out.log | sed "s/^verified/${name[$k]}/"
	done | awk -F '\t' '
		!($1 in seen) { seen[$1]; kernels[++nk] = $1 }
		!($2 in known) { known[$2]; programs[++np] = $2; type[$2] = $3 }
		{ text[$1, $2] = $4 " / " $6 }
		END {
			printf "| program | type |"
			for (k = 1; k <= nk; k++) printf " %s |", kernels[k]
			printf "\n| --- | --- |"
			for (k = 1; k <= nk; k++) printf " ---: |"
			for (p = 1; p <= np; p++) {
				printf "\n| `%s` | %s |", programs[p], type[programs[p]]
				for (k = 1; k <= nk; k++) printf " %s |", (kernels[k], programs[p]) in text ? text[kernels[k], programs[p]] : "-"
			}
			print ""
		}' >"$logs/verifier.md"
	echo
	echo "verifier: instructions / peak states, also in $logs/verifier.md"
	cat "$logs/verifier.md"
}

mkdir -p "$logs"
for k in $kernels; do
	for t in $tests; do applies "$k" "$t" && rm -rf "${logs:?}/$k/$t" && mkdir -p "$logs/$k/$t"; done
done
if ! "$here/fetch.sh" "$cache" tools 2>"$logs/fetch.log"; then
	cat "$logs/fetch.log"
	# shellcheck disable=SC2086
	no_guests "$(tail -n 1 "$logs/fetch.log")" $kernels
	finish
fi
present=
for k in $kernels; do
	if ! name[$k]=$("$here/fetch.sh" "$cache" kernel "$k" 2>"$logs/fetch.log" | tail -n 1); then
		name[$k]=$k
		no_guests "$(tail -n 1 "$logs/fetch.log")" "$k"
		continue
	fi
	cat "$logs/fetch.log"
	present="$present $k"
done
[ -n "$present" ] || finish
# shellcheck disable=SC2086
choose_accel "$(set -- $present; echo "$1")"
export VM_ACCEL
echo "vmtest: $([ "$VM_ACCEL" = kvm ] && echo KVM || echo 'software emulation'), $jobs at a time, logs in $logs"
# shellcheck disable=SC2086
run_tests $present
verifier_table
finish
