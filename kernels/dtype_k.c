/* The K formats: super-blocks of 256 elements whose small groups have integer scales under one or two f16 scales.
 *
 *   Q4_K  d, dmin (f16); 8 x (6-bit scale, 6-bit min); 256 x 4 bit    x = d*sc[g]*q - dmin*m[g], groups of 32
 *   Q5_K  the same with 256 x 1 high bit before the nibbles
 *   Q6_K  256 x 4 low bits; 256 x 2 high bits; 16 x int8; d (f16)     x = d*sc[g]*(q-32),        groups of 16
 *
 * Layouts as documented by ggml. The packing of quants is kept apart from scales: unpack gives q[256] in
 * element order, pack takes it. */
#include <math.h>

#include "dtype_codec.h"

enum { Q4K_BYTES = 144, Q5K_BYTES = 176, Q6K_BYTES = 210, N_GROUP = 8, GROUP_LEN = 32, N_GROUP6 = 16, GROUP6_LEN = 16 };

/* ---- packing ---- */

/* Groups 0..3 keep their low 6 bits in bytes 0..3 (scales) and 4..7 (minima); groups 4..7 keep 4 bits in
 * bytes 8..11 and their upper 2 bits on top of the bytes of groups 0..3. */
static void scales_unpack(const uint8_t *p, uint8_t sc[N_GROUP], uint8_t m[N_GROUP])
{
    for (int g = 0; g < 4; g++) {
        sc[g] = p[g] & 63;
        m[g] = p[g + 4] & 63;
        sc[g + 4] = (uint8_t)((p[g + 8] & 15) | (p[g] >> 6) << 4);
        m[g + 4] = (uint8_t)(p[g + 8] >> 4 | (p[g + 4] >> 6) << 4);
    }
}

static void scales_pack(uint8_t *p, const uint8_t sc[N_GROUP], const uint8_t m[N_GROUP])
{
    for (int g = 0; g < 4; g++) {
        p[g] = (uint8_t)(sc[g] | (sc[g + 4] >> 4) << 6);
        p[g + 4] = (uint8_t)(m[g] | (m[g + 4] >> 4) << 6);
        p[g + 8] = (uint8_t)((sc[g + 4] & 15) | (m[g + 4] & 15) << 4);
    }
}

/* Each 32 bytes hold two groups: the low nibbles, then the high ones. */
static void nibbles_unpack(const uint8_t *p, uint8_t q[QK_LEN])
{
    for (int pair = 0; pair < 4; pair++, p += 32, q += 64)
        for (int i = 0; i < 32; i++) {
            q[i] = p[i] & 15;
            q[i + 32] = p[i] >> 4;
        }
}

static void nibbles_pack(uint8_t *p, const uint8_t q[QK_LEN])
{
    for (int pair = 0; pair < 4; pair++, p += 32, q += 64)
        for (int i = 0; i < 32; i++)
            p[i] = (uint8_t)((q[i] & 15) | (q[i + 32] & 15) << 4);
}

/* Byte i holds the fifth bit of element i of each of the eight groups. */
static void fifth_bits_unpack(const uint8_t *p, uint8_t q[QK_LEN])
{
    for (int g = 0; g < N_GROUP; g++)
        for (int i = 0; i < 32; i++)
            q[32 * g + i] = (uint8_t)(q[32 * g + i] | (p[i] >> g & 1) << 4);
}

static void fifth_bits_pack(uint8_t *p, const uint8_t q[QK_LEN])
{
    memset(p, 0, 32);
    for (int g = 0; g < N_GROUP; g++)
        for (int i = 0; i < 32; i++)
            p[i] = (uint8_t)(p[i] | (q[32 * g + i] >> 4) << g);
}

/* Each half of 128 elements: 64 bytes of low nibbles (quarters 0 and 1 low, 2 and 3 high), 32 bytes of high pairs
 * of bits (quarter k at bit 2k). */
static void q6k_unpack(const uint8_t *lo, const uint8_t *hi, uint8_t q[QK_LEN])
{
    for (int half = 0; half < 2; half++, lo += 64, hi += 32, q += 128)
        for (int i = 0; i < 32; i++) {
            q[i] = (uint8_t)((lo[i] & 15) | (hi[i] & 3) << 4);
            q[32 + i] = (uint8_t)((lo[32 + i] & 15) | (hi[i] >> 2 & 3) << 4);
            q[64 + i] = (uint8_t)(lo[i] >> 4 | (hi[i] >> 4 & 3) << 4);
            q[96 + i] = (uint8_t)(lo[32 + i] >> 4 | (hi[i] >> 6) << 4);
        }
}

static void q6k_pack(uint8_t *lo, uint8_t *hi, const uint8_t q[QK_LEN])
{
    for (int half = 0; half < 2; half++, lo += 64, hi += 32, q += 128) {
        for (int i = 0; i < 64; i++)
            lo[i] = (uint8_t)((q[i] & 15) | (q[i + 64] & 15) << 4);
        for (int i = 0; i < 32; i++)
            hi[i] = (uint8_t)(q[i] >> 4 | (q[i + 32] >> 4) << 2 | (q[i + 64] >> 4) << 4 | (q[i + 96] >> 4) << 6);
    }
}

/* ---- to f32 ---- */

static void affine_to_f32(const uint8_t *head, const uint8_t q[QK_LEN], float *dst)
{
    float d = f16_to_f32(load_u16(head)), dmin = f16_to_f32(load_u16(head + 2));
    uint8_t sc[N_GROUP], m[N_GROUP];
    scales_unpack(head + 4, sc, m);
    for (int g = 0; g < N_GROUP; g++) {
        float scale = d * (float)sc[g], min = dmin * (float)m[g];
        for (int i = 32 * g; i < 32 * g + 32; i++)
            dst[i] = scale * (float)q[i] - min;
    }
}

void q4k_to_f32(const uint8_t *src, float *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, src += Q4K_BYTES, dst += QK_LEN) {
        uint8_t q[QK_LEN];
        nibbles_unpack(src + 16, q);
        affine_to_f32(src, q, dst);
    }
}

void q5k_to_f32(const uint8_t *src, float *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, src += Q5K_BYTES, dst += QK_LEN) {
        uint8_t q[QK_LEN];
        nibbles_unpack(src + 48, q);
        fifth_bits_unpack(src + 16, q);
        affine_to_f32(src, q, dst);
    }
}

void q6k_to_f32(const uint8_t *src, float *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, src += Q6K_BYTES, dst += QK_LEN) {
        uint8_t q[QK_LEN];
        q6k_unpack(src, src + 128, q);
        const int8_t *sc = (const int8_t *)src + 192;
        float d = f16_to_f32(load_u16(src + 208));
        for (int g = 0; g < QK_LEN / GROUP6_LEN; g++) {
            float scale = d * (float)sc[g];
            for (int i = GROUP6_LEN * g; i < GROUP6_LEN * (g + 1); i++)
                dst[i] = scale * (float)(q[i] - 32);
        }
    }
}

/* ---- from f32: groups with a scale and a minimum ---- */

/* One super-block being fitted: x ~ d*sc[g]*q - dmin*m[g]. */
struct affine {
    uint16_t d16, dmin16;
    uint8_t sc[N_GROUP], m[N_GROUP], q[QK_LEN];
};

/* Nearest quants for the scales chosen; returns the weighted squared error. */
static double affine_assign(struct affine *a, const float *x, const float *w, int q_max)
{
    float d = f16_to_f32(a->d16), dmin = f16_to_f32(a->dmin16);
    double err = 0;
    for (int g = 0; g < N_GROUP; g++) {
        float scale = d * (float)a->sc[g], min = dmin * (float)a->m[g], inv = scale > 0 ? 1.0f / scale : 0.0f;
        float sum = 0;
        for (int i = 32 * g; i < 32 * g + 32; i++) {
            a->q[i] = (uint8_t)round_clamp((x[i] + min) * inv, 0, q_max);
            float e = scale * (float)a->q[i] - min - x[i];
            sum += w[i] * e * e;
        }
        err += sum;
    }
    return err;
}

/* With quants and group integers held, the best d and dmin are a least-squares problem in two unknowns. */
static void affine_refit(struct affine *a, const float *x, const float *w)
{
    double uu = 0, uv = 0, vv = 0, ux = 0, vx = 0; /* u = sc*q, v = -m */
    for (int i = 0; i < QK_LEN; i++) {
        float u = (float)a->sc[i / 32] * (float)a->q[i], v = -(float)a->m[i / 32], wi = w[i];
        uu += wi * u * u;
        uv += wi * u * v;
        vv += wi * v * v;
        ux += wi * u * x[i];
        vx += wi * v * x[i];
    }
    double det = uu * vv - uv * uv;
    if (det > 1e-9 * uu * vv) {
        double d = (ux * vv - vx * uv) / det, dmin = (vx * uu - ux * uv) / det;
        if (d > 0 && dmin >= 0) {
            a->d16 = scale_to_f16((float)d);
            a->dmin16 = scale_to_f16((float)dmin);
        }
    } else if (uu > 0 && ux > 0 && vv == 0) {
        a->d16 = scale_to_f16((float)(ux / uu));
    }
}

static void affine_fit(struct affine *a, const float *x, int q_max)
{
    float w[QK_LEN], scale[N_GROUP], min[N_GROUP], max_scale = 0, max_min = 0;
    for (int g = 0; g < N_GROUP; g++) {
        quant_weights(x + 32 * g, w + 32 * g, GROUP_LEN);
        quant_fit_affine(x + 32 * g, w + 32 * g, GROUP_LEN, q_max, &scale[g], &min[g]);
        max_scale = fmaxf(max_scale, scale[g]);
        max_min = fmaxf(max_min, min[g]);
    }
    a->d16 = scale_to_f16(max_scale / 63.0f);
    a->dmin16 = scale_to_f16(max_min / 63.0f);
    float d = f16_to_f32(a->d16), dmin = f16_to_f32(a->dmin16);
    for (int g = 0; g < N_GROUP; g++) {
        a->sc[g] = (uint8_t)(d > 0 ? round_clamp(scale[g] / d, 0, 63) : 0);
        a->m[g] = (uint8_t)(dmin > 0 ? round_clamp(min[g] / dmin, 0, 63) : 0);
    }
    double err = affine_assign(a, x, w, q_max);
    for (int round = 0; round < 2; round++) {
        struct affine next = *a;
        affine_refit(&next, x, w);
        double next_err = affine_assign(&next, x, w, q_max);
        if (next_err >= err)
            break;
        err = next_err;
        *a = next;
    }
}

static void affine_store_head(const struct affine *a, uint8_t *dst)
{
    store_u16(dst, a->d16);
    store_u16(dst + 2, a->dmin16);
    scales_pack(dst + 4, a->sc, a->m);
}

void q4k_from_f32(const float *src, uint8_t *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, dst += Q4K_BYTES, src += QK_LEN) {
        struct affine a;
        affine_fit(&a, src, 15);
        affine_store_head(&a, dst);
        nibbles_pack(dst + 16, a.q);
    }
}

void q5k_from_f32(const float *src, uint8_t *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, dst += Q5K_BYTES, src += QK_LEN) {
        struct affine a;
        affine_fit(&a, src, 31);
        affine_store_head(&a, dst);
        fifth_bits_pack(dst + 16, a.q);
        nibbles_pack(dst + 48, a.q);
    }
}

/* ---- from f32: groups with a signed scale ---- */

void q6k_from_f32(const float *src, uint8_t *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, dst += Q6K_BYTES, src += QK_LEN) {
        float w[GROUP6_LEN], scale[N_GROUP6], widest = 0;
        for (int g = 0; g < N_GROUP6; g++) {
            quant_weights(src + 16 * g, w, GROUP6_LEN);
            scale[g] = quant_fit_scale(src + 16 * g, w, GROUP6_LEN, 32);
            if (fabsf(scale[g]) > fabsf(widest))
                widest = scale[g];
        }
        /* The widest group takes -128, the end of int8 that reaches further. */
        uint16_t d16 = scale_to_f16(widest / -128.0f);
        float d = f16_to_f32(d16);
        uint8_t q[QK_LEN];
        int8_t *sc = (int8_t *)dst + 192;
        for (int g = 0; g < N_GROUP6; g++) {
            sc[g] = (int8_t)(d != 0.0f ? round_clamp(scale[g] / d, -128, 127) : 0);
            float step = d * (float)sc[g], inv = step != 0.0f ? 1.0f / step : 0.0f;
            for (int i = 16 * g; i < 16 * g + 16; i++)
                q[i] = (uint8_t)(round_clamp(src[i] * inv, -32, 31) + 32);
        }
        q6k_pack(dst, dst + 128, q);
        store_u16(dst + 208, d16);
    }
}
