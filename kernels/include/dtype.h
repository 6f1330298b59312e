/* Tensor element types: sizes, conversion to and from f32. Used by model loading, `galley quantize` and every
 * back end. The block layouts are those of GGUF v3 (ggml's documented formats), little-endian, but for FP8, which is no
 * file's: loading makes it (engine/model/fp8.h). Its block is an f32 scale and 128 codes of e4m3 (OCP 8-bit Floating
 * Point Specification), so it holds exactly what checkpoints say with a scale for a tensor, a row or 128 x 128
 * elements. */
#ifndef GALLEY_DTYPE_H
#define GALLEY_DTYPE_H

#include <stddef.h>
#include <stdint.h>

/* The numbers are GGUF's own, so a file's type field is the enum. */
enum dtype {
    DT_F32 = 0,
    DT_F16 = 1,
    DT_Q4_0 = 2,
    DT_Q8_0 = 8,
    DT_Q4_K = 12,
    DT_Q5_K = 13,
    DT_Q6_K = 14,
    DT_BF16 = 30,
    DT_MXFP4 = 39,
    DT_FP8 = 1000, /* beyond all of GGUF's */
};

enum { FP8_BLOCK = 128 }; /* elements of DT_FP8 that share a scale */

struct dtype_info {
    const char *name; /* "Q4_K" */
    int block_len;    /* elements a block: 1, 32, 128 or 256 */
    int block_bytes;  /* bytes a block */
};

/* NULL when `type` is not one of the above. */
const struct dtype_info *dtype_info(int type);
/* By name, case-insensitive; returns the dtype or -1. */
int dtype_by_name(const char *name);
/* Bytes of a row of n elements; 0 when n is not a multiple of the block length or the type is unknown. */
size_t dtype_row_bytes(int type, int64_t n);

/* n elements, n a multiple of the block length. src and dst do not overlap; src may be unaligned (a mapped file). */
void dtype_to_f32(int type, const void *src, float *dst, int64_t n);
/* Round to nearest; quantised types minimise the weighted squared error of each block, but for Q8_0 and FP8, whose
 * largest element gets the largest code. Non-finite input is the caller's to refuse. */
void dtype_from_f32(int type, const float *src, void *dst, int64_t n);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* to nearest even; overflow gives infinity */
static inline float bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)h << 16};
    return v.f;
}
uint16_t f32_to_bf16(float f); /* to nearest even; NaN stays NaN */
/* e4m3: a sign, 4 exponent bits, 3 of mantissa; the largest is 448, there is no infinity, 0x7f and 0xff are NaN. */
float e4m3_to_f32(uint8_t code);
uint8_t f32_to_e4m3(float f); /* to nearest even, 448 at most; NaN stays NaN */

#endif
