#!/bin/bash
# Boots one kernel in a throw-away guest (virtme-ng, QEMU), runs a script in it, and passes on the script's exit status.
# The guest sees this machine's root, copy on write; nothing that it does stays.
#
# Usage: boot.sh CACHE KERNEL LOG_DIR SCRIPT    KERNEL: a folder made by fetch.sh; SCRIPT: for bash, as root
# Environment: VM_MEMORY=1G VM_CPUS=1 VM_LIMIT=120 (seconds) VM_ACCEL=tcg (or kvm) VM_BOOT_TRIES=3
# Writes LOG_DIR/console.log (the kernel) and LOG_DIR/out.log (the script).
# Exit status: the script's own; 124 time limit; 125 the guest could not be started; 255 the guest died.
set -u
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
[ $# -eq 4 ] || { sed -n '5,8s/^# \{0,1\}//p' "$0" >&2; exit 125; }
run=$(readlink -f "$1")/tools/run
kernel=$(readlink -f "$2")
image=$(ls "$kernel"/boot/vmlinuz-* 2>/dev/null | head -n 1)
mkdir -p "$3" && log=$(readlink -f "$3") || exit 125
script=$(readlink -f "$4")
limit=${VM_LIMIT:-120}
[ -r "$image" ] || { echo "boot: no kernel in $kernel" >&2; exit 125; }
[ -x "$run/vng" ] || { echo "boot: no virtme-ng in $1" >&2; exit 125; }

accel=(--disable-kvm)
qemu='-cpu max'
if [ "${VM_ACCEL:-tcg}" = kvm ]; then
	accel=()
	qemu=
fi
# guest-init mounts this one, with a cache, over what virtme-ng mounts.
qemu="$qemu -virtfs local,path=/,mount_tag=wholeroot,security_model=none,readonly=on,multidevs=remap"

{
	printf '#!%s sh\nB=%s\n' "$run/busybox" "$run/busybox"
	cat "$here/guest-init"
} >"$log/init"
chmod +x "$log/init"

# Ended together with everything it started: timeout makes a process group of its own, and passes signals on to it.
child=
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; exit 125' INT TERM HUP

# QEMU re-opens its output by name, so that regular files would overwrite themselves: hence the pipes.
guest() {
	PATH=$run:$PATH:/usr/sbin:/sbin PYTHONPATH=${run%/run}/usr/lib/python3/dist-packages \
		timeout -k 10 "$limit" /usr/bin/python3 "$run/vng" --run "$image" "${accel[@]}" --force-9p -v \
		--cpus "${VM_CPUS:-1}" -m "${VM_MEMORY:-1G}" -a init="$log/init" -a oops=panic -o="$qemu" \
		-- "exec 2>&1; exec bash $script" </dev/null > >(cat >"$log/out.log") 2> >(cat >"$log/console.log") &
	child=$!
	wait $child
}

seen() { grep -aq "guest-init: $1" "$log/console.log"; }

# QEMU's emulation loses a boot now and then. That is tried again, but never a guest that had come to user space.
for try in $(seq "${VM_BOOT_TRIES:-3}"); do
	guest
	status=$?
	child=
	sleep 0.1 # the last bytes pass through the pipes
	seen 'starting script' && break
	cp "$log/console.log" "$log/console.log.$try"
	echo "boot: the guest did not reach user space (try $try, status $status): $log/console.log.$try" >&2
done
seen 'starting script' || exit 125
# An end without the script's own word for it is no success, whatever the status says.
seen 'script returned' || [ $status -eq 124 ] || [ $status -eq 137 ] || exit 255
[ $status -ne 137 ] || exit 124
exit $status
