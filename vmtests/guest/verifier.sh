# Every BPF object loads on this kernel, one build for all of them, against the kernel's own BTF. What the verifier spent goes into
# the table that run.sh prints.
# kernels: 6.12 newest
# limit: 120
# memory: 1G
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
