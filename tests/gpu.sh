#!/usr/bin/env bash
# The tests and figures that need a GPU, in stages of under nine minutes, each useful alone. A GPU machine needs PyTorch for
# the stages that measure against it, and nothing of Debian: what is built here is packed with its libraries.
#
#   tests/gpu.sh pack     here: builds and packs (build-gpu/pack.tar.xz, under 64 MiB; carry the folder build-gpu)
#   tests/gpu.sh STAGE    there, from the same tree
#
#   look           what the machine has
#   kernels        the kernels' suites (tests/simt), on the device
#   backend        whole plans against ref, batch invariance; several ranks over NCCL where there are four GPUs
#   sanitize       compute-sanitizer memcheck, racecheck and synccheck over whole plans
#   roof           the device's bandwidth and matrix rate, by PyTorch: what later stages set figures against
#   decode         an 8B shape: batch 1, the 16-row verify and prefill, in bf16, fp8, 4 and 8 bits
#   batches        batches 8 to 256 by contexts 1k to 32k, in bf16
#   torch          the same jobs in PyTorch
#   deterministic  what the batch-invariant mode costs, which also leaves cuBLASLt out
#   serve          the demo pair over HTTP: texts beside the cpu's, then every way of decoding against plain, also widened
#
# Output is also kept in $OUT, else in build-gpu/out. Exit 77, saying so: this machine cannot run the stage.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
pack=$root/build-gpu
out=${OUT:-$pack/out}
seconds=530 # of a stage
port=${GALLEY_GPU_PORT:-8329}
device_tests=(rows attention readouts gemm experts cuda batch ranks)

skip() { echo "gpu.sh: $*"; exit 77; }

# ---- Here ----

# Copies a program and every library that it loads, glibc's into a folder of their own: they are used where the machine's
# own glibc is too old.
pack_program() {
    local library
    install -s "$1" "$pack/stage/bin/$(basename "$1")"
    ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/.*ld-linux/ { print $1 }' | while read -r library; do
        case $(basename "$library") in
        ld-linux* | libc.so* | libm.so* | libdl.so* | librt.so* | libpthread.so* | libresolv.so*)
            cp -L "$library" "$pack/stage/lib/glibc/" ;;
        *) cp -L "$library" "$pack/stage/lib/" ;;
        esac
    done
}

pack_all() {
    local build=${GALLEY_GPU_BUILD:-build/gpu} name size
    local targets=(server/galley tests/bench/bench_cuda)
    for name in "${device_tests[@]}"; do targets+=("tests/simt/device_$name"); done
    [ -e "$build/build.ninja" ] || meson setup "$build" --buildtype=release -Dcuda=enabled
    ninja -C "$build" "${targets[@]}"
    rm -rf "$pack"
    mkdir -p "$pack/stage/bin" "$pack/stage/lib/glibc" "$pack/stage/python"
    for name in "${targets[@]}"; do pack_program "$build/$name"; done
    # The driver's libraries ask for these by name, and they have to be of one release.
    for name in libdl.so.2 libpthread.so.0 librt.so.1; do cp -L "$(gcc -print-file-name="$name")" "$pack/stage/lib/glibc/"; done
    python3 -m pip install --quiet --no-deps --target "$pack/stage/python" gguf ||
        echo "gpu.sh: no gguf package: serve will leave the widened pair out"
    git rev-parse HEAD >"$pack/stage/commit" 2>/dev/null || echo unknown >"$pack/stage/commit"
    # The programs share their kernels: a window that spans them all stores those once.
    tar -C "$pack/stage" -c . | xz -T1 -6 --lzma2=preset=6,dict=128MiB >"$pack/pack.tar.xz"
    rm -rf "$pack/stage"
    size=$(stat -c %s "$pack/pack.tar.xz")
    echo "packed $((size >> 20)) MiB into $pack/pack.tar.xz"
    [ "$size" -lt $((60 << 20)) ] || { echo "gpu.sh: that is too much to carry: 64 MiB in all"; exit 1; }
}

# ---- There ----

has_gpu() { # without a driver there is no such file, and nothing to ask
    [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ]
}

n_gpu() { find /dev -maxdepth 1 -name 'nvidia[0-9]*' | wc -l; }

unpack() {
    [ -e "$pack/pack.tar.xz" ] || skip "$pack/pack.tar.xz is missing: tests/gpu.sh pack makes it, on a machine that builds Galley"
    [ "$pack/run/commit" -nt "$pack/pack.tar.xz" ] && return
    rm -rf "$pack/run"
    mkdir -p "$pack/run"
    # Without xz there is Python.
    if command -v xz >/dev/null; then
        tar -C "$pack/run" -xJf "$pack/pack.tar.xz"
    else
        python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$pack/pack.tar.xz" "$pack/run"
    fi
    touch "$pack/run/commit"
}

# The folders of PyTorch's NCCL and cuBLASLt, each with a colon before it.
torch_libraries() {
    python3 - 2>/dev/null <<'EOF' || true
import glob, nvidia, os
found = [f for p in nvidia.__path__ for name in ("libnccl.so.2", "libcublasLt.so.1[23]") for f in glob.glob(f"{p}/*/lib/{name}")]
print(*(":" + os.path.dirname(f) for f in found), sep="", end="")
EOF
}

# What a packed program is started by, with its own libraries and PyTorch's: the environment, or glibc's loader.
loader=()
choose_loader() {
    local lib=$pack/run/lib torch
    torch=$(torch_libraries)
    loader=(env "LD_LIBRARY_PATH=$lib$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
    run galley --version >/dev/null 2>&1 && return
    loader=("$lib/glibc/ld-linux-x86-64.so.2" --library-path "$lib:$lib/glibc$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
    run galley --version >/dev/null || skip "the packed programs do not start on this machine"
}

run() { # run PROGRAM ARGUMENTS..., from the pack
    local program=$1
    shift
    "${loader[@]}" "$pack/run/bin/$program" "$@"
}

need_torch() { python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null || skip "$1 needs a PyTorch that sees the GPU"; }

# The kernels' suites hand their own memory to the device: that works where it can read all of the process's.
reads_host_memory() {
    python3 - <<'EOF'
import ctypes, sys
cuda, value = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
PAGEABLE_MEMORY_ACCESS = 88
cuda.cuInit(0)
sys.exit(cuda.cuDeviceGetAttribute(ctypes.byref(value), PAGEABLE_MEMORY_ACCESS, 0) != 0 or not value.value)
EOF
}

# roof_flags: what bench_cuda sets figures against, if it was measured.
roof_flags() {
    local gb tflop
    [ -e "$pack/roof" ] || { echo "gpu.sh: no roof was measured (tests/gpu.sh roof): figures without shares" >&2; return 0; }
    read -r gb tflop <"$pack/roof"
    echo "-w $gb -f $tflop"
}

bench() {
    local flags
    flags=$(roof_flags)
    # shellcheck disable=SC2086 # flags are words
    run bench_cuda $flags "$@"
}

stage_look() {
    cat /proc/driver/nvidia/version 2>/dev/null || true
    nvidia-smi || echo "no nvidia-smi"
    python3 -c 'import torch; print("torch", torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name())' ||
        echo "no PyTorch"
    command -v compute-sanitizer nvcc xz || true
    ldd --version | head -1
    reads_host_memory && echo "the device reads host memory" || echo "the device does not read host memory: no stage kernels"
    echo "galley: $(cat "$pack/run/commit") $(run galley --version)"
}

run_suites() { # run_suites NAME...: all of them, and then fails if one did
    local name failed=()
    for name in "$@"; do
        echo "== $name"
        run "device_$name" || failed+=("$name")
    done
    [ ${#failed[@]} = 0 ] || { echo "gpu.sh: failed: ${failed[*]}"; return 1; }
}

stage_kernels() {
    reads_host_memory || skip "this device does not read host memory, which the kernels' suites give it; stage backend covers the kernels through the back end"
    CUDA_LAUNCH_BLOCKING=1 run_suites rows attention readouts gemm experts
}

stage_backend() {
    local suites=(cuda batch)
    if [ "$(n_gpu)" -ge 4 ]; then
        suites+=(ranks)
    else
        echo "several ranks were not run: they need four GPUs, here $(n_gpu) can be seen"
    fi
    run_suites "${suites[@]}"
}

# Whole plans have every kernel in them.
stage_sanitize() {
    local tool sanitizer failed=()
    sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer) || skip "there is no compute-sanitizer"
    for tool in memcheck racecheck synccheck; do
        echo "== $tool"
        CK_FORK=no timeout 170 "$sanitizer" --tool "$tool" --error-exitcode 9 --target-processes all \
            "${loader[@]}" "$pack/run/bin/device_cuda" || failed+=("$tool")
    done
    [ ${#failed[@]} = 0 ] || { echo "gpu.sh: failed, or not done in time: ${failed[*]}"; return 1; }
}

stage_roof() {
    need_torch roof
    python3 tests/bench/torch_roof.py "$pack/roof"
    cp "$pack/roof" "$out/roof"
}

stage_decode() {
    local type
    for type in BF16 FP8 Q4_K Q8_0; do
        bench -t $type decode=1:1000 decode=1:8000 verify=16:1000 decode=16:1000 prefill=2048 prefill=8192
    done
}

batch_jobs=(decode={8,64,256}:{1000,8000,32000})

stage_batches() { bench -s 0.5 "${batch_jobs[@]}" decode=16:1000 decode=32:1000 decode=128:1000; }

stage_torch() {
    need_torch torch
    python3 tests/bench/torch_decode.py --seconds 0.5 decode=1:1000 prefill=2048 prefill=8192 "${batch_jobs[@]}"
}

stage_deterministic() {
    local jobs=(decode=1:1000 decode=64:8000 verify=16:1000 prefill=512 prefill=2048)
    bench -l 8 "${jobs[@]}"
    bench -l 8 -D "${jobs[@]}"
}

# with_server LOG FLAGS... -- COMMAND...: runs the command while a server answers.
with_server() {
    local log=$1 server flags=() rc=0 i
    shift
    while [ "$1" != -- ]; do flags+=("$1"); shift; done
    shift
    "${loader[@]}" "$pack/run/bin/galley" serve --port "$port" "${flags[@]}" 2>"$log" &
    server=$!
    for ((i = 0; i < 600; i++)); do
        grep -q 'msg="ready"' "$log" && break
        kill -0 $server 2>/dev/null || { cat "$log"; return 1; }
        sleep 0.2
    done
    "$@" || rc=$?
    kill $server
    wait $server || true
    [ $rc = 0 ] || cat "$log"
    return $rc
}

stage_serve() {
    local pair=(--model config/demo/target.gguf --draft-model config/demo/draft.gguf) url=http://127.0.0.1:$port
    with_server "$out/cpu.log" --backend cpu "${pair[@]}" -- python3 tests/bench/gpu_serve.py --url "$url" --keep "$out/cpu.json"
    with_server "$out/cuda.log" --backend cuda "${pair[@]}" -- python3 tests/bench/gpu_serve.py --url "$url" --beside "$out/cpu.json"
    with_server "$out/cuda.log" --backend cuda "${pair[@]}" -- python3 tests/bench/decoding.py --url "$url" --count 3
    if PYTHONPATH=$pack/run/python python3 -c 'import gguf, numpy' 2>/dev/null; then
        PYTHONPATH=$pack/run/python python3 tests/bench/widen.py config/demo/target.gguf "$pack/wide.gguf"
        with_server "$out/wide.log" --backend cuda --model "$pack/wide.gguf" --draft-model config/demo/draft.gguf -- \
            python3 tests/bench/decoding.py --url "$url" --count 3 --ways off,model,auto
    else
        echo "the widened pair was not run: no gguf or numpy"
    fi
}

# ---- Which ----

stage=${1:-}
case $stage in
pack) pack_all; exit ;;
look | kernels | backend | sanitize | roof | decode | batches | torch | deterministic | serve) ;;
*) sed -n '2,/^set -e/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 1 ;;
esac
has_gpu || skip "stage $stage needs a GPU, and this machine has no NVIDIA driver"
if [ -z "${GALLEY_GPU_TIMED:-}" ]; then
    mkdir -p "$out"
    rc=0
    GALLEY_GPU_TIMED=1 timeout $seconds "$0" "$stage" 2>&1 | tee "$out/$stage.txt" || rc=${PIPESTATUS[0]}
    [ "$rc" != 124 ] || echo "gpu.sh: stage $stage was ended after $seconds s"
    exit "$rc"
fi
unpack
choose_loader
"stage_$stage"
