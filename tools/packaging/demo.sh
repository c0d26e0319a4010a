#!/bin/sh
# The demo: the gateway with its built-in configuration, and the reference service behind /service.
# Usage: demo.sh BUILD_DIR. Ends, with everything it started, at Ctrl-C.
set -u
build=$1
service=

cleanup() {
	[ -z "$service" ] || kill "$service" 2>/dev/null
	wait 2>/dev/null
}
trap cleanup EXIT
trap : INT TERM

# In a session of its own: at Ctrl-C the gateway drains first, and needs its service for that.
setsid "$build/tidegate-service" --listen 127.0.0.1:9300 --mode uppercase &
service=$!

cat <<TXT

tidegate is starting. Open http://127.0.0.1:9180/ for the dashboard, /chat in two tabs: they talk over /hub.
In another terminal, try:

  curl -i --http1.1 -N --max-time 2 -H 'Connection: Upgrade' -H 'Upgrade: websocket' \\
       -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' http://127.0.0.1:8080/echo

  /usr/bin/python3 -m websockets ws://127.0.0.1:8080/echo       what you type comes back
  /usr/bin/python3 -m websockets ws://127.0.0.1:8080/service    a service answers, in upper case
  curl http://127.0.0.1:8080/healthz                   for load balancers
  curl http://127.0.0.1:9180/metrics                   for Prometheus
  $build/tidegatectl status                          and: workers, conns, links, kick; --json
  $build/tidegatectl gate                            who is let in, and why; also: sources, why ADDRESS
  $build/tidegate-bench echo --connections 100 --duration 5 --url ws://127.0.0.1:8080/echo

Ctrl-C closes every session with 1001, spread over ten seconds; a second one stops at once.

TXT
"$build/tidegate"
