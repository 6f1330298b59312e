/* Sixteen lanes of f32 or int32, in the registers of the instruction set that this file is compiled for. Private to
 * kernels/cpu/simd.
 *
 * Every operation rounds as IEEE 754 says and lanes are always sixteen, so code written with them gives the same bits
 * on every instruction set. Sums across lanes fold 16 to 8 to 4 to 2 to 1. */
#ifndef GALLEY_CPU_VEC_H
#define GALLEY_CPU_VEC_H

#include <stdint.h>
#include <string.h>

/* A function that must be inlined for its arguments to be constants and its vectors to stay in registers, and a loop
 * that must be unrolled for the same reason. In plain C neither pays for its compile time. */
#if defined(__AVX2__)
#define VEC static inline __attribute__((always_inline))
#define VEC_UNROLL_(x) _Pragma(#x)
#define VEC_UNROLL(n) VEC_UNROLL_(GCC unroll n)
#else
#define VEC static inline
#define VEC_UNROLL(n)
#endif

/* CPU_FN(attend) is attend_avx512 and so on: each instruction set compiles the same file. */
#define CPU_PASTE_(a, b) a##_##b
#define CPU_PASTE(a, b) CPU_PASTE_(a, b)
#define CPU_FN(name) CPU_PASTE(name, CPU_ISA)

#if defined(__AVX512BW__)
#include "vec_avx512.h"
#elif defined(__AVX2__)
#include "vec_avx2.h"
#else
#include "vec_portable.h"
#endif

VEC vf vf_zero(void)
{
    return vf_set1(0);
}

/* Loads of fewer than sixteen elements, the rest zero, and their stores. */
VEC vf vf_load_n(const float *p, int n)
{
    float tmp[16] = {0};
    memcpy(tmp, p, sizeof *p * (size_t)n);
    return vf_load(tmp);
}

VEC void vf_store_n(float *p, vf a, int n)
{
    float tmp[16];
    vf_store(tmp, a);
    memcpy(p, tmp, sizeof *p * (size_t)n);
}

/* e^x to 2 units in the last place for x in [-87.3, 88.3], the ends' values beyond them: Cody and Waite's reduction,
 * then the Taylor polynomial of degree 7 on [-ln 2 / 2, ln 2 / 2]. */
VEC vf vf_exp(vf x)
{
    x = vf_min(vf_max(x, vf_set1(-87.3f)), vf_set1(88.3f));
    vi n = vf_to_int(vf_mul(x, vf_set1(1.44269504f)));
    vf fn = vi_to_f(n);
    vf r = vf_fma(fn, vf_set1(-0.693145752f), x); /* ln 2 in two parts, the first short enough to be exact times n */
    r = vf_fma(fn, vf_set1(-1.42860677e-6f), r);
    vf p = vf_set1(1.0f / 5040);
    p = vf_fma(p, r, vf_set1(1.0f / 720));
    p = vf_fma(p, r, vf_set1(1.0f / 120));
    p = vf_fma(p, r, vf_set1(1.0f / 24));
    p = vf_fma(p, r, vf_set1(1.0f / 6));
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_fma(p, r, vf_set1(1));
    p = vf_fma(p, r, vf_set1(1));
    return vf_scale2(p, n);
}

/* tanh x to a few units in the last place, also near 0: (e^2x - 1) / (e^2x + 1), where e^2x - 1 = 2^n (e^r - 1) + (2^n
 * - 1) does not cancel. Beyond 9 it is 1 in f32. */
VEC vf vf_tanh(vf x)
{
    x = vf_min(vf_max(x, vf_set1(-9)), vf_set1(9));
    x = vf_add(x, x);
    vi n = vf_to_int(vf_mul(x, vf_set1(1.44269504f)));
    vf fn = vi_to_f(n);
    vf r = vf_fma(fn, vf_set1(-0.693145752f), x);
    r = vf_fma(fn, vf_set1(-1.42860677e-6f), r);
    vf p = vf_set1(1.0f / 5040); /* (e^r - 1) / r */
    p = vf_fma(p, r, vf_set1(1.0f / 720));
    p = vf_fma(p, r, vf_set1(1.0f / 120));
    p = vf_fma(p, r, vf_set1(1.0f / 24));
    p = vf_fma(p, r, vf_set1(1.0f / 6));
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_fma(p, r, vf_set1(1));
    vf two_n = vf_scale2(vf_set1(1), n);
    vf e = vf_fma(vf_mul(p, r), two_n, vf_sub(two_n, vf_set1(1)));
    return vf_div(e, vf_add(e, vf_set1(2)));
}

/* 2^x to 2 units in the last place for x in [-126, 127], smaller ones as -126: a minimax polynomial on [-1/2, 1/2] that
 * is 1 at 0. */
VEC vf vf_exp2(vf x)
{
    x = vf_max(x, vf_set1(-126));
    vi n = vf_to_int(x);
    vf r = vf_sub(x, vi_to_f(n));
    vf p = vf_set1(0.00132647273f);
    p = vf_fma(p, r, vf_set1(0.00967151299f));
    p = vf_fma(p, r, vf_set1(0.0555073358f));
    p = vf_fma(p, r, vf_set1(0.240222424f));
    p = vf_fma(p, r, vf_set1(0.693147004f));
    p = vf_fma(p, r, vf_set1(1));
    return vf_scale2(p, n);
}

#endif
