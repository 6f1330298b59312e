#!/usr/bin/env bash
# How kernels/cuda/*.cu are compiled, for meson and for tests/cuda_compile.sh: which nvcc, for which architectures.
#
#   nvcc.sh probe [NVCC]       tries a kernel for every architecture; prints the compiler, its release, the toolkit's folder
#                              of headers and its libcudart_static.a, a line each. Exit 1 after one line that says why not
#   nvcc.sh compile NVCC SOURCE OBJECT LOG DEPFILE     LOG: what ptxas reports of registers and stacks
#   nvcc.sh ptx NVCC SOURCE OUTPUT
#
# Without NVCC on the command line it is taken from $NVCC, from $PATH, from $CUDA_HOME, from /usr/local/cuda, or from the
# wheels nvidia-cuda-nvcc, -runtime and -crt in $VIRTUAL_ENV.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

flags="-std=c++17 -O3 -I$here -I$here/../include -I$here/../base"
# Devices of the same major number run what was compiled for a smaller minor one (8.6 and 8.9: sm_80; 12.1: sm_120). The
# PTX is for those that have no code here: the driver compiles it at the first start.
targets="-gencode arch=compute_80,code=[sm_80,compute_80] -gencode arch=compute_90a,code=sm_90a
    -gencode arch=compute_120,code=sm_120"

refuse() { echo "$*"; exit 1; }

find_nvcc() {
    local candidate
    for candidate in "${1:-}" "${NVCC:-}" "$(command -v nvcc || true)" ${CUDA_HOME:+"$CUDA_HOME/bin/nvcc"} /usr/local/cuda/bin/nvcc \
        ${VIRTUAL_ENV:+"$VIRTUAL_ENV"/lib/python3*/site-packages/nvidia/cu*/bin/nvcc}; do
        [ -x "$candidate" ] && echo "$candidate" && return
        [ -z "${1:-}" ] || return 1 # one that was named, and no other
    done
    return 1
}

# first PATTERN...: the first file that exists.
first() {
    local file
    for file in "$@"; do
        [ -e "$file" ] && echo "$file" && return
    done
    return 1
}

probe() {
    local nvcc root release header runtime work
    nvcc=$(find_nvcc "${1:-}") || refuse "${1:+$1 is no program: }no nvcc was found"
    root=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
    release=$("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p') || true
    [ -n "$release" ] || refuse "$nvcc does not run"
    header=$(first "$root"/{,targets/*/}include/cuda_runtime_api.h /usr/include/cuda_runtime_api.h) ||
        refuse "$nvcc has no cuda_runtime_api.h beside it"
    runtime=$(first "$root"/{lib64,lib,targets/*/lib}/libcudart_static.a /usr/lib/*-linux-gnu/libcudart_static.a) ||
        refuse "$nvcc has no libcudart_static.a beside it"
    work=$(mktemp -d)
    trap "rm -rf '$work'" EXIT
    echo '#include <stdint.h>
          __global__ void k(uint32_t *p) { *p = threadIdx.x; }' >"$work/trial.cu"
    "$nvcc" $flags $targets -c -o "$work/trial.o" "$work/trial.cu" >"$work/log" 2>&1 ||
        refuse "$nvcc (release $release) cannot compile for sm_80, sm_90a and sm_120: $(grep -m1 -i -E 'error|fatal|unsupported' "$work/log" || tail -1 "$work/log")"
    printf '%s\n' "$nvcc" "$release" "$(dirname "$header")" "$runtime"
}

compile() {
    local nvcc=$1 source=$2 object=$3 log=$4 depfile=$5
    "$nvcc" $flags $targets -Xcompiler -fno-exceptions -Xptxas -v -MD -MT "$object" -MF "$depfile" -c -o "$object" "$source" >"$log" 2>&1 ||
        { cat "$log"; exit 1; }
    grep -i 'warning' "$log" || true
}

case ${1:-} in
probe) probe "${2:-}" ;;
compile) shift && compile "$@" ;;
ptx) "$2" $flags -arch=compute_80 -ptx -o "$4" "$3" ;;
*) refuse "nvcc.sh probe|compile|ptx; '${1:-}' is none of these" ;;
esac
