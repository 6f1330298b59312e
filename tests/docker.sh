#!/usr/bin/env bash
# docker.sh [DOCKERFILE] [FOLDER]: proves a Dockerfile where there is no Docker. Runs the steps of its build stage in a
# debootstrap of the same Debian, copies what its last stage takes, measures that, and serves from it: as the image's user, in
# a chroot, asked by `galley health`. Needs root and debootstrap; MIRROR=URL names the mirror, which is apt's own if it is
# not set. FOLDER is kept, so that a second run need not install everything again. By hand: it takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
dockerfile=${1:-docker/Dockerfile}
work=${2:-$(mktemp -d)}
limit_mb=100
build=$work/build final=$work/final

say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "needs root"
command -v debootstrap >/dev/null || die "apt-get install debootstrap"
mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | head -1)}
image=$(sed -n 's/^FROM \(debian:[^ ]*\) AS build$/\1/p' "$dockerfile")
[ "$image" = debian:12-slim ] || die "$dockerfile: its build stage is not debian:12-slim but '$image'"

if [ ! -f "$build/etc/debian_version" ]; then
    say "debootstrap into $build"
    debootstrap --variant=minbase bookworm "$build" "$mirror" >"$work/debootstrap.log" 2>&1 || { tail -5 "$work/debootstrap.log"; die "debootstrap"; }
fi
for file in /etc/resolv.conf /etc/pip.conf; do [ ! -f "$file" ] || cp -L "$file" "$build/etc/"; done
host_ca=$build/etc/host-ca.crt # whom pip believes here; behind a proxy that is more than a fresh Debian knows
[ ! -f "${PIP_CERT:-}" ] || cp -L "$PIP_CERT" "$host_ca"
mount -t proc proc "$build/proc"
trap 'umount -l "$build/proc" "$final/proc" 2>/dev/null || true; [ -z "${server:-}" ] || kill "$server" 2>/dev/null || true' EXIT

# The context: what git would commit, without what Docker is told to leave out.
context=$work/context
rm -rf "$context" "$final" "$build/src" "$build/build" "$build/install" "$build/rootfs"
mkdir -p "$context" "$final"
git ls-files -co --exclude-standard | grep -v '^tests/bench/results/' | while read -r f; do [ ! -e "$f" ] || printf '%s\n' "$f"; done | tar -c -T - | tar -x -C "$context"

stage='' directory=/
copy() { # FROM TO
    local target=$2
    case $target in /*) ;; *) target=$directory/$target ;; esac
    if [ "$1" = . ]; then
        mkdir -p "$build$target"
        cp -a "$context/." "$build$target"
    else
        mkdir -p "$(dirname "$build$target")"
        cp -a "$context/$1" "$build$target"
    fi
}
while IFS= read -r line; do
    while [[ $line == *\\ ]]; do
        IFS= read -r more
        line=${line%\\}$more
    done
    read -r word rest <<<"$line" || true
    case $stage:$word in
    *:'' | *:'#'*) ;;
    *:FROM) stage=${rest##* } ;;
    build:WORKDIR) directory=$rest; mkdir -p "$build$rest" ;;
    build:COPY) copy $rest ;;
    build:RUN)
        say "RUN $rest"
        chroot "$build" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            ${http_proxy:+http_proxy=$http_proxy} ${https_proxy:+https_proxy=$https_proxy} $([ ! -f "$host_ca" ] || echo PIP_CERT=/etc/host-ca.crt) \
            /bin/sh -c "cd $directory && $rest" >"$work/run.log" 2>&1 </dev/null || { tail -20 "$work/run.log"; die "that step"; }
        ;;
    scratch:COPY)
        [ "$rest" = "--from=build /rootfs /" ] || die "an unknown COPY: $rest"
        cp -a "$build/rootfs/." "$final"
        ;;
    scratch:USER) user=$rest ;;
    scratch:ENV | scratch:EXPOSE | scratch:HEALTHCHECK | scratch:ENTRYPOINT | scratch:CMD) ;;
    *) die "$dockerfile: an instruction this script does not know: $line" ;;
    esac
done <"$dockerfile"

bytes=$(du -sb --apparent-size "$final" | cut -f1)
say "the image holds $((bytes / 1000000)) MB in $(find "$final" -type f | wc -l) files; the largest:"
find "$final" -type f -printf '%s %P\n' | sort -rn | head -5
case $dockerfile in *cuda*) ;; *) [ "$bytes" -lt $((limit_mb * 1000000)) ] || die "that is more than $limit_mb MB" ;; esac
[ ! -e "$final/bin/sh" ] || die "there is a shell in it"

say "serving from it as $user on port ${PORT:=8359}"
mkdir -p "$final/proc"
mount -t proc proc "$final/proc"
export GALLEY_HOST=0.0.0.0 GALLEY_PORT=$PORT GALLEY_URL=http://127.0.0.1:$PORT
run() { chroot --userspec="$user" "$final" /usr/bin/galley "$@"; }
chroot --userspec="$user" "$final" /usr/bin/galley serve --max-seqs 4 2>"$work/serve.log" &
server=$!
for _ in $(seq 100); do
    run health --ready >/dev/null 2>&1 && break
    kill -0 $server 2>/dev/null || { cat "$work/serve.log"; die "the server ended"; }
    sleep 0.1
done
run health --ready || { cat "$work/serve.log"; die "it is not healthy"; }
curl -sf "http://127.0.0.1:$PORT/v1/chat/completions" -d '{"messages": [{"role": "user", "content": "Tell me a story about a fox."}], "max_tokens": 20}' || die "no answer"
echo
grep '^Uid' "/proc/$server/status"
kill -TERM $server
wait $server && say "drained and ended with 0" || die "ended with $?"
server=
