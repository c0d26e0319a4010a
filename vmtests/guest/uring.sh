# The io_uring core: unit tests of rings, workers and connections, on this kernel's io_uring.
# kernels: 6.12 newest
# limit: 300
# memory: 1G
# smoke: yes
. "$VMTESTS/guest/lib.sh"

ran=0
names="test_probe test_ring test_worker test_worker_turn test_conn*"
[ -n "$SMOKE" ] || names="$names test_listener"
for t in $names; do
	for program in "$BUILD"/tests/$t; do
		[ -x "$program" ] || continue
		# The build folder may hold a link or an object of the same name.
		[ -f "$program" ] || continue
		ran=$((ran + 1))
		started=$SECONDS
		"$program" >/tmp/out 2>&1 || { cat /tmp/out; fail "${program##*/}"; }
		echo "ok ${program##*/} in $((SECONDS - started)) s: $(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' /tmp/out) tests"
	done
done
[ $ran -ge 5 ] || fail "only $ran programs were found: are the tests built?"
