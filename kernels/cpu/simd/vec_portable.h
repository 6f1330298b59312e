/* vec.h in C alone. fmaf keeps the bits of the other instruction sets; where the processor has no fused multiply-add it
 * is slow. */
#include <math.h>

#include "dtype.h"

#define VEC_ISA_NAME "portable"
#define VEC_TILE 4       /* rows of a product tile */
enum { VEC_CHAINS = 2 }; /* independent sums that hide latency */

typedef struct {
    float v[16];
} vf;
typedef struct {
    int32_t v[16];
} vi;

#define LANES for (int i = 0; i < 16; i++)

VEC vf vf_set1(float x)
{
    vf r;
    LANES r.v[i] = x;
    return r;
}
VEC vf vf_load(const float *p)
{
    vf r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
VEC vf vf_keep(vf a)
{
    return a;
}
VEC void vf_store(float *p, vf a)
{
    memcpy(p, a.v, sizeof a.v);
}
VEC vf vf_add(vf a, vf b)
{
    LANES a.v[i] += b.v[i];
    return a;
}
VEC vf vf_sub(vf a, vf b)
{
    LANES a.v[i] -= b.v[i];
    return a;
}
VEC vf vf_mul(vf a, vf b)
{
    LANES a.v[i] *= b.v[i];
    return a;
}
VEC vf vf_div(vf a, vf b)
{
    LANES a.v[i] /= b.v[i];
    return a;
}
VEC vf vf_fma(vf a, vf b, vf c)
{
    LANES a.v[i] = fmaf(a.v[i], b.v[i], c.v[i]);
    return a;
}
VEC vf vf_max(vf a, vf b)
{
    LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}
VEC vf vf_min(vf a, vf b)
{
    LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}
/* Lanes lo..hi-1 of a, the others of b. */
VEC vf vf_select(int lo, int hi, vf a, vf b)
{
    for (int i = lo; i < hi; i++)
        b.v[i] = a.v[i];
    return b;
}
VEC vi vf_to_int(vf a) /* to nearest, halves to even; the smallest integer where there is none, as x86 has it */
{
    vi r;
    LANES r.v[i] = fabsf(a.v[i]) < 0x1p31f ? (int32_t)nearbyintf(a.v[i]) : INT32_MIN;
    return r;
}
VEC vf vi_to_f(vi a)
{
    vf r;
    LANES r.v[i] = (float)a.v[i];
    return r;
}
VEC vi vf_bits(vf a)
{
    vi r;
    memcpy(&r, &a, sizeof r);
    return r;
}
/* a * 2^n for normal results. */
VEC vf vf_scale2(vf a, vi n)
{
    vi u = vf_bits(a);
    LANES u.v[i] = (int32_t)((uint32_t)u.v[i] + ((uint32_t)n.v[i] << 23));
    memcpy(&a, &u, sizeof a);
    return a;
}
VEC float vf_sum(vf a)
{
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            a.v[i] += a.v[i + half];
    return a.v[0];
}
VEC float vf_hmax(vf a)
{
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
    return a.v[0];
}
VEC vi vi_set1(int32_t x)
{
    vi r;
    LANES r.v[i] = x;
    return r;
}
VEC vi vi_zero(void)
{
    return vi_set1(0);
}
VEC int32_t vi_sum(vi a)
{
    int32_t sum = 0;
    LANES sum += a.v[i];
    return sum;
}
VEC vi vi_max(vi a, vi b)
{
    LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}
VEC int32_t vi_hmax(vi a)
{
    int32_t m = a.v[0];
    LANES m = a.v[i] > m ? a.v[i] : m;
    return m;
}
VEC vi vf_abs_bits(vf a)
{
    vi u = vf_bits(a);
    LANES u.v[i] &= 0x7fffffff;
    return u;
}
VEC void vi_store_i8(int8_t *p, vi a) /* lanes fit */
{
    LANES p[i] = (int8_t)(a.v[i] < -128 ? -128 : a.v[i]);
}
VEC vf vf_load_u8(const uint8_t *p)
{
    vf r;
    LANES r.v[i] = (float)p[i];
    return r;
}
/* 2^(e - 128) of 16 bytes, 0 for e < 2: the scales of MXFP4, whose codes are doubled. */
VEC vf vf_load_exponent(const uint8_t *p)
{
    uint32_t bits[16];
    for (int i = 0; i < 16; i++)
        bits[i] = (uint32_t)(p[i] ? p[i] - 1 : 0) << 23;
    vf r;
    memcpy(&r, bits, sizeof r);
    return r;
}
VEC vf vf_load_i8(const int8_t *p)
{
    vf r;
    LANES r.v[i] = (float)p[i];
    return r;
}
VEC vf vf_load_f16(const void *p)
{
    uint16_t h[16];
    vf r;
    memcpy(h, p, sizeof h);
    LANES r.v[i] = f16_to_f32(h[i]);
    return r;
}
VEC void vf_store_f16(void *p, vf a)
{
    uint16_t h[16];
    LANES h[i] = f32_to_f16(a.v[i]);
    memcpy(p, h, sizeof h);
}
VEC vf vf_load_bf16(const void *p)
{
    uint16_t h[16];
    vf r;
    memcpy(h, p, sizeof h);
    LANES r.v[i] = bf16_to_f32(h[i]);
    return r;
}
/* Sixteen pairs of bf16, the first (0) or the second (1) of each. */
VEC vf vf_load_half_bf16(const void *p, int second)
{
    uint32_t pair[16];
    memcpy(pair, p, sizeof pair);
    for (int i = 0; i < 16; i++)
        pair[i] = second ? pair[i] & 0xffff0000 : pair[i] << 16;
    vf r;
    memcpy(&r, pair, sizeof r);
    return r;
}
/* Sixteen codes of e4m3, each times 2^-8: they are an f16 without its last mantissa bits. */
VEC vf vf_load_e4m3(const void *p)
{
    uint8_t code[16];
    vf r;
    memcpy(code, p, sizeof code);
    LANES r.v[i] = f16_to_f32((uint16_t)((code[i] & 0x80) << 8 | (code[i] & 0x7f) << 7));
    return r;
}
VEC void vf_store_bf16(void *p, vf a)
{
    uint16_t h[16];
    LANES h[i] = f32_to_bf16(a.v[i]);
    memcpy(p, h, sizeof h);
}

/* 16 columns of 4 codes each, and their dot products with the 4 activations at p. */
typedef struct {
    uint8_t v[64];
} vcodes;
enum { VEC_OFFSET_CODES = 0 }; /* Q8_0's codes are made signed when loaded; its sums start at 0 */

VEC vcodes codes_load(const uint8_t *p)
{
    vcodes r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
VEC vcodes codes_low(vcodes a)
{
    for (int i = 0; i < 64; i++)
        a.v[i] &= 15;
    return a;
}
VEC vcodes codes_high(vcodes a)
{
    for (int i = 0; i < 64; i++)
        a.v[i] >>= 4;
    return a;
}
VEC vcodes codes_signed(vcodes a)
{
    for (int i = 0; i < 64; i++)
        a.v[i] ^= 128;
    return a;
}
VEC vcodes codes_with_bits(vcodes a, vcodes from, int left, int mask)
{
    for (int i = 0; i < 64; i++)
        a.v[i] |= (uint8_t)((left >= 0 ? from.v[i] << left : from.v[i] >> -left) & mask);
    return a;
}
VEC vcodes codes_fp4(vcodes a)
{
    static const uint8_t value[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
    for (int i = 0; i < 64; i++)
        a.v[i] = value[a.v[i]];
    return a;
}
VEC int dot4_run(int most)
{
    (void)most;
    return 1;
}
VEC vi dot4_u8(vi acc, const vcodes *w, const int8_t *p, int n)
{
    (void)n;
    LANES for (int j = 0; j < 4; j++) acc.v[i] += w->v[4 * i + j] * p[j];
    return acc;
}
VEC vi dot4_s8(vi acc, vcodes w, const int8_t *p)
{
    LANES for (int j = 0; j < 4; j++) acc.v[i] += (int8_t)w.v[4 * i + j] * p[j];
    return acc;
}

/* row[i] becomes column i: 16 x 16. */
VEC void vf_transpose(vf r[16])
{
    vf t[16];
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            t[j].v[i] = r[i].v[j];
    memcpy(r, t, sizeof t);
}
