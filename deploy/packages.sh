# Sourced, not run: makes sure that Debian packages are installed, without touching what is there already.

say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

BUILD_PACKAGES="build-essential meson ninja-build pkg-config libmicrohttpd-dev libgnutls28-dev libuv1-dev libjansson-dev libpcre2-dev
  libutf8proc-dev libxxhash-dev libyaml-dev
  libcurl4-gnutls-dev libedit-dev ca-certificates curl"
TEST_PACKAGES="check openssl python3 python3-venv python3-yaml"
FUZZ_PACKAGES="clang libclang-rt-14-dev"

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        die "installing packages needs root or sudo: apt-get install $missing"
    fi
}

# ensure_packages NAME...
ensure_packages() {
    missing=""
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    command -v apt-get >/dev/null || die "this is not Debian or Ubuntu; install by hand:$missing"
    say "installing packages:$missing"
    log=$(mktemp)
    if ! { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
        tail -5 "$log" >&2
        die "apt-get could not install:$missing"
    fi
    rm -f "$log"
}

# build DIRECTORY MESON-OPTION...: configures, then builds what changed.
build() {
    dir=$1
    shift
    log=$(mktemp)
    if [ ! -f "$dir/build.ninja" ]; then
        say "configuring $dir"
        meson setup "$dir" "$@" >"$log" 2>&1 || { tail -15 "$log" >&2; die "meson setup failed"; }
    else
        meson configure "$dir" "$@" >"$log" 2>&1 || { tail -15 "$log" >&2; die "meson configure failed"; }
    fi
    say "building $dir"
    ninja -C "$dir" >"$log" 2>&1 || { grep -A5 -E 'FAILED|error' "$log" | head -40 >&2; die "the build failed"; }
    rm -f "$log"
}
