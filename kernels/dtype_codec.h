/* Block codecs behind kernels/include/dtype.h: only dtype*.c include this. A codec turns whole blocks of one
 * format into f32 or back; everything else (names, sizes, dispatch) is in dtype.c. */
#ifndef GALLEY_DTYPE_CODEC_H
#define GALLEY_DTYPE_CODEC_H

#include <stdint.h>
#include <string.h>

#include "dtype.h"

enum {
    QK_LEN = 256,        /* elements a super-block of the K formats */
    QK_SCALE_BYTES = 12, /* eight 6-bit scales and eight 6-bit minima, packed */
    FP8_BYTES = 4 + FP8_BLOCK
};

static inline uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float f32_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint16_t load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline void store_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* A block's scale as f16: finite whatever the input, since an infinite scale would turn zeros into NaN. */
static inline uint16_t scale_to_f16(float d)
{
    return f32_to_f16(d > 65504.0f ? 65504.0f : d < -65504.0f ? -65504.0f : d);
}

/* To the nearest integer, halves to even, clamped; v must not be NaN. */
static inline int round_clamp(float v, int lo, int hi)
{
    if (v <= (float)lo)
        return lo;
    if (v >= (float)hi)
        return hi;
    /* Adding 1.5 * 2^23 leaves the rounded integer in the low mantissa bits; |v| < 2^21 here. */
    float biased = v + 12582912.0f;
    return (int)(f32_bits(biased) & 0x7fffff) - 0x400000;
}

/* Best scale d for x[i] ~ d * q[i], q in [-levels, levels - 1], by weighted squared error with weights w.
 * Returns d (0 when all x vanish). */
float quant_fit_scale(const float *x, const float *w, int n, int levels);
/* Best (scale, min) for x[i] ~ scale * q[i] - min, q in [0, q_max], min >= 0, scale >= 0. */
void quant_fit_affine(const float *x, const float *w, int n, int q_max, float *scale, float *min);
/* Weights of a group: large elements matter more, none is ignored. */
void quant_weights(const float *x, float *w, int n);

extern const int8_t mxfp4_value[16];
float mxfp4_scale(uint8_t e); /* what a value of the table is multiplied by */
void mxfp4_to_f32(const uint8_t *src, float *dst, int64_t n_block);
void mxfp4_from_f32(const float *src, uint8_t *dst, int64_t n_block);

void fp8_to_f32(const uint8_t *src, float *dst, int64_t n_block);
void fp8_from_f32(const float *src, uint8_t *dst, int64_t n_block);

void q4k_to_f32(const uint8_t *src, float *dst, int64_t n_block);
void q5k_to_f32(const uint8_t *src, float *dst, int64_t n_block);
void q6k_to_f32(const uint8_t *src, float *dst, int64_t n_block);
void q4k_from_f32(const float *src, uint8_t *dst, int64_t n_block);
void q5k_from_f32(const float *src, uint8_t *dst, int64_t n_block);
void q6k_from_f32(const float *src, uint8_t *dst, int64_t n_block);

#endif
