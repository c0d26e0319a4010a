#!/bin/bash
# Brings what the VM tests need into a cache folder: QEMU, virtme-ng and kernels, all of them Debian packages.
#
# Usage: fetch.sh CACHE tools           ends with CACHE/tools ready
#        fetch.sh CACHE kernel NAME     NAME: 6.1, 6.12 or newest; prints the kernel's release, last
#
# Nothing is installed: packages come through an apt configuration of its own under CACHE (the system's sources stay
# untouched, and root is not needed), are unpacked with dpkg -x, and run from there. Of the tools' dependencies only those
# that the system lacks are fetched. Exit status: 0, 1 cannot be had (the reason on stderr).
set -u -o pipefail

fail() { echo "fetch: $*" >&2; exit 1; }

[ $# -ge 2 ] || fail "usage: fetch.sh CACHE tools | kernel NAME"
mkdir -p "$1" || fail "cannot create $1"
cache=$(readlink -f "$1")
what=$2
refresh_minutes=1440 # a cached package index older than that is fetched again
tools=$cache/tools
apt=$cache/apt

command -v apt-get >/dev/null && command -v dpkg >/dev/null || fail "this is not Debian: no apt-get"
arch=$(dpkg --print-architecture)
[ "$arch" = amd64 ] || fail "there are no kernels for $arch here, only for amd64"
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
case $codename in
bookworm | trixie) ;;
*) fail "'$codename' is neither Debian 12 (bookworm) nor Debian 13 (trixie)" ;;
esac

# One run at a time works on the cache.
exec 9>"$cache/lock"
flock 9

# The mirrors are those that this system already uses for Debian.
mirrors() {
	apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
		awk '$2 == "Debian" { if ($3 ~ /-security$/) security = $1; else if ($3 !~ /-/) main = $1 }
			END { print main, security }'
}

# Only the suites that something is taken from. Pins of -1 keep a foreign suite out of every dependency; kernels are asked for
# by their full names, and may come from any.
write_sources() {
	local key=/usr/share/keyrings/debian-archive-keyring.gpg main security suite
	read -r main security < <(mirrors)
	[ -n "${main:-}" ] || fail "no Debian mirror in the system's apt sources"
	[ -r $key ] || fail "$key is missing (package debian-archive-keyring)"
	mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/empty"
	for suite in bookworm bookworm-updates bookworm-backports trixie trixie-updates trixie-backports; do
		echo "deb [signed-by=$key] $main $suite main"
	done >"$apt/sources.list"
	if [ -n "${security:-}" ]; then
		for suite in bookworm-security trixie-security; do
			echo "deb [signed-by=$key] $security $suite main"
		done >>"$apt/sources.list"
	fi
	printf 'Package: linux-image-* linux-binary-* linux-modules-* linux-base-*\nPin: version *\nPin-Priority: 50\n\n' \
		>"$apt/preferences"
	if [ "$codename" = bookworm ]; then
		# Debian 12's QEMU 7.2 loses guests under emulation; virtme-ng is not in Debian 12.
		printf 'Package: *\nPin: release n=trixie*\nPin-Priority: -1\n\n'
		printf 'Package: virtme-ng\nPin: release n=trixie\nPin-Priority: 600\n\n'
		printf 'Package: qemu-* seabios\nPin: release n=bookworm-backports\nPin-Priority: 600\n'
	else
		printf 'Package: *\nPin: release n=bookworm*\nPin-Priority: -1\n\n'
		printf 'Package: *\nPin: release n=trixie-backports\nPin-Priority: -1\n'
	fi >>"$apt/preferences"
}

# Private in everything but the list of installed packages, which says what the system lacks.
set_apt() {
	apt_options=(-o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/empty"
		-o Dir::Etc::Preferences="$apt/preferences" -o Dir::Etc::PreferencesParts="$apt/empty"
		-o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt" -o Dir::Cache::Archives="$apt/archives"
		-o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=2)
}

index_is_fresh() { [ -n "$(find "$apt/updated" -mmin -$refresh_minutes 2>/dev/null)" ] && [ -z "${VM_REFRESH:-}" ]; }

# A failed update is an error only where nothing older can serve; the caller knows.
update() {
	set_apt
	index_is_fresh && return
	write_sources
	# shellcheck disable=SC2154
	apt-get "${apt_options[@]}" update -qq >"$cache/apt.log" 2>&1 9>&- || return 1
	touch "$apt/updated"
}

# Into an empty folder, each package unpacked over the last.
download_to() {
	local dest=$1 d
	shift
	mkdir -p "$dest/debs" || return 1
	(cd "$dest/debs" && apt-get "${apt_options[@]}" download -qq "$@" >>"$cache/apt.log" 2>&1) || return 1
	for d in "$dest"/debs/*.deb; do
		dpkg -x "$d" "$dest" || return 1
	done
	rm -rf "$dest/debs"
}

# Commands of the cache, for PATH. Debian's kmod links to /bin/kmod, and QEMU and kmod may bring libraries of their own.
write_wrappers() {
	local root=$1 name path libs=
	libs=$tools/usr/lib/x86_64-linux-gnu:$tools/lib/x86_64-linux-gnu
	mkdir -p "$root/run"
	wrapper() {
		printf '#!/bin/bash\nLD_LIBRARY_PATH=%s exec -a %s "%s" "$@"\n' "$libs" "$1" "$2" >"$root/run/$1"
		chmod +x "$root/run/$1"
	}
	for name in modprobe depmod; do
		path=/bin/kmod
		[ ! -e "$root/bin/kmod" ] || path=$tools/bin/kmod
		[ ! -e "$root/usr/bin/kmod" ] || path=$tools/usr/bin/kmod
		wrapper $name "$path"
	done
	for name in busybox file strings bpftool vng virtme-run; do
		for path in bin usr/bin sbin usr/sbin; do
			[ -e "$root/$path/$name" ] || continue
			# Hard links: virtme-ng asks file(1) whether busybox is static, which does not follow the others.
			ln -f "$root/$path/$name" "$root/run/$name"
		done
	done
	path=$(command -v qemu-system-x86_64)
	[ ! -e "$root/usr/bin/qemu-system-x86_64" ] || path=$tools/usr/bin/qemu-system-x86_64
	printf '#!/bin/bash\nLD_LIBRARY_PATH=%s QEMU_MODULE_DIR=%s exec "%s" -L %s -L %s "$@"\n' "$libs" \
		"$tools/usr/lib/x86_64-linux-gnu/qemu" "$path" "$tools/usr/share/qemu" "$tools/usr/share/seabios" \
		>"$root/run/qemu-system-x86_64"
	chmod +x "$root/run/qemu-system-x86_64"
}

# A cache outlives changes of the system below it: each tool must still start.
tools_work() {
	[ -e "$tools/.done" ] || return 1
	"$tools/run/qemu-system-x86_64" --version >/dev/null 2>&1 && "$tools/run/modprobe" --version >/dev/null 2>&1 &&
		[ -x "$tools/run/busybox" ] &&
		PYTHONPATH=$tools/usr/lib/python3/dist-packages /usr/bin/python3 "$tools/run/vng" --version >/dev/null 2>&1
}

fetch_tools() {
	local names fresh=$cache/tools.new
	tools_work && return
	update || fail "the package index cannot be fetched: $(tail -n 1 "$cache/apt.log")"
	# The cache has its own copy of each of these four even where the system has them.
	names=$(apt-get "${apt_options[@]}" install -s --no-install-recommends virtme-ng qemu-system-x86 busybox-static kmod \
		bpftool file binutils python3 2>"$cache/apt.log" 9>&- | awk '$1 == "Inst" { print $2 }') ||
		fail "QEMU cannot be installed here: $(tail -n 1 "$cache/apt.log")"
	for name in virtme-ng qemu-system-x86 busybox-static kmod; do
		names="$names $name"
	done
	names=$(printf '%s\n' $names | sort -u)
	echo "fetch: QEMU, virtme-ng and what they need" >&2
	rm -rf "$fresh"
	# shellcheck disable=SC2086
	download_to "$fresh" $names || fail "the tools cannot be fetched: $(tail -n 1 "$cache/apt.log")"
	write_wrappers "$fresh"
	rm -rf "$tools"
	mv "$fresh" "$tools"
	touch "$tools/.done"
	tools_work || { rm -f "$tools/.done"; fail "the unpacked QEMU or virtme-ng does not start"; }
}

# The release that the suite's meta package stands for; of 6.12 and 6.1 there is more than one suite.
kernel_release() {
	local pattern
	case $1 in
	6.1) pattern='^6\.1\.' ;;
	6.12) pattern='^6\.12\..*deb12' ;;
	newest) pattern='deb13' ;;
	*) fail "no kernel '$1': there are 6.1, 6.12 and newest" ;;
	esac
	apt-cache "${apt_options[@]}" show linux-image-amd64 2>>"$cache/apt.log" |
		sed -n 's/^Depends:.*linux-image-\([0-9][^ ,]*-amd64\).*/\1/p' | grep -E "$pattern" | sort -V | tail -n 1
}

# The newest kernels are split into packages; the image is linked to where virtme-ng looks.
unpack_kernel() {
	local release=$1 dest=$2 names=linux-image-$1
	if apt-cache "${apt_options[@]}" show "linux-binary-$release" >/dev/null 2>&1; then
		names="linux-binary-$release linux-modules-$release linux-base-$release"
	fi
	# shellcheck disable=SC2086
	download_to "$dest" $names || return 1
	[ -e "$dest/lib" ] || ln -s usr/lib "$dest/lib"
	if [ ! -e "$dest/boot/vmlinuz-$release" ]; then
		mkdir -p "$dest/boot"
		ln -s "../usr/lib/modules/$release/vmlinuz" "$dest/boot/vmlinuz-$release"
	fi
	[ -r "$dest/boot/vmlinuz-$release" ] || return 1
	"$tools/run/depmod" -b "$dest" "$release"
}

fetch_kernel() {
	local name=$1 base=$cache/kernels/$1 release= cached=
	cached=$(ls "$base" 2>/dev/null | grep -v '\.new$' | tail -n 1)
	if update; then
		release=$(kernel_release "$name") || exit 1
		[ -n "$release" ] || [ -n "$cached" ] || fail "no suite has a kernel $name"
	elif [ -z "$cached" ]; then
		fail "the package index cannot be fetched: $(tail -n 1 "$cache/apt.log")"
	fi
	: "${release:=$cached}"
	if [ ! -e "$base/$release/.done" ]; then
		echo "fetch: kernel $release" >&2
		rm -rf "$base"
		unpack_kernel "$release" "$base/$release.new" || fail "kernel $release cannot be fetched: $(tail -n 1 "$cache/apt.log")"
		mv "$base/$release.new" "$base/$release"
		touch "$base/$release/.done"
	fi
	echo "$release"
}

case $what in
tools) fetch_tools ;;
kernel) fetch_kernel "${3:?}" ;;
*) fail "no such thing to fetch: $what" ;;
esac
