# A program that the verifier must refuse.
# kernels: 6.12
# limit: 120
# memory: 512M
BPF_OBJECTS=$SELFTEST_OBJECTS/broken . "$VMTESTS/guest/verifier.sh"
