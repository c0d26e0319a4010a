# The gate as the daemon attaches it, as root, on a native veth: admit in libxdp's dispatcher with another XDP program before and
# after it, lists, penalties, pace, steering, delays, a crash, a detach. Nothing here may be skipped: a stock kernel has it all.
# kernels: 6.12 newest
# limit: 600
# memory: 1G
# smoke: yes
. "$VMTESTS/guest/lib.sh"

beside="KernelGateBeside.test_says_so_and_shows_it KernelGateBeside.test_each_has_its_say"
gate="KernelGate.test_native_and_let_in KernelGate.test_lists KernelGate.test_churn KernelGate.test_delays"
# Fairness, floods and rates are compared with a clock: they stay on real machines.
more="KernelGateBeside KernelGate.test_shut KernelGate.test_concurrency KernelGate.test_outlives_a_crash KernelGate.test_detach
KernelGate.test_a KernelGate.test_inspecting KernelGateReset Fallback Steer"
tests="$beside $gate"
[ -n "$SMOKE" ] || tests="$tests $more"
args=()
for pattern in $tests; do
	args+=(-k ".$pattern")
done
/usr/bin/python3 -B tests/e2e/run.py --build "$BUILD" "${args[@]}" >/tmp/out 2>&1
status=$?
cat /tmp/out
! grep -q '^skipped ' /tmp/out || fail "a test was skipped"
exit $status
