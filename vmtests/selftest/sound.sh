# Passes, so that a runner which fails everything is found out too. Its BPF program is sound.
# kernels: 6.12
# limit: 120
# memory: 512M
BPF_OBJECTS=$SELFTEST_OBJECTS/sound . "$VMTESTS/guest/verifier.sh"
