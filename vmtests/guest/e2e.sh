# The end-to-end suite's core: real clients, the gateway, services over links.
# kernels: 6.12 newest
# limit: 420
# memory: 1G
# smoke: yes
. "$VMTESTS/guest/lib.sh"

# What counts milliseconds stays on real machines; so does what takes longer here than a heartbeat's interval.
core="test_raw.Raw test_links.TestEcho.test_raw TestEcho.test_uppercase TestEcho.test_unix TestEcho.test_websockets
TestEcho.test_close TestEcho.test_reject TestEcho.test_metrics test_process.Crash.test_session_ids test_process.Privilege"
more="test_links.TestEcho test_links.TestRestart test_clients.Curl test_clients.PythonClient.test_echo_sizes
test_clients.PythonClient.test_close_codes test_admin.Ctl"
[ -n "$SMOKE" ] || core="$core $more"
args=()
for pattern in $core; do
	args+=(-k "$pattern")
done
exec /usr/bin/python3 -B tests/e2e/run.py --build "$BUILD" "${args[@]}"
