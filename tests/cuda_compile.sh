#!/usr/bin/env bash
# Compiles kernels/cuda/*.cu with nvcc for every architecture that is supported and holds what ptxas reports against
# tests/simt/registers.txt: no kernel may keep more on its stack (spills, arrays that are not in registers), or (with the compiler release that made the table) use over 8 registers
# more.
# The tensor cores must be in the PTX where they are meant to be. Needs no GPU. Exits 77, saying so, where there is no nvcc.
#
#   tests/cuda_compile.sh            check
#   tests/cuda_compile.sh --update   rewrite the table
#
# nvcc is taken from $NVCC, from $PATH, from $CUDA_HOME, or from the wheels nvidia-cuda-nvcc, -runtime and -crt in $VIRTUAL_ENV.
set -euo pipefail
cd "$(dirname "$0")/.."
table=tests/simt/registers.txt

find_nvcc() {
    local candidate
    for candidate in "${NVCC:-}" "$(command -v nvcc || true)" "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" \
        ${VIRTUAL_ENV:+"$VIRTUAL_ENV"/lib/python3*/site-packages/nvidia/cu*/bin/nvcc}; do
        [ -x "$candidate" ] && echo "$candidate" && return
    done
    return 1
}

nvcc=$(find_nvcc) || { echo "no nvcc: the CUDA kernels were not compiled for a GPU"; exit 77; }
release=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags="-std=c++17 -O3 -Ikernels/cuda -Ikernels/include -Ikernels/base"
targets="-gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_120,code=sm_120"

# must_hold FILE TEXT: the PTX of a file has an instruction.
must_hold() {
    "$nvcc" $flags -arch=compute_80 -ptx -o "$work/ptx" "kernels/cuda/$1"
    local instruction
    for instruction in $2; do
        grep -q "$instruction" "$work/ptx" || { echo "kernels/cuda/$1: its PTX has no $instruction"; exit 1; }
    done
}

for source in kernels/cuda/*.cu; do
    echo "$source"
    "$nvcc" $flags $targets -Xptxas -v -c -o "$work/object" "$source" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    grep -i 'warning' "$work/log" && { echo "$source: warnings"; exit 1; }
    # "arch mangled-name registers stack-bytes" a line
    awk '/Compiling entry function/ { split($0, part, "\x27"); name = part[2]; arch = part[4] }
         /bytes stack frame/ { stack = $1 }
         /Used [0-9]+ registers/ { for (i = 1; i < NF; i++) if ($i == "Used") print arch, name, $(i + 1), stack }' "$work/log" >>"$work/found"
done
must_hold attention.cu "mma.sync.aligned.m16n8k16.row.col.f32.bf16 ldmatrix.sync cp.async.cg.shared"
for source in gemm_skinny.cu gemm_wide.cu; do
    must_hold $source "mma.sync.aligned.m16n8k16.row.col.f32.bf16 ldmatrix.sync cp.async.cg.shared"
done

# Names as people write them, without the arguments: k_attend<128, 0>
awk '{ print $2 }' "$work/found" | c++filt | sed 's/^void //; s/(int)//g; s/([^()]*)$//; s/, /,/g' >"$work/names"
paste -d ' ' <(awk '{ print $1 }' "$work/found") "$work/names" <(awk '{ print $3, $4 }' "$work/found") | sort >"$work/table"

if [ "${1:-}" = --update ]; then
    { echo "# What ptxas reports for each kernel, by tests/cuda_compile.sh --update"
      echo "# nvcc $release"
      echo "# architecture kernel registers stack-bytes"
      cat "$work/table"; } >$table
    echo "wrote $table: $(wc -l <"$work/table") kernels"
    exit 0
fi

same=false
grep -q "^# nvcc $release\$" $table && same=true || echo "nvcc $release did not make the table: only stacks are compared"
awk -v same=$same '
    FNR == NR { if ($1 !~ /^#/) { registers[$1, $2] = $3; stack[$1, $2] = $4 } next }
    !(($1, $2) in registers) { print $1, $2 ": not in the table"; bad = 1; next }
    $4 > stack[$1, $2] + (same == "true" ? 0 : 64) { print $1, $2 ": keeps", $4, "bytes on its stack, the table has", stack[$1, $2]; bad = 1 }
    same == "true" && $3 > registers[$1, $2] + 8 { print $1, $2 ": uses", $3, "registers, the table has", registers[$1, $2]; bad = 1 }
    END { exit bad }' $table "$work/table" || { echo "better on purpose? tests/cuda_compile.sh --update"; exit 1; }
echo "$(wc -l <"$work/table") kernels keep to the table (nvcc $release)"
