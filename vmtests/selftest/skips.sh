# Says that it has nothing to do.
# kernels: 6.12
# limit: 120
# memory: 512M
. "$VMTESTS/guest/lib.sh"
skip "on purpose"
