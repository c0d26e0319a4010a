#!/bin/bash
# Prints the measurements of README and docs/measurements.md. Usage: run.sh BUILD_DIR [echo|memory|fairness|auth|fanout|slow]...
#
# The server has one CPU to itself, the load generator another. What is compared is run in pairs, in turn and with the
# order changing, and the median of the pairs' ratios counts, since a machine's speed drifts. BENCH_ROUNDS (5) pairs of
# BENCH_SECONDS (3) each. Exit status: 0, also when a figure misses its bar; 1 when something could not be measured.
set -u -o pipefail

[ $# -ge 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
B=$1
shift
sections=${*:-echo memory fairness auth fanout slow}
rounds=${BENCH_ROUNDS:-5}
seconds=${BENCH_SECONDS:-3}
for s in $sections; do
	case $s in
	echo | memory | fairness | auth | fanout | slow) ;;
	*) echo "bench: no section '$s'; there are echo, memory, fairness, auth, fanout and slow" >&2; exit 2 ;;
	esac
done

tmp=$(mktemp -d "${TMPDIR:-/tmp}/tidegate-bench.XXXXXX") || exit 1
chmod 755 "$tmp" # the gateway gives up root
failed=0
gateway='' gateway_child='' epoll='' flood=''

stop() { # PID: asks, then insists
	[ -n "$1" ] || return 0
	kill "$1" 2>/dev/null
	for _ in $(seq 50); do
		kill -0 "$1" 2>/dev/null || break
		sleep 0.1
	done
	kill -9 "$1" 2>/dev/null
	wait "$1" 2>/dev/null
}
stop_all() {
	stop "$gateway"
	stop "$epoll"
	stop "$flood"
	gateway='' gateway_child='' epoll='' flood=''
}
trap 'stop_all; rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP

unmeasured() {
	echo "bench: could not be measured: $*" >&2
	failed=1
}

# ---- machine ----

cpus=$(taskset -pc $$ | sed 's/.*: //' | tr ',' '\n' | awk -F- '{ for (i = $1; i <= (NF > 1 ? $2 : $1); i++) print i }')
server_cpu=$(echo "$cpus" | sed -n 1p)
client_cpu=$(echo "$cpus" | sed -n 2p)
[ -n "$client_cpu" ] || { echo "bench: needs two CPUs" >&2; exit 1; }
ulimit -n "$(ulimit -Hn)"

echo "machine: $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1), $(echo "$cpus" | wc -l) CPUs," \
	"$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo); Linux $(uname -r);" \
	"$(ulimit -n) files; load $(cut -d' ' -f1-3 /proc/loadavg)"
# Ahead of whatever else runs, where that is allowed: a busy server would share its CPU by the time slice.
prio='' priority=ordinary
nice -n -15 true 2>/dev/null && prio='nice -n -15' priority='nice -15'
[ -z "$prio" ] || [ "$($prio nice)" = -15 ] || { prio='' priority=ordinary; }

echo "server on CPU $server_cpu, load generator on CPU $client_cpu, priority $priority; $rounds rounds of $seconds s"

ticks=$(head -1 /proc/stat)

# ---- servers ----

free_ports() { # N: as many unused ports of 127.0.0.1
	python3 -c '
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))' "$1"
}

start_gateway() { # [MORE]: further configuration, its first lines being routes
	local admin_port
	read -r port admin_port <<<"$(free_ports 2)"
	admin=http://127.0.0.1:$admin_port
	cat >"$tmp/tidegate.yaml" <<-YAML
		instance: bench
		workers:
		  count: 1
		  pin: true
		log:
		  level: error
		admin:
		  listen: 127.0.0.1:$admin_port
		  socket: $tmp/admin.sock
		admission: # the load opens its connections as fast as it can: pacing them is not what is measured
		  mode: off
		listeners:
		  - name: bench
		    address: 127.0.0.1:$port
		    protocol: websocket
		routes:
		  - path: /echo
		    upstream: echo
		  - path: /hub
		    upstream: hub
		  - path: /capped
		    upstream: hub
		    max_message_size: 32KiB
		    out_queue:
		      bytes: 64KiB
		      policy: drop-oldest
	YAML
	printf '%s' "${1:-}" >>"$tmp/tidegate.yaml"
	# shellcheck disable=SC2086
	$prio taskset -c "$server_cpu" "$B/tidegate" -c "$tmp/tidegate.yaml" >"$tmp/tidegate.log" 2>&1 &
	gateway=$!
	gateway_at=ws://127.0.0.1:$port gateway_url=ws://127.0.0.1:$port/echo
	for _ in $(seq 100); do
		if curl -fs -o /dev/null "$admin/readyz"; then
			gateway_child=$(pgrep -P "$gateway" | tr '\n' ' ')
			return 0
		fi
		kill -0 "$gateway" 2>/dev/null || break
		sleep 0.1
	done
	unmeasured "the gateway did not start:"
	tail -5 "$tmp/tidegate.log" >&2
	return 1
}

start_epoll() {
	# shellcheck disable=SC2086
	$prio "$B/tests/support/epoll_server" --port 0 --cpu "$server_cpu" >"$tmp/epoll.log" 2>&1 &
	epoll=$!
	for _ in $(seq 50); do
		epoll_url=$(sed -n 's|^listening on \(.*\)$|ws://\1/echo|p' "$tmp/epoll.log")
		[ -n "$epoll_url" ] && return 0
		sleep 0.1
	done
	unmeasured "the epoll server did not start: $(cat "$tmp/epoll.log")"
	return 1
}

# FILE COMMAND [OPTION]...: appends the JSON of one run to FILE, whatever its exit status; a run without one is an error.
bench() {
	local file=$1 out
	shift
	# shellcheck disable=SC2086
	out=$($prio "$B/tidegate-bench" "$@" --pin "$client_cpu" --json --quiet 2>"$tmp/bench.err")
	local status=$?
	if [ "$status" -ne 0 ]; then
		unmeasured "tidegate-bench $*: exit status $status; $(cat "$tmp/bench.err")" "$(tail -1 <<<"$out" | cut -c1-400)"
		return 1
	fi
	tail -1 <<<"$out" >>"$file"
}

gateway_pids() {
	local p
	for p in $gateway $gateway_child; do printf -- '--pid %s ' "$p"; done
}

# ---- figures ----

# FILE EXPRESSION: median over the runs of FILE, `r` being a run's JSON. Two files: median over pairs, `r` and `s`.
median() {
	python3 -c '
import json, statistics, sys
*files, expression = sys.argv[1:]
runs = [[json.loads(line) for line in open(f)] for f in files]
print("%.4f" % statistics.median(eval(expression, dict(zip("rs", pair))) for pair in zip(*runs)))' "$@"
}

bar() { # VALUE LIMIT
	awk -v v="$1" -v limit="$2" 'BEGIN { printf "%s (bar: <= %s)", v <= limit ? "meets" : "MISSES", limit }'
}

# ---- sections ----

# CONNECTIONS BYTES [LIMIT]: pairs of runs, and a row of the table.
echo_row() {
	local n=$1 size=$2 limit=${3:-} i who order ratio g=$tmp/echo.$1.$2.gateway e=$tmp/echo.$1.$2.epoll
	for i in $(seq "$rounds"); do
		order='gateway epoll'
		[ $((i % 2)) -eq 0 ] && order='epoll gateway'
		for who in $order; do
			# shellcheck disable=SC2046
			if [ "$who" = gateway ]; then
				bench "$g" echo --url "$gateway_url" --connections "$n" --size "$size" --duration "$seconds" \
					$(gateway_pids)
			else
				bench "$e" echo --url "$epoll_url" --connections "$n" --size "$size" --duration "$seconds" \
					--pid "$epoll"
			fi || return
		done
	done
	ratio=$(median "$g" "$e" 'r["server"]["cpu_us_per_message"] / s["server"]["cpu_us_per_message"]')
	printf '%12d %7d  %14.0f %9.2f  %14.0f %9.2f  %6.2f  %s\n' "$n" "$size" \
		"$(median "$g" 'r["messages_per_s"]')" "$(median "$g" 'r["server"]["cpu_us_per_message"]')" \
		"$(median "$e" 'r["messages_per_s"]')" "$(median "$e" 'r["server"]["cpu_us_per_message"]')" \
		"$ratio" "$([ -z "$limit" ] || bar "$ratio" "$limit")"
}

section_echo() {
	local n size
	echo
	echo "echo: one message under way per connection; medians, and the median of the ratios"
	printf '%12s %7s  %14s %9s  %14s %9s  %6s\n' connections bytes 'tidegate msg/s' 'us/msg' 'epoll msg/s' 'us/msg' 'ratio'
	start_gateway || return
	start_epoll || return
	for n in 1 100 1000 10000; do
		echo_row "$n" 64 "$([ "$n" -ge 1000 ] && echo 0.75 || echo 1.10)" || return
	done
	for size in 1024 16384; do
		echo_row 100 "$size" || return
	done
	stop_all
}

section_memory() {
	local n f each missing
	echo
	echo "memory: idle WebSocket connections; growth of the daemon (both processes) from its start"
	for n in 15000 100000; do
		f=$tmp/hold.$n
		start_gateway || return
		# shellcheck disable=SC2046
		bench "$f" hold --url "$gateway_url" --connections "$n" --max-errors "$n" --duration 5 $(gateway_pids) || return
		each=$(median "$f" 'r["server"]["rss_bytes_per_connection"]')
		printf '%12d  %.0f bytes a connection, %s\n' "$n" "$each" "$(bar "$each" 256)"
		missing=$(median "$f" 'r["connections"] - r["held"]')
		printf '%12s  %.0f held, %.0f not, %s; %.0f connects/s, %.1f %% CPU while held\n' '' \
			"$(median "$f" 'r["held"]')" "$missing" "$(bar "$missing" 0)" "$(median "$f" 'r["connects_per_s"]')" \
			"$(median "$f" 'r["server"]["hold_cpu_percent"]')"
		printf '%12s  kernel, both ends: %.0f bytes of slab and %.0f of TCP memory a connection\n' '' \
			"$(median "$f" 'r["kernel_slab_bytes_per_connection"]')" \
			"$(median "$f" 'r["kernel_tcp_bytes_per_connection"]')"
		stop_all
	done
}

forced_yields() {
	curl -fs "$admin/metrics" | awk '/^tidegate_forced_yields_total/ { sum += $NF } END { printf "%.0f", sum }'
}

section_fairness() {
	local i hogs order before after ratio alone=$tmp/fair.alone hog=$tmp/fair.hog
	echo
	echo "fairness: 1,000 connections, 64 bytes, open loop at 20,000 messages/s, alone and beside one that pipelines" \
		"1-byte messages without end"
	start_gateway || return
	before=$(forced_yields) || { unmeasured "no /metrics"; return; }
	for i in $(seq "$rounds"); do
		order='0 1'
		[ $((i % 2)) -eq 0 ] && order='1 0'
		for hogs in $order; do
			# shellcheck disable=SC2046
			bench "$([ "$hogs" = 1 ] && echo "$hog" || echo "$alone")" echo --url "$gateway_url" \
				--connections 1000 --rate 20000 --hog "$hogs" --duration "$seconds" $(gateway_pids) || return
		done
	done
	after=$(forced_yields) || { unmeasured "no /metrics"; return; }
	ratio=$(median "$hog" "$alone" 'r["latency_us"]["p99"] / s["latency_us"]["p99"]')
	printf '%12s  p50 %.0f us, p99 %.0f us\n' alone "$(median "$alone" 'r["latency_us"]["p50"]')" \
		"$(median "$alone" 'r["latency_us"]["p99"]')"
	printf '%12s  p50 %.0f us, p99 %.0f us; the hog: %.0f messages/s\n' 'beside it' \
		"$(median "$hog" 'r["latency_us"]["p50"]')" "$(median "$hog" 'r["latency_us"]["p99"]')" \
		"$(median "$hog" 'r["hog_messages_per_s"]')"
	printf '%12s  p99 x %.2f, %s; %s forced yields, %s\n' ratio "$ratio" "$(bar "$ratio" 2.0)" $((after - before)) \
		"$([ "$after" -gt "$before" ] && echo meets || echo MISSES) (bar: > 0)"
	stop_all
}

handshakes() {
	curl -fs "$admin/metrics" | awk '/^tidegate_handshakes_total/ { sum += $NF } END { printf "%.0f", sum }'
}

# A token that is good for a day, signed with RS256 by a new key.
make_token() {
	openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$tmp/rs.key" 2>/dev/null ||
		openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$tmp/rs.key" 2>/dev/null || return
	openssl pkey -in "$tmp/rs.key" -pubout -out "$tmp/rs.pem" || return
	base64url() { base64 -w0 | tr +/ -_ | tr -d =; }
	local text
	text=$(printf '{"alg":"RS256","typ":"JWT"}' | base64url).$(printf '{"sub":"bench","exp":%d}' \
		$(($(date +%s) + 86400)) | base64url)
	printf '%s.%s\n' "$text" "$(printf %s "$text" | openssl dgst -sha256 -sign "$tmp/rs.key" | base64url)" >"$tmp/token"
}

section_auth() {
	local i floods order ratio before spent=0 verified=0 alone=$tmp/auth.alone flooded=$tmp/auth.flooded
	echo
	echo "auth: 1,000 connections, 64 bytes, open loop at 20,000 messages/s, alone and beside new connections that" \
		"come as fast as their RS256 tokens are verified; worker and crypto thread share one CPU"
	make_token || { unmeasured "no token could be made"; return; }
	start_gateway "  - path: /jwt
    upstream: echo
    auth:
      type: jwt
auth:
  keys:
    - algorithm: RS256
      file: $tmp/rs.pem
" || return
	for i in $(seq "$rounds"); do
		order='0 1'
		[ $((i % 2)) -eq 0 ] && order='1 0'
		for floods in $order; do
			if [ "$floods" = 1 ]; then
				# Behind the measured load on the generator's CPU: its own delays are not to count.
				chrt -i 0 "$B/tidegate-bench" hold --url "${gateway_url%/echo}/jwt" --token-file "$tmp/token" \
					--connections 100000 --max-errors 100000 --duration 60 --pin "$client_cpu" --quiet \
					>"$tmp/flood.log" 2>&1 &
				flood=$!
				sleep 0.3
				before=$(handshakes)
				spent=$(($(date +%s%N) / 1000000 - spent))
			fi
			# shellcheck disable=SC2046
			bench "$([ "$floods" = 1 ] && echo "$flooded" || echo "$alone")" echo --url "$gateway_url" \
				--connections 1000 --rate 20000 --duration "$seconds" $(gateway_pids) || return
			if [ "$floods" = 1 ]; then
				verified=$((verified + $(handshakes) - before - 1000))
				spent=$(($(date +%s%N) / 1000000 - spent))
				kill -0 "$flood" 2>/dev/null || { unmeasured "the flood ended: $(cat "$tmp/flood.log")"; return; }
				stop "$flood"
				flood=''
			fi
		done
	done
	ratio=$(median "$flooded" "$alone" 'r["latency_us"]["p99"] / s["latency_us"]["p99"]')
	printf '%12s  p50 %.0f us, p99 %.0f us\n' alone "$(median "$alone" 'r["latency_us"]["p50"]')" \
		"$(median "$alone" 'r["latency_us"]["p99"]')"
	printf '%12s  p50 %.0f us, p99 %.0f us; %.0f tokens verified a second\n' 'beside it' \
		"$(median "$flooded" 'r["latency_us"]["p50"]')" "$(median "$flooded" 'r["latency_us"]["p99"]')" \
		"$((verified * 1000 / spent))"
	printf '%12s  p99 x %.2f, %s\n' ratio "$ratio" "$(bar "$ratio" 2.0)"
	stop_all
}

section_fanout() {
	local i who order ratio g=$tmp/fanout.gateway e=$tmp/fanout.epoll f name
	echo
	echo "fanout: 4 publications/s of 64 bytes to 15,000 subscribers, 100 others echo at 2,000 messages/s: alone, then meanwhile"
	start_gateway || return
	start_epoll || return
	for i in $(seq "$rounds"); do
		order='gateway epoll'
		[ $((i % 2)) -eq 0 ] && order='epoll gateway'
		for who in $order; do
			# shellcheck disable=SC2046
			if [ "$who" = gateway ]; then
				bench "$g" fanout --url "$gateway_at/hub" --connections 15000 --rate 4 --duration "$seconds" $(gateway_pids)
			else
				bench "$e" fanout --url "${epoll_url%/echo}/hub" --connections 15000 --rate 4 --duration "$seconds" --pid "$epoll"
			fi || return
		done
	done
	for f in "$g" "$e"; do
		name=tidegate
		[ "$f" = "$e" ] && name='naive loop'
		printf '%12s  %.0f deliveries/s, %.0f ns of CPU each; last subscriber p50 %.1f ms, p99 %.1f ms\n' "$name" \
			"$(median "$f" 'r["deliveries_per_s"]')" "$(median "$f" 'r["server"]["cpu_ns_per_delivery"]')" \
			"$(median "$f" 'r["last_us"]["p50"] / 1e3')" "$(median "$f" 'r["last_us"]["p99"] / 1e3')"
		ratio=$(median "$f" 'r["echo"]["p99_ratio"]')
		printf '%12s  echo p99 %.2f ms alone, %.2f ms meanwhile: x %.2f%s\n' '' \
			"$(median "$f" 'r["echo"]["calm_us"]["p99"] / 1e3')" "$(median "$f" 'r["echo"]["fanout_us"]["p99"] / 1e3')" \
			"$ratio" "$([ "$f" = "$g" ] && echo ", $(bar "$ratio" 3.0)")"
	done
	printf '%12s  CPU a delivery x %.2f\n' ratio \
		"$(median "$g" "$e" 'r["server"]["cpu_ns_per_delivery"] / s["server"]["cpu_ns_per_delivery"]')"
	stop_all
}

# Messages that out queues of a route dropped, "POLICY N" a line.
drops() { # ROUTE
	curl -fs "$admin/metrics" | awk -v route="route=\"$1\"" '/^tidegate_out_dropped_total\{/ && index($1, route) {
		policy = $1; sub(/.*policy="/, "", policy); sub(/".*/, "", policy); sum[policy] += $NF }
		END { for (p in sum) if (sum[p] > 0) printf "%s %.0f\n", p, sum[p] }'
}

section_slow() {
	local i ratio each growth f=$tmp/slow dropped
	echo
	echo "slow: 50 publications/s of 2 KiB to 1,000 readers, without and with 100 that never read; out queues of 64 KiB, drop-oldest"
	start_gateway || return
	for i in $(seq "$rounds"); do
		# shellcheck disable=SC2046
		bench "$f" slow --url "$gateway_at/capped" --connections 1000 --slow 100 --rate 50 --size 2048 \
			--duration "$seconds" $(gateway_pids) || return
	done
	dropped=$(drops /capped)
	ratio=$(median "$f" 'r["p99_ratio"]')
	printf '%12s  p50 %.2f ms, p99 %.2f ms without; p50 %.2f ms, p99 %.2f ms with: p99 x %.2f, %s\n' readers \
		"$(median "$f" 'r["alone_us"]["p50"] / 1e3')" "$(median "$f" 'r["alone_us"]["p99"] / 1e3')" \
		"$(median "$f" 'r["beside_us"]["p50"] / 1e3')" "$(median "$f" 'r["beside_us"]["p99"] / 1e3')" \
		"$ratio" "$(bar "$ratio" 2.0)"
	# What the caps allow: twice SO_SNDBUF and SO_RCVBUF, as the kernel counts, and the segment that passes each.
	each=$(median "$f" 'r["kernel_tcp"]["bytes_per_deaf"]')
	printf '%12s  %.0f bytes for each that does not read, both ends, %s\n' kernel "$each" \
		"$(bar "$each" $((2 * 65536 + 2 * 4096 + 2 * 16384)))"
	growth=$(median "$f" 'r["server"]["rss_peak_bytes"] - r["server"]["rss_before_bytes"]')
	printf '%12s  grows by %.1f MiB, %s bytes\n' gateway "$(awk -v b="$growth" 'BEGIN { print b / 1048576 }')" \
		"$(bar "$growth" $((100 * 65536)))"
	printf '%12s  %s messages by policy: %s\n' dropped "$([ -n "$dropped" ] && echo meets || echo MISSES) (bar: > 0)" \
		"${dropped//$'\n'/, }"
	stop_all
}

for s in $sections; do
	case $s in
	auth) section_auth ;;
	echo) section_echo ;;
	memory) section_memory ;;
	fairness) section_fairness ;;
	fanout) section_fanout ;;
	slow) section_slow ;;
	esac
	stop_all
done

# Ticks of all CPUs: other processes' work shows in the load above, a hypervisor's other guests only here.
awk -v before="$ticks" '/^cpu / { split(before, b); for (i = 2; i <= 9; i++) all += $i - b[i];
	printf "\nmeanwhile %.0f %% of CPU time was stolen by the hypervisor, %.0f %% idle\n",
		100 * ($9 - b[9]) / all, 100 * ($5 - b[5]) / all }' /proc/stat
exit $failed
