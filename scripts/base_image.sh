#!/usr/bin/env bash
# An image with Python to build on, made from a Debian mirror: no image registry is asked. Prints the path of a tarball
# that `docker load` takes, and `fn build --base`, and `fn builder create --base`. The same packages give the same bytes.
#
#   scripts/base_image.sh [--install]   make it unless it is there; as root; --install also installs debootstrap
#
# FN_DEBIAN_MIRROR  default: debootstrap's own
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(dirname "$here")/.cache
suite=bookworm release=12 packages=python3,ca-certificates
user=65532
PATH=$PATH:/usr/sbin # where debootstrap is

fail() { # MESSAGE HINT
	printf 'Error: %s\nHint: %s\n' "$1" "$2" >&2
	exit 1
}

machine=$(uname -m)
case $machine in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*) fail "there is no base image for $machine." "make it on amd64 or arm64" ;;
esac
key=$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-12)-$architecture
made=$cache/base-image-$key.tar
if [ -s "$made" ]; then
	echo "$made"
	exit
fi

[ "$(id -u)" = 0 ] || fail "a base image is made as root alone." "sudo scripts/base_image.sh; or name a tarball by FN_TEST_BASE"
if ! command -v debootstrap >/dev/null; then
	[ "${CI:-}" = true ] || [ "${1:-}" = --install ] || fail "a base image needs debootstrap." "apt-get install debootstrap, or --install"
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap; } >&2
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/base-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir "$root"
echo "Making an image of Debian $release with Python ..." >&2
debootstrap --variant=minbase --include=$packages $suite "$root" ${FN_DEBIAN_MIRROR:+"$FN_DEBIAN_MIRROR"} >"$work/log" 2>&1 || {
	tail -n 5 "$work/log" >&2
	fail "debootstrap failed." "is a Debian mirror in reach? FN_DEBIAN_MIRROR names another"
}

# What nobody reads in a container, and what differs from one run to the next.
rm -rf "$root"/usr/share/{doc,man,info,locale,lintian,bash-completion} "$root"/usr/lib/python3*/test "$root"/dev/* "$root"/tmp/* \
	"$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/cache/ldconfig/aux-cache \
	"$root"/var/lib/dpkg/*-old "$root"/var/log/* "$root"/etc/{hostname,resolv.conf,machine-id,passwd-,group-,shadow-,gshadow-}
sed -i 's/^\([^:]*:[^:]*\):[0-9]*:/\1:19000:/' "$root/etc/shadow" # the day of the last change of a password that nobody has
: >"$root/etc/machine-id"
# Bytecode names the time of its source, which all files are about to lose; this kind does not.
find "$root/usr" -name __pycache__ -prune -exec rm -rf {} +
PYTHONHASHSEED=0 chroot "$root" python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.11 >&2

tar --create --directory "$root" --sort=name --mtime=@0 --numeric-owner --format=gnu --file "$work/layer.tar" .
layer=$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
cat >"$work/config.json" <<-JSON
	{"architecture":"$architecture","os":"linux","created":"1970-01-01T00:00:00Z",
	"config":{"User":"$user:$user","Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","LANG=C.UTF-8"],
	"Labels":{"io.buildpacks.base.distro.name":"debian","io.buildpacks.base.distro.version":"$release","io.buildpacks.rebasable":"true"}},
	"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]},
	"history":[{"created":"1970-01-01T00:00:00Z","created_by":"debootstrap $suite $packages"}]}
JSON
gzip -n -6 "$work/layer.tar"
config=$(sha256sum <"$work/config.json" | cut -d' ' -f1)
mv "$work/config.json" "$work/$config.json"
echo "[{\"Config\":\"$config.json\",\"RepoTags\":[\"fleetfn-base:$suite\"],\"Layers\":[\"layer.tar.gz\"]}]" >"$work/manifest.json"
tar --create --directory "$work" --mtime=@0 --numeric-owner --owner=0 --group=0 --format=gnu --file "$work/image.tar" \
	manifest.json "$config.json" layer.tar.gz
mv "$work/image.tar" "$made"
echo "$made"
