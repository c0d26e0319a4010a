#!/bin/sh
# Installs what the build and the tests need, from the distribution's own packages, and uPlot by npm. Usage: deps.sh BUILD_DIR
#
# Debian 12 ships liburing 2.3, which lacks the socket commands and buffer-ring helpers; Debian 13's 2.9 depends only on
# libc6 >= 2.4. It is fetched through a private apt configuration under BUILD_DIR (the system's sources stay untouched)
# and unpacked, not installed; the build links it statically.
#
# Prometheus is a service: installed, it would start. The tests want its two programs only, which are unpacked likewise.
set -eu
build=$1
dest=$build/deps

packages="gcc make pkg-config libc6-dev libssl-dev libcmocka-dev libcyaml-dev libyaml-dev libjansson-dev
libmicrohttpd-dev libjwt-dev libcap-ng-dev libncurses-dev zlib1g-dev clang llvm libbpf-dev libxdp-dev bpftool iproute2 python3
python3-websockets curl openssl chromium chromium-driver fonts-dejavu-core"
command -v node >/dev/null 2>&1 || packages="$packages nodejs"
command -v npm >/dev/null 2>&1 || packages="$packages npm"

missing() {
	for p in $packages; do
		dpkg-query -W -f='${db:Status-Abbrev}' "$p" 2>/dev/null | grep -q '^ii' || printf '%s ' "$p"
	done
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"
	elif command -v sudo >/dev/null 2>&1; then sudo "$@"
	else echo "deps: root is needed to run: $*" >&2; exit 1
	fi
}

if ! command -v apt-get >/dev/null 2>&1; then
	echo "deps: this is not Debian; install the packages named in tools/packaging/deps.sh and liburing >= 2.9" >&2
	exit 1
fi

need=$(missing)
if [ -n "$need" ]; then
	echo "deps: installing $need"
	as_root apt-get update -qq || true
	# shellcheck disable=SC2086
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $need >/dev/null
	need=$(missing)
	[ -z "$need" ] || { echo "deps: still missing: $need" >&2; exit 1; }
fi

fetch_liburing() {
	# The mirror is whatever this system already uses for Debian.
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
		awk '$2 == "Debian" && $3 !~ /security|backports|updates/ { print $1; exit }')
	[ -n "$mirror" ] || { echo "deps: no Debian mirror in the system's apt sources" >&2; exit 1; }
	apt=$build/apt
	mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/empty"
	apt=$(cd "$apt" && pwd)
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$apt/sources.list"
	: > "$apt/status"
	private="-o Dir::Etc::SourceList=$apt/sources.list -o Dir::Etc::SourceParts=$apt/empty
		-o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=$apt/empty
		-o Dir::State::Lists=$apt/lists -o Dir::State::Status=$apt/status -o Dir::Cache=$apt
		-o Dir::Cache::Archives=$apt/archives -o APT::Sandbox::User=root -o Acquire::Languages=none"
	# shellcheck disable=SC2086
	apt-get $private update -qq
	# shellcheck disable=SC2086
	(cd "$apt" && apt-get $private download -qq liburing-dev=2.9-1)
	rm -rf "$dest/liburing"
	mkdir -p "$dest/liburing"
	dpkg -x "$apt"/liburing-dev_2.9-1_*.deb "$dest/liburing"
	rm -rf "$apt"
}

if [ ! -e "$dest/liburing/usr/include/liburing.h" ]; then
	echo "deps: fetching liburing 2.9"
	fetch_liburing
fi

fetch_prometheus() {
	apt=$build/apt
	rm -rf "$apt" "$dest/prometheus"
	mkdir -p "$apt" "$dest/prometheus"
	download_prometheus || { as_root apt-get update -qq; download_prometheus; }
	for deb in "$apt"/*.deb; do dpkg -x "$deb" "$apt/unpacked"; done
	mv "$apt/unpacked/usr/bin/prometheus" "$apt/unpacked/usr/bin/promtool" "$dest/prometheus/"
	rm -rf "$apt"
}

# Since Debian 13 promtool is a package of its own.
download_prometheus() {
	# shellcheck disable=SC2046
	(cd "$apt" && apt-get -o APT::Sandbox::User=root download -qq prometheus \
		$(apt-cache --names-only search '^promtool$' | cut -d' ' -f1))
}

if [ ! -x "$dest/prometheus/promtool" ]; then
	echo "deps: fetching prometheus"
	fetch_prometheus
fi

# The dashboard embeds uPlot; the lock file says which, and its checksum.
if ! cmp -s tools/packaging/dashboard/package-lock.json "$dest/dashboard/package-lock.json" ||
	[ ! -e "$dest/dashboard/node_modules/uplot/dist/uPlot.iife.min.js" ]; then
	echo "deps: fetching uPlot"
	mkdir -p "$dest/dashboard"
	cp tools/packaging/dashboard/package.json tools/packaging/dashboard/package-lock.json "$dest/dashboard/"
	(cd "$dest/dashboard" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error >/dev/null) ||
		{ echo "deps: uPlot could not be fetched by npm" >&2; exit 1; }
fi

# liburing.h asks for BLOCK_URING_CMD_DISCARD, which Debian 12's kernel headers (6.1) do not have.
if ! grep -qs BLOCK_URING_CMD_DISCARD /usr/include/linux/blkdev.h; then
	mkdir -p "$dest/compat/linux"
	printf '#pragma once\n#include <linux/ioctl.h>\n#define BLOCK_URING_CMD_DISCARD _IO(0x12, 0)\n' > "$dest/compat/linux/blkdev.h"
fi
