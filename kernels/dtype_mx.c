/* MXFP4 (OCP Microscaling Formats 1.0): a scale of eight exponent bits and 32 numbers of four bits, as GGUF stores them:
 * the exponent, then 16 bytes of nibbles, low halves elements 0..15, high halves 16..31. */
#include <math.h>

#include "dtype_codec.h"

enum { MX_LEN = 32, MX_BYTES = 17 };

/* Twice the values of the 4-bit float: sign, two exponent bits, one of mantissa. */
const int8_t mxfp4_value[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Half of 2^(e - 127), since the table has twice the values. */
float mxfp4_scale(uint8_t e)
{
    return ldexpf(1, e - 128);
}

void mxfp4_to_f32(const uint8_t *src, float *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, src += MX_BYTES, dst += MX_LEN) {
        float d = mxfp4_scale(src[0]);
        for (int i = 0; i < 16; i++) {
            dst[i] = (float)mxfp4_value[src[1 + i] & 15] * d;
            dst[i + 16] = (float)mxfp4_value[src[1 + i] >> 4] * d;
        }
    }
}

/* The nearest code for x in units of the scale; halfway, the even one. */
static uint8_t nearest(float x)
{
    static const float middle[7] = {.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};
    float a = fabsf(x);
    uint8_t code = 0;
    while (code < 7 && (a > middle[code] || (a == middle[code] && code % 2)))
        code++;
    return (uint8_t)(code | (x < 0 && code ? 8 : 0));
}

static float error_of(const float *src, const float *w, uint8_t e)
{
    float d = mxfp4_scale(e), sum = 0;
    for (int i = 0; i < MX_LEN; i++) {
        float off = src[i] - d * (float)mxfp4_value[nearest(src[i] / d)];
        sum += w[i] * off * off;
    }
    return sum;
}

/* The largest element fits at one exponent; one below, it is cut, but the others are nearer. */
static uint8_t best_exponent(const float *src, const float *w)
{
    float top = 0, least = INFINITY;
    for (int i = 0; i < MX_LEN; i++)
        top = fmaxf(top, fabsf(src[i]));
    int fits = top > 0 ? ilogbf(top) - 2 + 127 : 0, best = 0;
    for (int e = fits - 1; e <= fits + 1; e++) {
        int in_range = e < 2 ? 2 : e > 254 ? 254 : e; /* from 2 on the scale is a normal number */
        float error = error_of(src, w, (uint8_t)in_range);
        if (error < least) {
            least = error;
            best = in_range;
        }
    }
    return (uint8_t)best;
}

void mxfp4_from_f32(const float *src, uint8_t *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, dst += MX_BYTES, src += MX_LEN) {
        float w[MX_LEN];
        quant_weights(src, w, MX_LEN);
        dst[0] = best_exponent(src, w);
        float d = mxfp4_scale(dst[0]);
        for (int i = 0; i < 16; i++)
            dst[1 + i] = (uint8_t)(nearest(src[i] / d) | nearest(src[i + 16] / d) << 4);
    }
}
