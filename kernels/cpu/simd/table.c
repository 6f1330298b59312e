#include "functions.h"

#if defined(__AMX_BF16__)
#define PRODUCT_BF16 CPU_FN(product_bf16_tiles)
#define LINES_BF16 CPU_FN(lines_bf16)
#else
#define PRODUCT_BF16 CPU_FN(product_bf16)
#define LINES_BF16 NULL
#endif

const struct cpu_isa CPU_PASTE(cpu_isa, CPU_ISA) = {
    .name = VEC_ISA_NAME,
    .tile = VEC_TILE,
    .product =
        {
            [PACK_F32] = CPU_FN(product_f32),
            [PACK_F16] = CPU_FN(product_f16),
            [PACK_BF16] = PRODUCT_BF16,
            [PACK_FP8] = CPU_FN(product_fp8),
            [PACK_Q8_0] = CPU_FN(product_q8_0),
            [PACK_Q4_0] = CPU_FN(product_q4_0),
            [PACK_Q4_K] = CPU_FN(product_q4_k),
            [PACK_Q5_K] = CPU_FN(product_q5_k),
            [PACK_Q6_K] = CPU_FN(product_q6_k),
            [PACK_MXFP4] = CPU_FN(product_mxfp4),
        },
    .lines = {[ACT_F32] = CPU_FN(lines_f32), [ACT_BF16] = LINES_BF16, [ACT_INT] = CPU_FN(lines_int)},
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
