/* One block of a quantised panel, from memory to registers. Private to kernels/cpu/simd. */
#ifndef GALLEY_CPU_BLOCKS_H
#define GALLEY_CPU_BLOCKS_H

#include "vec.h"
#include "weight.h"

/* Weights are prefetched this far ahead, to the second level: enough for memory to overlap with arithmetic, and one
 * request for each line consumed so that they never come in bursts. Where arithmetic takes longer, NEAR ahead they are
 * brought to the first level as well. */
enum { AHEAD = 8192, AHEAD_ONE_ROW = 4096, NEAR = 512, NEAR_FROM_ROWS = 5 };

struct block { /* one block's weights in registers */
    vcodes code[8];
    vf scale[2], min; /* scale[1] for Q6_K's second half; min for Q4_K and Q5_K */
};

VEC void load_codes(const enum pack F, const int R, const uint8_t *p, vcodes code[8])
{
    const int n = pack_vectors(F);
    vcodes v[8];
    VEC_UNROLL(8)
    for (int i = 0; i < n; i++) {
        __builtin_prefetch(p + (R == 1 ? AHEAD_ONE_ROW : AHEAD) + 64 * i, 0, 2);
        if (R >= NEAR_FROM_ROWS)
            __builtin_prefetch(p + NEAR + 64 * i, 0, 3);
        v[i] = codes_load(p + 64 * i);
    }
    VEC_UNROLL(8)
    for (int i = 0; i < 8; i++) {
        code[i] = F == PACK_Q8_0 ? codes_signed(v[i]) : i < 4 ? codes_low(v[i]) : codes_high(v[i - 4]);
        if (F == PACK_Q5_K)
            code[i] = codes_with_bits(code[i], v[4], 4 - i, 0x10);
        if (F == PACK_Q6_K)
            code[i] = codes_with_bits(code[i], v[4 + i / 4], 4 - 2 * (i % 4), 0x30);
        if (F == PACK_MXFP4)
            code[i] = codes_fp4(code[i]);
    }
}

VEC void load_block(const enum pack F, const int R, const uint8_t *head, const uint8_t *codes, int b, struct block *w)
{
    load_codes(F, R, codes, w->code);
    if (F == PACK_Q8_0 || F == PACK_Q4_0) {
        w->scale[0] = vf_load_f16(head + 32 * b);
    } else if (F == PACK_MXFP4) {
        w->scale[0] = vf_load_exponent(head + 16 * b);
    } else if (F == PACK_Q6_K) {
        vf d = vf_load_f16(head + 256);
        w->scale[0] = vf_mul(d, vf_load_i8((const int8_t *)head + 32 * b));
        w->scale[1] = vf_mul(d, vf_load_i8((const int8_t *)head + 32 * b + 16));
    } else {
        w->scale[0] = vf_mul(vf_load_f16(head + 256), vf_load_u8(head + 16 * b));
        w->min = vf_mul(vf_load_f16(head + 288), vf_load_u8(head + 128 + 16 * b));
    }
}

#endif
