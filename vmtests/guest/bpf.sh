# The tests that drive the BPF programs: packets made up, and connections over a veth between two namespaces.
# kernels: 6.12 newest
# limit: 600
# memory: 2G
# smoke: yes
. "$VMTESTS/guest/lib.sh"

# The rest of them takes minutes here.
quick=" test_admit_attach test_bpf_maps test_sched test_steer test_bpf_lists "
# A first failure does not hide the others.
failed= ran=0
for program in "$BUILD"/tests/bpf/test_* "$BUILD"/tests/test_bpf_*; do
	[ -f "$program" ] && [ -x "$program" ] || continue
	[ -z "$SMOKE" ] || [[ $quick == *" ${program##*/} "* ]] || continue
	ran=$((ran + 1)) started=$SECONDS
	if timeout 300 "$program" >/tmp/out 2>&1; then
		echo "ok ${program##*/} in $((SECONDS - started)) s: $(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' /tmp/out) tests"
		# As root on a stock kernel there should be nothing to skip.
		! grep -a '^\[  SKIPPED \] [a-z]' /tmp/out || failed="$failed ${program##*/} (skipped)"
	else
		cat /tmp/out
		failed="$failed ${program##*/}"
	fi
done
[ -z "$failed" ] || fail "$failed"
[ $ran -gt 0 ] || skip "there are no tests of BPF programs in this build"
