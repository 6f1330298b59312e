/* Products with f32, f16, bf16 and fp8 weights: f32 activations, one fused chain over ascending k for each output
 * element, whatever the row count, tile and instruction set. FP8 has a chain for each block, whose scaled results are
 * another. */
#include "product.h"

enum { AHEAD = 4096 };

/* The weights of element k of an activation line, of a panel whose first of these elements is at p. */
VEC vf load_weights(const enum pack F, const uint8_t *p, int k)
{
    if (F == PACK_F32)
        return vf_load((const float *)(const void *)(p + 64 * k));
    if (F == PACK_FP8)
        return vf_load_e4m3(p + 16 * k);
    return F == PACK_F16 ? vf_load_f16(p + 32 * k) : vf_load_half_bf16(p + 64 * (k / 2), k % 2);
}

/* N panels side by side, from `panel` on: with few rows a single panel's chains would wait on each other. */
VEC void tile(const enum pack F, const int N, const int R, const struct panel_job *j, int panel)
{
    const size_t k_bytes = F == PACK_F32 ? 64 : F == PACK_FP8 ? 16 : 32, line_bytes = F_LINE * k_bytes;
    const int32_t block = F == PACK_FP8 ? FP8_BLOCK / F_LINE : j->n_line; /* lines under one chain */
    const uint8_t *w = j->w + (size_t)panel * j->panel_bytes;
    const union act_line *a = j->a;
    vf sum[4][VEC_TILE];
    for (int32_t first = 0; first < j->n_line; first += block) {
        const uint8_t *scale = w;
        w += F == PACK_FP8 ? FP8_SCALES : 0;
        VEC_UNROLL(4)
        for (int p = 0; p < N; p++) {
            VEC_UNROLL(16)
            for (int r = 0; r < R; r++)
                sum[p][r] = vf_zero();
        }
        for (int32_t line = 0; line < block; line++, a += R, w += line_bytes) {
            VEC_UNROLL(2)
            for (int k = 0; k < F_LINE; k++) {
                VEC_UNROLL(4)
                for (int p = 0; p < N; p++) {
                    const uint8_t *wp = w + (size_t)p * j->panel_bytes;
                    if (k % (64 / (int)k_bytes) == 0)
                        __builtin_prefetch(wp + AHEAD + k_bytes * (size_t)k, 0, 2);
                    vf v = load_weights(F, wp, k);
                    VEC_UNROLL(16)
                    for (int r = 0; r < R; r++)
                        sum[p][r] = vf_fma(v, vf_set1(a[r].f[k]), sum[p][r]);
                }
            }
        }
        VEC_UNROLL(4)
        for (int p = 0; p < N; p++) {
            VEC_UNROLL(16)
            for (int r = 0; r < R; r++) {
                float *y = j->y + (size_t)r * j->stride + PANEL * (panel + p);
                if (F == PACK_FP8)
                    sum[p][r] = vf_fma(vf_load((const float *)(const void *)(scale + (size_t)p * j->panel_bytes)),
                                       sum[p][r], first ? vf_load(y) : vf_zero());
                vf_store(y, sum[p][r]);
            }
        }
    }
}

/* Enough sums for the fused multiply-add's latency, few enough for the registers. */
VEC void panels(const enum pack F, const int R, const struct panel_job *j)
{
    int p = 0;
    if (4 * R <= 2 * VEC_CHAINS)
        for (; p + 4 <= j->n_panel; p += 4)
            tile(F, 4, 4 * R <= 2 * VEC_CHAINS ? R : 1, j, p);
    if (2 * R <= 2 * VEC_CHAINS)
        for (; p + 2 <= j->n_panel; p += 2)
            tile(F, 2, 2 * R <= 2 * VEC_CHAINS ? R : 1, j, p);
    for (; p < j->n_panel; p++)
        tile(F, 1, R, j, p);
}

#define ROWS(F, R)                                                                                                     \
    static void F##_##R(const struct panel_job *j)                                                                     \
    {                                                                                                                  \
        panels(F, R, j);                                                                                               \
    }

PRODUCT(PACK_F32, product_f32)
PRODUCT(PACK_F16, product_f16)
PRODUCT(PACK_BF16, product_bf16)
PRODUCT(PACK_FP8, product_fp8)
