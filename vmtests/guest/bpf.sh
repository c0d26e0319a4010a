# Every BPF object loads on this kernel, one build for all of them, against the kernel's own BTF; then the tests that drive
# the programs. What the verifier spent goes into the table that run.sh prints.
# kernels: 6.12 newest
# limit: 420
# memory: 2G
# smoke: yes
. "$VMTESTS/guest/lib.sh"

objects=${BPF_OBJECTS:-$BUILD/bpf}
found=0
for object in "$objects"/*.bpf.o; do
	[ -e "$object" ] || continue
	[ -x "$BUILD/vmtests/verify" ] || fail "$BUILD/vmtests/verify is not built: libbpf-dev is missing"
	"$BUILD/vmtests/verify" "$object" || fail "${object##*/} does not load on $(uname -r)"
	found=$((found + 1))
done
[ $found -gt 0 ] || skip "there are no BPF objects in this build"

# A first failure does not hide the others.
failed=
for program in "$BUILD"/tests/bpf/* "$BUILD"/tests/test_bpf_*; do
	[ -f "$program" ] && [ -x "$program" ] || continue
	if timeout 300 "$program" >/tmp/out 2>&1; then
		echo "ok ${program##*/} $(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' /tmp/out) tests"
		# As root on a stock kernel there should be nothing to skip.
		grep -a '^\[  SKIPPED \] [a-z]' /tmp/out
	else
		cat /tmp/out
		failed="$failed ${program##*/}"
	fi
done
[ -z "$failed" ] || fail "$failed"
exit 0
