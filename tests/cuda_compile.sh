#!/usr/bin/env bash
# Holds what ptxas reported when kernels/cuda/*.cu were compiled against tests/simt/registers.txt: no kernel may keep more on
# its stack (spills, arrays that are not in registers), or (with the compiler release that made the table) use over 8 registers
# more. The tensor cores must be in the PTX where they are meant to be. Needs no GPU. Exits 77, saying so, where there is no
# nvcc. kernels/cuda/nvcc.sh says which nvcc, flags and architectures.
#
#   tests/cuda_compile.sh [LOG...]   check; LOG: of each file, from a build with the back end; without any it compiles them
#   tests/cuda_compile.sh --update   rewrite the table
set -euo pipefail
update=false logs=()
for arg in "$@"; do
    [ "$arg" = --update ] && update=true || logs+=("$(realpath "$arg")")
done
cd "$(dirname "$0")/.."
table=tests/simt/registers.txt
nvcc_sh=kernels/cuda/nvcc.sh

probe=$($nvcc_sh probe) || { echo "$probe: the CUDA kernels were not compiled for a GPU"; exit 77; }
{ read -r nvcc && read -r release; } <<<"$probe"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ${#logs[@]} = 0 ]; then
    for source in kernels/cuda/*.cu; do
        echo "$source"
        logs+=("$work/$(basename "$source").log")
        $nvcc_sh compile "$nvcc" "$source" "$work/object" "${logs[-1]}" "$work/dep"
    done
fi
for log in "${logs[@]}"; do
    grep -i 'warning' "$log" && { echo "$log: warnings"; exit 1; }
    # "arch mangled-name registers stack-bytes" a line
    awk '/Compiling entry function/ { split($0, part, "\x27"); name = part[2]; arch = part[4] }
         /bytes stack frame/ { stack = $1 }
         /Used [0-9]+ registers/ { for (i = 1; i < NF; i++) if ($i == "Used") print arch, name, $(i + 1), stack }' "$log" >>"$work/found"
done

# must_hold FILE: its PTX has what tensor cores need.
must_hold() {
    local instruction
    $nvcc_sh ptx "$nvcc" "kernels/cuda/$1" "$work/ptx"
    for instruction in mma.sync.aligned.m16n8k16.row.col.f32.bf16 ldmatrix.sync cp.async.cg.shared; do
        grep -q "$instruction" "$work/ptx" || { echo "kernels/cuda/$1: its PTX has no $instruction"; exit 1; }
    done
}
must_hold attention.cu
must_hold gemm_skinny.cu
must_hold gemm_wide.cu

# Names as people write them, without the arguments: k_attend<128, 0>
awk '{ print $2 }' "$work/found" | c++filt | sed 's/^void //; s/(int)//g; s/([^()]*)$//; s/, /,/g' >"$work/names"
paste -d ' ' <(awk '{ print $1 }' "$work/found") "$work/names" <(awk '{ print $3, $4 }' "$work/found") | sort >"$work/table"

if $update; then
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
