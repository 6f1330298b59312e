#include "dtype.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "dtype_codec.h"

/* ---- half precision ---- */

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = h & 0x7fff;
    if (mag >= 0x7c00) /* infinity, NaN */
        return f32_of(sign | 0x7f800000 | (mag & 0x3ff) << 13);
    if (mag >= 0x0400)
        return f32_of(sign | ((mag << 13) + (112u << 23)));
    return f32_of(sign | f32_bits((float)mag * 0x1p-24f)); /* subnormal: a multiple of 2^-24 */
}

uint16_t f32_to_f16(float f)
{
    uint32_t bits = f32_bits(f), sign = bits >> 16 & 0x8000, mag = bits & 0x7fffffff;
    if (mag > 0x7f800000) /* NaN stays one, quiet */
        return (uint16_t)(sign | 0x7e00 | (mag >> 13 & 0x3ff));
    if (mag >= 0x477ff000) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (mag < 0x38800000) /* below 2^-14: the addition rounds to a multiple of 2^-24 */
        return (uint16_t)(sign | (f32_bits(f32_of(mag) + 0.5f) - 0x3f000000));
    mag += 0xfff + (mag >> 13 & 1);
    return (uint16_t)(sign | (mag - (112u << 23)) >> 13);
}

uint16_t f32_to_bf16(float f)
{
    uint32_t bits = f32_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void f32_to_f32(const uint8_t *src, float *dst, int64_t n)
{
    memcpy(dst, src, (size_t)n * 4);
}

static void f32_from_f32(const float *src, uint8_t *dst, int64_t n)
{
    memcpy(dst, src, (size_t)n * 4);
}

static void f16_row_to_f32(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = f16_to_f32(load_u16(src + 2 * i));
}

static void f16_row_from_f32(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        store_u16(dst + 2 * i, f32_to_f16(src[i]));
}

static void bf16_row_to_f32(const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = bf16_to_f32(load_u16(src + 2 * i));
}

static void bf16_row_from_f32(const float *src, uint8_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        store_u16(dst + 2 * i, f32_to_bf16(src[i]));
}

/* ---- Q8_0: f16 d, 32 x int8; x = d * q ---- */

enum { Q8_0_BYTES = 34, Q4_0_BYTES = 18, Q_LEN = 32 };

static void q8_0_to_f32(const uint8_t *src, float *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, src += Q8_0_BYTES, dst += Q_LEN) {
        float d = f16_to_f32(load_u16(src));
        const int8_t *q = (const int8_t *)src + 2;
        for (int i = 0; i < Q_LEN; i++)
            dst[i] = (float)q[i] * d;
    }
}

/* roundf of |x| < 2^31, halves away from zero: no call, and compilers make vectors of it. */
static inline int32_t round_away(float x)
{
    int32_t whole = (int32_t)x;
    float rest = x - (float)whole;
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

static inline float clamp_127(float x)
{
    x = x < 127.0f ? x : 127.0f; /* NaN as well: an integer has none */
    return x > -127.0f ? x : -127.0f;
}

/* The same bits as ggml's reference: at 8 bits the largest element sets the scale and no search pays. */
static void q8_0_from_f32(const float *src, uint8_t *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, dst += Q8_0_BYTES, src += Q_LEN) {
        float amax = 0;
        for (int i = 0; i < Q_LEN; i++)
            amax = fabsf(src[i]) > amax ? fabsf(src[i]) : amax; /* fmaxf, which would be a call */
        uint16_t d16 = scale_to_f16(amax / 127.0f);
        float d = d16 == 0x7bff ? 65504.0f : amax / 127.0f, inv = d16 ? 1.0f / d : 0.0f;
        store_u16(dst, d16);
        for (int i = 0; i < Q_LEN; i++)
            dst[2 + i] = (uint8_t)(int8_t)round_away(clamp_127(src[i] * inv));
    }
}

/* ---- Q4_0: f16 d, 16 bytes of nibbles: low half is elements 0..15, high half 16..31; x = d * (q - 8) ---- */

static void q4_0_to_f32(const uint8_t *src, float *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, src += Q4_0_BYTES, dst += Q_LEN) {
        float d = f16_to_f32(load_u16(src));
        for (int i = 0; i < 16; i++) {
            dst[i] = (float)((src[2 + i] & 15) - 8) * d;
            dst[i + 16] = (float)((src[2 + i] >> 4) - 8) * d;
        }
    }
}

static void q4_0_from_f32(const float *src, uint8_t *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, dst += Q4_0_BYTES, src += Q_LEN) {
        float w[Q_LEN];
        quant_weights(src, w, Q_LEN);
        uint16_t d16 = scale_to_f16(quant_fit_scale(src, w, Q_LEN, 8));
        float d = f16_to_f32(d16), inv = d != 0.0f ? 1.0f / d : 0.0f;
        store_u16(dst, d16);
        for (int i = 0; i < 16; i++) {
            int lo = round_clamp(src[i] * inv, -8, 7) + 8, hi = round_clamp(src[i + 16] * inv, -8, 7) + 8;
            dst[2 + i] = (uint8_t)(lo | hi << 4);
        }
    }
}

/* ---- the table ---- */

static const struct codec {
    int type;
    struct dtype_info info;
    void (*to_f32)(const uint8_t *src, float *dst, int64_t n_block);
    void (*from_f32)(const float *src, uint8_t *dst, int64_t n_block);
} codec_table[] = {
    {DT_F32, {"F32", 1, 4}, f32_to_f32, f32_from_f32},
    {DT_F16, {"F16", 1, 2}, f16_row_to_f32, f16_row_from_f32},
    {DT_BF16, {"BF16", 1, 2}, bf16_row_to_f32, bf16_row_from_f32},
    {DT_Q8_0, {"Q8_0", Q_LEN, Q8_0_BYTES}, q8_0_to_f32, q8_0_from_f32},
    {DT_Q4_0, {"Q4_0", Q_LEN, Q4_0_BYTES}, q4_0_to_f32, q4_0_from_f32},
    {DT_Q4_K, {"Q4_K", QK_LEN, 144}, q4k_to_f32, q4k_from_f32},
    {DT_Q5_K, {"Q5_K", QK_LEN, 176}, q5k_to_f32, q5k_from_f32},
    {DT_Q6_K, {"Q6_K", QK_LEN, 210}, q6k_to_f32, q6k_from_f32},
    {DT_MXFP4, {"MXFP4", Q_LEN, 17}, mxfp4_to_f32, mxfp4_from_f32},
    {DT_FP8, {"FP8", FP8_BLOCK, FP8_BYTES}, fp8_to_f32, fp8_from_f32},
};

enum { N_CODEC = sizeof codec_table / sizeof codec_table[0] };

static const struct codec *codec_find(int type)
{
    for (int i = 0; i < N_CODEC; i++)
        if (codec_table[i].type == type)
            return &codec_table[i];
    return NULL;
}

const struct dtype_info *dtype_info(int type)
{
    const struct codec *c = codec_find(type);
    return c ? &c->info : NULL;
}

int dtype_by_name(const char *name)
{
    for (int i = 0; i < N_CODEC; i++)
        if (!strcasecmp(codec_table[i].info.name, name))
            return codec_table[i].type;
    return -1;
}

size_t dtype_row_bytes(int type, int64_t n)
{
    const struct dtype_info *t = dtype_info(type);
    if (!t || n < 0 || n % t->block_len)
        return 0;
    size_t size_bytes;
    if (__builtin_mul_overflow((size_t)(n / t->block_len), (size_t)t->block_bytes, &size_bytes))
        return 0;
    return size_bytes;
}

void dtype_to_f32(int type, const void *src, float *dst, int64_t n)
{
    const struct codec *c = codec_find(type);
    if (c)
        c->to_f32(src, dst, n / c->info.block_len);
}

void dtype_from_f32(int type, const float *src, void *dst, int64_t n)
{
    const struct codec *c = codec_find(type);
    if (c)
        c->from_f32(src, dst, n / c->info.block_len);
}
