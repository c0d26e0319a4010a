# The end-to-end suite's core: real clients, the gateway, services over links.
# kernels: 6.12 newest
# limit: 420
# memory: 1G
# smoke: yes
. "$VMTESTS/guest/lib.sh"

# Everything of raw and of the plain service, and one of each kind elsewhere; what counts milliseconds stays on real machines.
exec /usr/bin/python3 -B tests/e2e/run.py --build "$BUILD" -k test_raw.Raw -k test_links.TestEcho \
	-k test_clients.Curl -k test_clients.PythonClient.test_echo_sizes -k test_clients.PythonClient.test_close_codes \
	-k test_links.TestRestart -k test_admin.Ctl -k test_process.Privilege -k test_process.Crash.test_session_ids \
	-k test_rings.Rings.test_more_rings
