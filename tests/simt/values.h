/* Random values and comparisons of the kernels' tests. */
#ifndef GALLEY_SIMT_VALUES_H
#define GALLEY_SIMT_VALUES_H

#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "dtype.h"
#include "rng.h"

/* In [-1, 1), from the i-th number of `seed`. */
static inline float value_at(uint64_t seed, uint64_t i)
{
    return (float)((int64_t)(rng_mix(seed * 0x10001 + i) >> 40) - (1 << 23)) * 0x1p-23f;
}

static inline float *values_f32(uint64_t seed, size_t n, float scale)
{
    float *x = malloc((n ? n : 1) * sizeof *x); /* to the byte, so that AddressSanitizer sees the end */
    for (size_t i = 0; i < n; i++)
        x[i] = scale * value_at(seed, i);
    return x;
}

static inline uint16_t *values_bf16(uint64_t seed, size_t n, float scale)
{
    uint16_t *x = malloc((n ? n : 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = f32_to_bf16(scale * value_at(seed, i));
    return x;
}

static inline int32_t value_int(uint64_t seed, uint64_t i, int32_t lo, int32_t hi) /* inclusive */
{
    return lo + (int32_t)(rng_mix(seed * 0x30003 + i) % (uint64_t)(hi - lo + 1));
}

/* e4m3, spelled out; dev.cuh has the quick way. */
static inline float fp8_value(uint8_t u)
{
    static const float power[16] = {0x1p-9f, 0x1p-9f, 0x1p-8f, 0x1p-7f, 0x1p-6f, 0x1p-5f, 0x1p-4f, 0x1p-3f,
                                    0x1p-2f, 0x1p-1f, 1,       2,       4,       8,       16,      32};
    unsigned exponent = u >> 3 & 15, mantissa = u & 7;
    float size = (float)(mantissa + (exponent ? 8 : 0)) * power[exponent];
    return (u & 0x7f) == 0x7f ? NAN : u & 0x80 ? -size : size;
}

/* !(d <= tol), so that NaN fails. What follows says where, as for printf. */
#define CK_CLOSE(got, want, tol, ...)                                                                                  \
    do {                                                                                                               \
        double ck_got = (got), ck_want = (want);                                                                       \
        if (!(fabs(ck_got - ck_want) <= (tol))) {                                                                      \
            char ck_where[256];                                                                                        \
            snprintf(ck_where, sizeof ck_where, __VA_ARGS__);                                                          \
            ck_abort_msg("%.9g, not %.9g: %s", ck_got, ck_want, ck_where);                                             \
        }                                                                                                              \
    } while (0)

/* GELU in its tanh form. */
static inline double gelu_of(double x)
{
    return .5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + .044715 * x * x * x)));
}

#endif
