/* FP8 blocks: an f32 scale, then 128 numbers of e4m3 that it multiplies. */
#include <float.h>
#include <math.h>

#include "dtype_codec.h"

float e4m3_to_f32(uint8_t code)
{
    uint32_t sign = (uint32_t)(code & 0x80) << 24, mag = code & 0x7f;
    if (mag == 0x7f)
        return f32_of(sign | 0x7fc00000);
    if (mag >= 8)
        return f32_of(sign | ((mag << 20) + (120u << 23)));
    return f32_of(sign | f32_bits((float)mag * 0x1p-9f)); /* subnormal: a multiple of 2^-9 */
}

/* Both roundings are computed and one is taken, by masks: with branches compilers make no vectors of it. */
static inline uint8_t encode(float f)
{
    uint32_t bits = f32_bits(f), mag = bits & 0x7fffffff;
    uint32_t over = 0u - (mag > 0x43e00000), nan = 0u - (mag > 0x7f800000); /* more than 448 */
    uint32_t capped = (0x43e00000 & over) | (mag & ~over);
    uint32_t small = f32_bits(f32_of(capped) + 16384.0f) - 0x46800000; /* the sum is rounded to a multiple of 2^-9 */
    uint32_t large = (capped + 0x7ffff + (capped >> 20 & 1) - (120u << 23)) >> 20;
    uint32_t is_small = 0u - (capped < 0x3c800000); /* below 2^-6 */
    return (uint8_t)((bits >> 24 & 0x80) | (small & is_small) | (large & ~is_small) | (0x7f & nan));
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
    for (int64_t b = 0; b < n_block; b++, src += FP8_BYTES, dst += FP8_BLOCK) {
        float scale;
        memcpy(&scale, src, sizeof scale);
        for (int i = 0; i < FP8_BLOCK; i++)
            dst[i] = value[src[sizeof scale + (size_t)i]] * scale;
    }
}

void fp8_from_f32(const float *src, uint8_t *dst, int64_t n_block)
{
    for (int64_t b = 0; b < n_block; b++, dst += FP8_BYTES, src += FP8_BLOCK) {
        int32_t most_bits = 0; /* sizes are in the order of their bits, whose maximum is found in vectors */
        for (int i = 0; i < FP8_BLOCK; i++) {
            int32_t mag = (int32_t)(f32_bits(src[i]) & 0x7fffffff);
            most_bits = mag > most_bits ? mag : most_bits;
        }
        float most = f32_of((uint32_t)most_bits), scale = most / 448.0f;
        scale = most > 0 && scale < FLT_MIN ? FLT_MIN : scale; /* below it a scale has too few bits of its own */
        float divisor = most > 0 ? scale : 1;
        memcpy(dst, &scale, sizeof scale);
        for (int i = 0; i < FP8_BLOCK; i++)
            dst[sizeof scale + (size_t)i] = encode(src[i] / divisor);
    }
}
