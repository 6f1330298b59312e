#include "functions.h"

#if defined(__AMX_INT8__)
enum { INT_TILE = MAX_TILE };
#define INT_FN(format) CPU_FN(tiles_##format)
#else
enum { INT_TILE = VEC_TILE };
#define INT_FN(format) CPU_FN(product_##format)
#endif

const struct cpu_isa CPU_PASTE(cpu_isa, CPU_ISA) = {
    .name = VEC_ISA_NAME,
    .tile_f = VEC_TILE,
    .tile_q = INT_TILE,
    .product =
        {
            [PACK_F32] = CPU_FN(product_f32),
            [PACK_F16] = CPU_FN(product_f16),
            [PACK_BF16] = CPU_FN(product_bf16),
            [PACK_FP8] = CPU_FN(product_fp8),
            [PACK_Q8_0] = INT_FN(q8_0),
            [PACK_Q4_0] = INT_FN(q4_0),
            [PACK_Q4_K] = INT_FN(q4_k),
            [PACK_Q5_K] = INT_FN(q5_k),
            [PACK_Q6_K] = INT_FN(q6_k),
            [PACK_MXFP4] = INT_FN(mxfp4),
        },
    .lines_f32 = CPU_FN(lines_f32),
    .lines_int = CPU_FN(lines_int),
    .rms_norm = CPU_FN(rms_norm),
    .silu_mul = CPU_FN(silu_mul),
    .gelu_mul = CPU_FN(gelu_mul),
    .soft_cap = CPU_FN(soft_cap),
    .dot = CPU_FN(dot),
    .dot_f16 = CPU_FN(dot_f16),
    .kv_store = CPU_FN(kv_store),
    .attend = CPU_FN(attend),
    .attend_finish = CPU_FN(attend_finish),
};
