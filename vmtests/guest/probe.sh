# What --probe says, held against the kernel's own version: each line names the kernel that brought the feature.
# kernels: 6.1 6.12 newest
# limit: 120
# memory: 512M
# smoke: yes
. "$VMTESTS/guest/lib.sh"

"$BUILD/tidegate" --probe >/tmp/probe 2>/tmp/probe.err
status=$?
cat /tmp/probe /tmp/probe.err
grep -q "^kernel .* $(uname -r)\(, too old\)\?$" /tmp/probe || fail "the kernel's release is not there"

judged=0
while IFS= read -r line; do
	since=$(echo "$line" | sed -n 's/.*(\([0-9]*\.[0-9]*\)) *\(yes\|no\).*/\1/p')
	[ -n "$since" ] || continue
	judged=$((judged + 1))
	answer=no
	if kernel_at_least "$since"; then answer=yes; fi
	echo "$line" | grep -q ") *$answer" || fail "this kernel is $(uname -r), expected '$answer': $line"
done </tmp/probe
[ $judged -ge 5 ] || fail "only $judged lines name the kernel they need"

expected=1
if kernel_at_least 6.12; then expected=0; fi
[ $status -eq $expected ] || fail "exit status $status, expected $expected"
grep -q "^RLIMIT_NOFILE *$(ulimit -Sn), hard limit $(ulimit -Hn)$" /tmp/probe || fail "RLIMIT_NOFILE is not there"

# What the gate needs is in all stock kernels.
[ -r /sys/kernel/btf/vmlinux ] || fail "this kernel has no BTF"
grep -q '^BTF of the kernel.* yes$' /tmp/probe || fail "the kernel's BTF is not seen"
grep -q '^BPF freplace.* yes$' /tmp/probe || fail "freplace is not seen"

# Not asked by the probe yet: what the kernel offers for TLS.
if modprobe tls 2>/dev/null; then
	fact "kTLS: $(/usr/bin/python3 - <<'END'
import socket
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
client.setsockopt(socket.IPPROTO_TCP, 31, b"tls")  # TCP_ULP
# TLS 1.3, AES-128-GCM: iv, key, salt, record number
info = bytes([0x04, 0x03, 51, 0]) + bytes(8) + bytes(16) + bytes(4) + bytes(8)
for name, which in (("send", 1), ("receive", 2)):
    try:
        client.setsockopt(282, which, info)
        print("TLS 1.3 AES-GCM %s" % name, end=" ")
    except OSError as e:
        print("no TLS 1.3 AES-GCM %s (%s)" % (name, e), end=" ")
END
)"
else
	fact "kTLS: no module"
fi
