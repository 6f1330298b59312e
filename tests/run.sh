#!/usr/bin/env bash
# Installs what the tests need, builds release and ASan/UBSan, runs every test in both; fuzz corpora are replayed as tests.
# --full adds nvcc over the CUDA kernels, tests that take long, all seeds under sanitizers as well, ThreadSanitizer and 60
# seconds of each fuzzer (FUZZ_SECONDS=N changes that).
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

full=false
for arg in "$@"; do
    case $arg in
    --full) full=true ;;
    *) die "tests/run.sh [--full]; '$arg' is neither" ;;
    esac
done

passed=0 failed=0 skipped=0
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 TSAN_OPTIONS="halt_on_error=1:suppressions=$PWD/tests/tsan.supp"

# count LABEL LOG: adds meson's summary to ours.
count() {
    number() { sed -n "s/^$1: *\([0-9]*\).*/\1/p" "$2" | tail -1; }
    local ok bad late skip
    ok=$(number Ok "$1") bad=$(number Fail "$1") late=$(number Timeout "$1") skip=$(number Skipped "$1")
    passed=$((passed + ${ok:-0})) failed=$((failed + ${bad:-0} + ${late:-0})) skipped=$((skipped + ${skip:-0}))
}

# run_suite DIRECTORY TIMEOUT-FACTOR
run_suite() {
    say "testing $1"
    local log=$1/run.log
    # One more than there are cores: those that talk HTTP mostly wait.
    if ! meson test -C "$1" --num-processes $(($(nproc) + 1)) --timeout-multiplier "$2" --print-errorlogs >"$log" 2>&1; then
        grep -v '^ninja' "$log" | tail -60
        [ -n "$(sed -n 's/^Fail: *[1-9].*/x/p; s/^Timeout: *[1-9].*/x/p' "$log")" ] || failed=$((failed + 1)) # meson itself failed
    fi
    count "$log"
}

# NVIDIA's compiler from PyPI, where there is no other and PyPI can be reached; else the test that needs it skips.
find_nvcc() {
    command -v nvcc >/dev/null && return
    local env=build/nvcc
    if [ ! -f $env/ready ]; then
        say "installing nvcc"
        { python3 -m venv $env && $env/bin/pip install -q -r tests/simt/requirements.txt && touch $env/ready; } >/dev/null 2>&1 ||
            { say "no nvcc: PyPI cannot be reached"; return; }
    fi
    NVCC=$(echo $env/lib/python3*/site-packages/nvidia/cu*/bin/nvcc)
    export NVCC
}

ensure_packages $BUILD_PACKAGES $TEST_PACKAGES
nvcc=
if $full; then
    find_nvcc
    nvcc=-Dnvcc=${NVCC:-}
elif [ ! -f build/release/build.ninja ]; then
    nvcc=-Dnvcc=none # it takes minutes that the short run does not have
fi
build build/release --buildtype=release -Dfull=$full $nvcc
# Sanitizers' reports need lines, not variables, which take a fifth of the time to compile.
build build/asan --buildtype=debugoptimized -Dc_args=-g1 -Db_sanitize=address,undefined -Db_lundef=false -Dfull=$full
run_suite build/release 2
run_suite build/asan 6

if $full; then
    ensure_packages $FUZZ_PACKAGES
    build build/tsan --buildtype=debugoptimized -Dc_args=-g1 -Db_sanitize=thread -Db_lundef=false -Dfull=true
    run_suite build/tsan 10
    [ -f build/fuzz/build.ninja ] || CC=clang meson setup build/fuzz --buildtype=debugoptimized -Dfuzz=true -Db_sanitize=address,undefined \
        -Db_lundef=false >/dev/null || die "meson setup failed for the fuzzers"
    build build/fuzz
    for fuzzer in build/fuzz/tests/fuzz/fuzz_*; do
        [ -x "$fuzzer" ] && [ -f "$fuzzer" ] || continue
        name=${fuzzer##*/fuzz_}
        say "fuzzing $name for ${FUZZ_SECONDS:-60} s"
        work=$(mktemp -d)
        if "$fuzzer" -max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=4096 -timeout=20 -artifact_prefix="$work/" "$work" tests/fuzz/corpus/"$name" >"$work.log" 2>&1; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            tail -30 "$work.log"
        fi
    done
fi

echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
