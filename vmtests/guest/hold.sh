# One ring holds 200,000 connections when the descriptor limit lets it: the limit of one ring's table is all that several
# rings in a worker are for. The same worker under a low limit needs several rings for far fewer.
# kernels: 6.12 newest
# limit: 900
# memory: 4G
# smoke: no
. "$VMTESTS/guest/lib.sh"

gateway=
trap '[ -z "$gateway" ] || kill $gateway 2>/dev/null' EXIT

# hold CONNECTIONS DESCRIPTOR_LIMIT: prints the number of rings in use while they are all there
hold() {
	local n=$1 limit=$2 status
	cat >/tmp/hold.yaml <<END
workers: {count: 1, pin: false}
admin: {listen: "127.0.0.1:9180", socket: /run/hold.sock}
drain: {period: 10ms}
listeners:
  - {name: raw, address: "127.0.0.1:8081", protocol: raw}
routes:
  - {path: /echo, upstream: echo, heartbeat: {interval: 0}}
END
	(ulimit -n "$limit" && exec "$BUILD/tidegate" -c /tmp/hold.yaml) >/tmp/gateway.log 2>&1 &
	gateway=$!
	wait_for 60 serves_or_ended
	grep -q 'is serving' /tmp/gateway.log || { cat /tmp/gateway.log; fail "the gateway does not serve"; }
	# The port search of connect() takes milliseconds here when one source address has many connections.
	"$BUILD/tidegate-bench" hold --url raw://127.0.0.1:8081/echo --connections "$n" --sources $((n / 1000 + 1)) \
		--duration 20 --timeout 300 --quiet --json >/tmp/bench.log 2>&1 &
	local bench=$!
	wait_for $((600 * SCALE)) all_there "$n" || { cat /tmp/bench.log; "$BUILD/tidegatectl" --socket /run/hold.sock status; fail "not all $n came"; }
	rings=$(status_number rings)
	wait $bench
	status=$?
	cat /tmp/bench.log
	[ $status -eq 0 ] || fail "tidegate-bench: exit status $status"
	# It has reset them all; their closes take the only CPU longer than the keeper lets a drain take.
	wait_for $((300 * SCALE)) all_gone || fail "$(status_number connections) connections are still there"
	kill $gateway
	wait $gateway
	status=$?
	gateway=
	[ $status -eq 0 ] || { cat /tmp/gateway.log; fail "the gateway ended with $status"; }
}
serves_or_ended() { grep -q 'is serving' /tmp/gateway.log || ! kill -0 $gateway 2>/dev/null; }
status_number() {
	"$BUILD/tidegatectl" --socket /run/hold.sock --json status | tr ',{' '\n\n' | sed -n "s/^ *\"$1\": *//p" | head -n 1
}
# Rarely: each look takes CPU time from the only CPU.
all_there() { sleep 5; [ "$(status_number connections)" -ge "$1" ]; }

all_gone() { sleep 5; [ "$(status_number connections)" -eq 0 ]; }

ulimit -Hn 1048576
echo 2000000 >/proc/sys/fs/file-max # follows the guest's memory, and is too low
many=200000

hold 4000 1100
few_rings=$rings
hold $many 262144
echo "4,000 connections with 1,100 descriptors: $few_rings rings; $many connections with 262,144: $rings"
[ "$few_rings" -ge 4 ] || fail "$few_rings rings hold 4,000 connections with 1,100 descriptors"
[ "$rings" -eq 1 ] || fail "$many connections took $rings rings"
