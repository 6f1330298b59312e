/* Products with quantised weights: int8 activations, exact int32 sums of 32 (Q6_K: of 16), and one f32 chain over k.
 *
 * What an output element is, whatever the row count, tile and instruction set, with blocks b ascending:
 *   Q8_0, Q4_0   out = fma((float)dot_b, scale_b * act.scale_b, out)
 *   MXFP4        the same with scale_b a power of two; one that is no normal number counts as 0
 *   Q4_K, Q5_K   out = fma((float)dot_b, (d * sub_b) * act.scale_b, out), then fma(dmin * min_b, act.neg_sum_b, out)
 *   Q6_K         the first line for each half block, with scale d * sub
 */
#include "product.h"

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

/* The integer that a sum starts at, which takes the codes' offset off the result. */
VEC vi start_of(const enum pack F, const int half, const union act_line *a)
{
    if (F == PACK_Q8_0 && VEC_OFFSET_CODES)
        return vi_set1(a->off128);
    if (F == PACK_Q4_0)
        return vi_set1(a->off8);
    if (F == PACK_MXFP4)
        return vi_set1(a->off12);
    if (F == PACK_Q6_K)
        return vi_set1(half ? a->off32b : a->off32a);
    return vi_zero();
}

/* So many codes are multiplied in turn for a row; of the largest code. */
VEC int run_of(const enum pack F)
{
    return F == PACK_Q8_0   ? 1
           : F == PACK_Q6_K  ? dot4_run(63)
           : F == PACK_Q5_K  ? dot4_run(31)
           : F == PACK_MXFP4 ? dot4_run(24)
                             : dot4_run(15);
}

VEC vi dot4(const enum pack F, vi acc, const vcodes *w, const int8_t *q)
{
    return F == PACK_Q8_0 ? dot4_s8(acc, *w, q) : dot4_u8(acc, w, q, run_of(F));
}

/* One block times n rows; independent chains in turn hide the dot products' latency. */
VEC void block_rows(const enum pack F, const int n, const struct block *w, const union act_line *a, vf *sum)
{
    const int n_half = F == PACK_Q6_K ? 2 : 1, n_dot = 8 / n_half;
    VEC_UNROLL(2)
    for (int half = 0; half < n_half; half++) {
        vi t[VEC_CHAINS];
        VEC_UNROLL(4)
        for (int r = 0; r < n; r++)
            t[r] = start_of(F, half, &a[r]);
        VEC_UNROLL(8)
        for (int i = 0; i < n_dot; i += run_of(F)) {
            VEC_UNROLL(4)
            for (int r = 0; r < n; r++)
                t[r] = dot4(F, t[r], &w->code[n_dot * half + i], a[r].q + 4 * (n_dot * half + i));
        }
        VEC_UNROLL(4)
        for (int r = 0; r < n; r++)
            sum[r] = vf_fma(vi_to_f(t[r]), vf_mul(w->scale[half], vf_set1(a[r].scale)), sum[r]);
    }
    if (F == PACK_Q4_K || F == PACK_Q5_K) {
        VEC_UNROLL(4)
        for (int r = 0; r < n; r++)
            sum[r] = vf_fma(w->min, vf_set1(a[r].neg_sum), sum[r]);
    }
}

VEC void tile(const enum pack F, const int R, const struct panel_job *j, int panel)
{
    const size_t head_bytes = pack_head_bytes(F), block_bytes = pack_block_bytes(F);
    const uint8_t *at = j->w + (size_t)panel * j->panel_bytes;
    const union act_line *a = j->a;
    vf sum[VEC_TILE];
    VEC_UNROLL(16)
    for (int r = 0; r < R; r++)
        sum[r] = vf_zero();
    for (int32_t left = j->n_line; left > 0; left -= GROUP) {
        const uint8_t *head = at;
        const int n = left < GROUP ? left : GROUP;
        at += head_bytes;
        for (size_t i = 0; i < head_bytes; i += 64)
            __builtin_prefetch(head + (R == 1 ? AHEAD_ONE_ROW : AHEAD) + i, 0, 2);
        VEC_UNROLL(1)
        for (int b = 0; b < n; b++, at += block_bytes, a += R) {
            struct block w;
            load_block(F, R, head, at, b, &w);
            VEC_UNROLL(16)
            for (int r = 0; r < R; r += VEC_CHAINS)
                block_rows(F, R - r < VEC_CHAINS ? R - r : VEC_CHAINS, &w, a + r, sum + r);
        }
    }
    VEC_UNROLL(16)
    for (int r = 0; r < R; r++)
        vf_store(j->y + (size_t)r * j->stride + PANEL * panel, sum[r]);
}

#define ROWS(F, R)                                                                                                     \
    static void F##_##R(const struct panel_job *j)                                                                     \
    {                                                                                                                  \
        for (int p = 0; p < j->n_panel; p++)                                                                           \
            tile(F, R, j, p);                                                                                          \
    }

PRODUCT(PACK_Q8_0, product_q8_0)
PRODUCT(PACK_Q4_0, product_q4_0)
PRODUCT(PACK_Q4_K, product_q4_k)
PRODUCT(PACK_Q5_K, product_q5_k)
PRODUCT(PACK_Q6_K, product_q6_k)
PRODUCT(PACK_MXFP4, product_mxfp4)
