/* The device layer: the one header that kernels include. Everything that only a GPU has (PTX, intrinsics, launches)
 * stands in dev_ptx.cuh, and its twin for a CPU, on which the tests run the same kernels, in tests/simt/dev_host.cuh.
 * Rules that keep a kernel runnable under both:
 *
 *  - no PTX, intrinsic, <<<>>> or __shared__ in a kernel: dev_*, LAUNCH and SMEM_DYN. Shared memory is one struct or
 *    array per kernel, always dynamic, so that the host twin can fill it with NaN, bound it and watch it for races;
 *  - blocks are whole warps; warp collectives (shuffles, ballots, mma, ldmatrix) are by all 32 lanes at one line;
 *  - a barrier is reached by every thread of the block at one line; no thread leaves before the last one;
 *  - nothing relies on the order of warps or lanes between barriers; dev_warp_sync orders memory within a warp,
 *    shuffles do not; no block waits for another;
 *  - sums whose order must not matter are sums of integers.
 */
#ifndef GALLEY_DEV_CUH
#define GALLEY_DEV_CUH

#include <math.h>
#include <stdint.h>
#include <string.h>

struct bf16 {
    uint16_t u;
};
struct f16 {
    uint16_t u;
};
struct fp8 { /* e4m3: sign, 4 exponent bits (bias 7), 3 of mantissa; largest 448, no infinities, 0x7f is NaN */
    uint8_t u;
};
struct alignas(16) vec16 { /* what one load, store or cp.async moves */
    uint32_t w[4];
};
struct alignas(8) vec8 {
    uint32_t w[2];
};

enum { DEV_WARP = 32 };
constexpr float DEV_FP8_MAX = 448;

#ifdef SIMT
#include "dev_host.cuh"
#else
#include "dev_ptx.cuh"
#endif

#define RNG_FN DEV
#include "rng.h"

/* ---- Conversions. To nearest even; NaN stays NaN. ---- */

DEV float dev_to_f32(float x)
{
    return x;
}

DEV float dev_to_f32(struct bf16 x)
{
    return dev_bits_f32((uint32_t)x.u << 16);
}

DEV float dev_to_f32(struct f16 x)
{
    return dev_f16_value(x.u);
}

DEV struct f16 dev_to_f16(float x) /* overflow gives infinity */
{
    return {dev_f16_bits(x)};
}

DEV struct bf16 dev_to_bf16(float x)
{
    return {(uint16_t)dev_pack_bf16(x, 0)};
}

/* What is larger than 448 becomes 448. */
DEV struct fp8 dev_to_fp8(float x)
{
    uint32_t u = dev_f32_bits(x), sign = u >> 24 & 0x80, rest = u & 0x7fffffff;
    if (rest > 0x7f800000)
        return {(uint8_t)(sign | 0x7f)};
    if (rest >= 0x43e00000)
        return {(uint8_t)(sign | 0x7e)};
    if (rest < 0x3c800000) /* below 2^-6: adding 2^14 leaves the multiple of 2^-9 in the low bits */
        return {(uint8_t)(sign | (dev_f32_bits(dev_bits_f32(rest) + 16384.0f) - 0x46800000))};
    return {(uint8_t)(sign | (rest - 0x3c000000 + 0x7ffff + (rest >> 20 & 1)) >> 20)};
}

/* Two fp8 in the low half to two bf16, exactly; its NaN reads as 480. */
DEV uint32_t dev_widen_fp8(uint32_t two)
{
    uint32_t moved = (two & 0x7f) << 4 | (two & 0x80) << 8 | (two & 0x7f00) << 12 | (two & 0x8000) << 16;
    return dev_scale_bf16(moved, 0x7b80); /* 2^120: the difference of the exponents' biases */
}

/* ---- Reductions. Every lane gets the result; the tree is fixed, so the same inputs give the same sum. ---- */

DEV float dev_warp_sum(float v DEV_AT)
{
    for (int m = DEV_WARP / 2; m > 0; m >>= 1)
        v += dev_shfl_xor(v, m DEV_HERE);
    return v;
}

DEV float dev_warp_max(float v DEV_AT)
{
    for (int m = DEV_WARP / 2; m > 0; m >>= 1)
        v = fmaxf(v, dev_shfl_xor(v, m DEV_HERE));
    return v;
}

DEV uint64_t dev_warp_add(uint64_t v DEV_AT)
{
    for (int m = DEV_WARP / 2; m > 0; m >>= 1)
        v += dev_shfl_xor(v, m DEV_HERE);
    return v;
}

DEV uint64_t dev_warp_greatest(uint64_t v DEV_AT)
{
    for (int m = DEV_WARP / 2; m > 0; m >>= 1) {
        uint64_t other = dev_shfl_xor(v, m DEV_HERE);
        v = other > v ? other : v;
    }
    return v;
}

/* What a gated linear unit makes of its gate: SiLU, or GELU in its tanh form, which is x * sigmoid(2 z) for tanh's z. */
DEV float dev_gate(float x, bool gelu)
{
    float z = gelu ? 1.5957691216f * (x + 0.044715f * x * x * x) : x; /* 2 sqrt(2 / pi) */
    return x * dev_reciprocal(1 + dev_exp2(-1.44269504f * z));
}

/* x becomes cap * tanh(x / cap). */
DEV float dev_soft_cap(float x, float cap)
{
    return cap - 2 * cap * dev_reciprocal(1 + dev_exp2(x * (2 * 1.44269504f / cap)));
}

/* Over a block. `scratch` is shared memory for one element per warp, free again when the call returns. */
template <class T, class Reduce> DEV T dev_block_reduce(T v, T none, T *scratch, Reduce reduce DEV_AT)
{
    int lane = threadIdx.x % DEV_WARP, warp = threadIdx.x / DEV_WARP, n_warp = blockDim.x / DEV_WARP;
    v = reduce(v);
    if (lane == 0)
        scratch[warp] = v;
    dev_block_sync(DEV_ONLY_HERE);
    v = reduce(lane < n_warp ? scratch[lane] : none);
    dev_block_sync(DEV_ONLY_HERE);
    return v;
}

DEV float dev_block_sum(float v, float *scratch DEV_AT)
{
    return dev_block_reduce(v, 0.0f, scratch, [=](float x) { return dev_warp_sum(x DEV_HERE); } DEV_HERE);
}

DEV float dev_block_max(float v, float *scratch DEV_AT)
{
    return dev_block_reduce(v, -INFINITY, scratch, [=](float x) { return dev_warp_max(x DEV_HERE); } DEV_HERE);
}

DEV uint64_t dev_block_add(uint64_t v, uint64_t *scratch DEV_AT)
{
    return dev_block_reduce(v, (uint64_t)0, scratch, [=](uint64_t x) { return dev_warp_add(x DEV_HERE); } DEV_HERE);
}

DEV uint64_t dev_block_greatest(uint64_t v, uint64_t *scratch DEV_AT)
{
    return dev_block_reduce(v, (uint64_t)0, scratch,
                            [=](uint64_t x) { return dev_warp_greatest(x DEV_HERE); } DEV_HERE);
}

#endif
