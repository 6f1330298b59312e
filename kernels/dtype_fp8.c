/* FP8 blocks: an f32 scale, then 128 numbers of e4m3 that it multiplies. */
#include <float.h>
#include <math.h>

#include "dtype_codec.h"

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

float e4m3_to_f32(uint8_t code)
{
    uint32_t sign = (uint32_t)(code & 0x80) << 24, mag = code & 0x7f;
    if (mag == 0x7f)
        return float_of(sign | 0x7fc00000);
    if (mag >= 8)
        return float_of(sign | ((mag << 20) + (120u << 23)));
    return float_of(sign | bits_of((float)mag * 0x1p-9f)); /* subnormal: a multiple of 2^-9 */
}

/* Both roundings are computed and one is taken: without branches compilers make vectors of it. */
static inline uint8_t encode(float f)
{
    uint32_t bits = bits_of(f), sign = bits >> 24 & 0x80, mag = bits & 0x7fffffff;
    uint32_t capped = mag < 0x43e00000 ? mag : 0x43e00000;              /* 448 */
    uint32_t small = bits_of(float_of(capped) + 16384.0f) - 0x46800000; /* below 2^-6 the sum rounds to 2^-9 */
    uint32_t large = (capped + 0x7ffff + (capped >> 20 & 1) - (120u << 23)) >> 20;
    uint32_t code = capped < 0x3c800000 ? small : large;
    return (uint8_t)(sign | (mag > 0x7f800000 ? 0x7f : code));
}

uint8_t f32_to_e4m3(float f)
{
    return encode(f);
}

void fp8_to_f32(const uint8_t *src, float *dst, int64_t n_block)
{
    float value[256];
    for (int i = 0; i < 256; i++)
        value[i] = e4m3_to_f32((uint8_t)i);
    for (int64_t b = 0; b < n_block; b++, src += FP8_BYTES, dst += FP8_LEN) {
        float scale;
        memcpy(&scale, src, sizeof scale);
        for (int i = 0; i < FP8_LEN; i++)
            dst[i] = value[src[sizeof scale + (size_t)i]] * scale;
    }
}

void fp8_from_f32(const float *src, uint8_t *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, dst += FP8_BYTES, src += FP8_LEN) {
        float most = 0;
        for (int i = 0; i < FP8_LEN; i++)
            most = fabsf(src[i]) > most ? fabsf(src[i]) : most;
        float scale = most / 448.0f;
        scale = most > 0 && scale < FLT_MIN ? FLT_MIN : scale; /* below it a scale has too few bits of its own */
        float divisor = most > 0 ? scale : 1;
        memcpy(dst, &scale, sizeof scale);
        for (int i = 0; i < FP8_LEN; i++)
            dst[sizeof scale + (size_t)i] = encode(src[i] / divisor);
    }
}
