# A kernel older than 6.12: the daemon says what is missing, opens nothing, and ends with status 1.
# kernels: 6.1
# limit: 120
# memory: 512M
# smoke: no
. "$VMTESTS/guest/lib.sh"

refuses() { # WHAT COMMAND...
	local what=$1 status
	shift
	timeout 60 "$@" >/tmp/out 2>&1
	status=$?
	cat /tmp/out
	[ $status -eq 1 ] || fail "$what: exit status $status, expected 1"
	grep -q "Linux $(uname -r) is older than 6.12" /tmp/out || fail "$what: the message does not name the kernel"
	grep -q 'missing: .*GETSOCKOPT (6.7).*minimum wait (6.12)' /tmp/out || fail "$what: the message does not name what is missing"
	[ "$(grep -c missing /tmp/out)" -eq 1 ] || fail "$what: not one clear line"
}

cat >/tmp/one.yaml <<'END'
admin: {listen: "127.0.0.1:9180", socket: /run/admin.sock}
listeners:
  - {name: ws, address: "127.0.0.1:8080"}
routes:
  - {path: /echo, upstream: echo}
END
refuses 'the demo' "$BUILD/tidegate"
refuses 'a configuration' "$BUILD/tidegate" -c /tmp/one.yaml
# The configuration is looked at all the same: an error in it is worth knowing before the kernel is replaced.
"$BUILD/tidegate" -c /tmp/one.yaml --check || fail "--check needs no kernel"
! grep -qsx tidegate /proc/[0-9]*/comm || fail "a process stays behind"
[ ! -e /run/admin.sock ] || fail "a socket stays behind"
[ -z "$(sed 1d /proc/net/tcp)" ] || fail "a port is open"
