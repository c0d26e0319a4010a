# A test that fails.
# kernels: 6.12
# limit: 120
# memory: 512M
. "$VMTESTS/guest/lib.sh"
fail "on purpose"
