/* kernels/dtype*.c: layouts against golden blocks of the gguf package, error levels of the quantisers. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dtype.h"
#include "rng.h"
#include "../suite.h"

static const int all_types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_MXFP4, DT_FP8};
enum { N_TYPE = sizeof all_types / sizeof all_types[0], N_GGUF = N_TYPE - 1, N = 256 * 64 };

START_TEST(test_sizes)
{
    ck_assert_ptr_null(dtype_info(3));
    ck_assert_ptr_null(dtype_info(-1));
    ck_assert_int_eq(dtype_by_name("q4_k"), DT_Q4_K);
    ck_assert_int_eq(dtype_by_name("bf16"), DT_BF16);
    ck_assert_int_eq(dtype_by_name("Q4_K_M"), -1);
    ck_assert_uint_eq(dtype_row_bytes(DT_Q4_K, 512), 288);
    ck_assert_uint_eq(dtype_row_bytes(DT_Q5_K, 256), 176);
    ck_assert_uint_eq(dtype_row_bytes(DT_Q6_K, 256), 210);
    ck_assert_uint_eq(dtype_row_bytes(DT_Q8_0, 64), 68);
    ck_assert_uint_eq(dtype_row_bytes(DT_Q4_0, 32), 18);
    ck_assert_uint_eq(dtype_row_bytes(DT_FP8, 384), 396);
    ck_assert_uint_eq(dtype_row_bytes(DT_FP8, 192), 0);
    ck_assert_uint_eq(dtype_row_bytes(DT_Q4_K, 255), 0);
    ck_assert_uint_eq(dtype_row_bytes(DT_F32, -4), 0);
    ck_assert_uint_eq(dtype_row_bytes(DT_F32, INT64_MAX), 0);
    ck_assert_uint_eq(dtype_row_bytes(99, 256), 0);
    for (int i = 0; i < N_TYPE; i++)
        ck_assert_int_eq(dtype_by_name(dtype_info(all_types[i])->name), all_types[i]);
}
END_TEST

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

START_TEST(test_half_round_trip)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = f16_to_f32((uint16_t)h);
        if (isnan(f))
            ck_assert(isnan(f16_to_f32(f32_to_f16(f))));
        else
            ck_assert_uint_eq(f32_to_f16(f), h);
        f = bf16_to_f32((uint16_t)h);
        if (isnan(f))
            ck_assert(isnan(bf16_to_f32(f32_to_bf16(f))));
        else
            ck_assert_uint_eq(f32_to_bf16(f), h);
    }
    /* halves go to the even neighbour; the edges of the range */
    ck_assert_uint_eq(f32_to_f16(1.0f + 0x1p-11f), 0x3c00);
    ck_assert_uint_eq(f32_to_f16(1.0f + 0x3p-11f), 0x3c02);
    ck_assert_uint_eq(f32_to_f16(65519.996f), 0x7bff);
    ck_assert_uint_eq(f32_to_f16(65520.0f), 0x7c00);
    ck_assert_uint_eq(f32_to_f16(0x1p-25f), 0x0000);
    ck_assert_uint_eq(f32_to_f16(0x1.000002p-25f), 0x0001);
    ck_assert_uint_eq(f32_to_f16(-0.0f), 0x8000);
    ck_assert_uint_eq(f32_to_bf16(INFINITY), 0x7f80);
    ck_assert_uint_eq(f32_to_bf16(3.4e38f), 0x7f80);
}
END_TEST

/* Every code against the formula of the specification, and every number between two codes: it goes to the nearer one,
 * halfway to the even one, beyond the last to the last. */
START_TEST(test_e4m3)
{
    float value[0x7f];
    for (int code = 0; code < 0x80; code++) {
        int exponent = code >> 3, mantissa = code & 7;
        double want = exponent ? ldexp(1 + mantissa / 8.0, exponent - 7) : ldexp(mantissa / 8.0, -6);
        float f = e4m3_to_f32((uint8_t)code), minus = e4m3_to_f32((uint8_t)(code | 0x80));
        if (code == 0x7f) {
            ck_assert(isnan(f) && isnan(minus));
            continue;
        }
        value[code] = f;
        ck_assert_double_eq(f, want);
        ck_assert_uint_eq(bits_of(minus), bits_of(f) | 0x80000000);
        ck_assert_uint_eq(f32_to_e4m3(f), code);
        ck_assert_uint_eq(f32_to_e4m3(minus), code | 0x80);
    }
    ck_assert_double_eq(value[0x7e], 448);
    for (int code = 0; code + 1 < 0x7f; code++) {
        float middle = (value[code] + value[code + 1]) / 2; /* exact */
        ck_assert_uint_eq(f32_to_e4m3(middle), code + code % 2);
        ck_assert_uint_eq(f32_to_e4m3(nextafterf(middle, 0)), code);
        ck_assert_uint_eq(f32_to_e4m3(nextafterf(middle, 500)), code + 1);
        ck_assert_uint_eq(f32_to_e4m3(-middle), 0x80 | (code + code % 2));
    }
    ck_assert_uint_eq(f32_to_e4m3(463), 0x7e);
    ck_assert_uint_eq(f32_to_e4m3(1e30f), 0x7e);
    ck_assert_uint_eq(f32_to_e4m3(-INFINITY), 0xfe);
    ck_assert_uint_eq(f32_to_e4m3(0x1p-140f), 0);
    ck_assert(isnan(e4m3_to_f32(f32_to_e4m3(NAN))) && isnan(e4m3_to_f32(f32_to_e4m3(-NAN))));
}
END_TEST

/* A block's largest element gets the largest code, and nothing is further from what it becomes than half a step: a 32nd
 * of the power of two below it, or of the least one. */
START_TEST(test_fp8_blocks)
{
    static const float size[] = {1, 0x1p-126f, 1e-40f, 0x1p-149f, 3e38f, 0};
    for (int s = 0; s < 6; s++) {
        float x[256], y[256];
        uint8_t raw[2 * 132];
        for (int i = 0; i < 256; i++)
            x[i] = (i == 7 ? 1 : cosf((float)i) * (i % 3 ? 0.9f : 0.001f)) * size[s] * (i < 128 ? 1 : 0.25f);
        dtype_from_f32(DT_FP8, x, raw, 256);
        dtype_to_f32(DT_FP8, raw, y, 256);
        for (int i = 0; i < 256; i++) {
            float scale;
            memcpy(&scale, raw + i / 128 * 132, 4);
            ck_assert(isfinite(y[i]) && (scale > 0) == (size[s] > 0 && (i < 128 || x[129] != 0)));
            double step = fmax(fabs((double)x[i]) * 0x1p-4, (double)scale * 0x1p-10);
            ck_assert_msg(fabs((double)x[i] - (double)y[i]) <= step * 1.00001, "%a became %a", x[i], y[i]);
        }
        ck_assert_uint_eq(raw[4 + 7], s == 0 || s == 4 ? 0x7e : raw[4 + 7]);
    }
    /* what a block holds comes out as it went in: whatever its scale */
    float x[128], scale = 0.3f;
    uint8_t raw[132];
    memcpy(raw, &scale, 4);
    for (int from = 0; from < 256; from += 128) {
        for (int i = 0; i < 128; i++)
            raw[4 + i] = (uint8_t)(from + i);
        dtype_to_f32(DT_FP8, raw, x, 128);
        for (int i = 0; i < 127; i++)
            ck_assert_uint_eq(bits_of(x[i]), bits_of(e4m3_to_f32((uint8_t)(from + i)) * scale));
        ck_assert(isnan(x[127]));
    }
}
END_TEST

START_TEST(test_golden_blocks)
{
    FILE *f = fopen(GALLEY_SOURCE_ROOT "/tests/golden/dtype.bin", "rb");
    ck_assert_ptr_nonnull(f);
    uint32_t head[3];
    int n_record = 0;
    while (fread(head, 4, 3, f) == 3) {
        uint8_t raw[4096 + 1];
        float want[512], got[512];
        ck_assert_uint_le(head[1], 512);
        ck_assert_uint_eq(head[2], dtype_row_bytes((int)head[0], head[1]));
        /* one byte in: mapped files promise no alignment */
        ck_assert_uint_eq(fread(raw + 1, 1, head[2], f), head[2]);
        ck_assert_uint_eq(fread(want, 4, head[1], f), head[1]);
        dtype_to_f32((int)head[0], raw + 1, got, head[1]);
        for (uint32_t i = 0; i < head[1]; i++)
            ck_assert_msg(bits_of(got[i]) == bits_of(want[i]), "%s[%u]: %a, want %a", dtype_info((int)head[0])->name, i,
                          got[i], want[i]);
        n_record++;
    }
    fclose(f);
    ck_assert_int_eq(n_record, N_GGUF);
}
END_TEST

/* Roughly normal, with the odd large weight that real matrices have. */
static void fill_weights(float *x, int n, uint64_t seed)
{
    for (int i = 0; i < n; i++) {
        uint32_t r[4], ctr[4] = {(uint32_t)i, 0, 0, 0};
        rng_philox(seed, ctr, r);
        float s = 0;
        for (int k = 0; k < 4; k++)
            s += rng_unit(r[k]) - 0.5f;
        x[i] = s * 0.05f * (r[0] % 97 == 0 ? 4.0f : 1.0f);
    }
}

static double relative_error(int type, const float *x, int n)
{
    uint8_t *raw = malloc(dtype_row_bytes(type, n));
    float *y = malloc((size_t)n * 4);
    dtype_from_f32(type, x, raw, n);
    dtype_to_f32(type, raw, y, n);
    double err = 0, sum = 0;
    for (int i = 0; i < n; i++) {
        err += (double)(x[i] - y[i]) * (x[i] - y[i]);
        sum += (double)x[i] * x[i];
    }
    free(raw);
    free(y);
    return sqrt(err / sum);
}

START_TEST(test_error_levels)
{
    static const double bound[N_TYPE] = {0, 3e-4, 3e-3, 0.009, 0.12, 0.085, 0.043, 0.023, 0.13, 0.03};
    float *x = malloc(N * 4);
    fill_weights(x, N, 3);
    for (int i = 0; i < N_TYPE; i++) {
        double e = relative_error(all_types[i], x, N);
        printf("%s: relative rms error %.5f\n", dtype_info(all_types[i])->name, e);
        ck_assert_double_le(e, bound[i]);
    }
    free(x);
}
END_TEST

/* What has been through a format once comes back nearly as it is. */
START_TEST(test_requantise_is_stable)
{
    float *x = malloc(N * 4);
    uint8_t *raw = malloc(N * 4);
    fill_weights(x, N, 5);
    for (int i = 0; i < N_TYPE; i++) {
        dtype_from_f32(all_types[i], x, raw, N);
        dtype_to_f32(all_types[i], raw, x, N);
        ck_assert_double_le(relative_error(all_types[i], x, N), 0.01);
        fill_weights(x, N, 5);
    }
    free(x);
    free(raw);
}
END_TEST

START_TEST(test_extremes_stay_finite)
{
    static const float scale[] = {0, 1e-45f, 1e-38f, 1e-20f, 1e-6f, 1, 1e5f, 1e10f, 1e19f, 3e38f};
    for (int t = 3; t < N_TYPE; t++)
        for (size_t s = 0; s < sizeof scale / sizeof *scale; s++) {
            float x[256], y[256];
            uint8_t raw[1024];
            for (int shape = 0; shape < 4; shape++) {
                for (int i = 0; i < 256; i++)
                    x[i] = scale[s] * (shape == 0   ? 1.0f
                                       : shape == 1 ? -1.0f
                                       : shape == 2 ? (float)(i % 3 - 1)
                                                    : i == 77);
                dtype_from_f32(all_types[t], x, raw, 256);
                dtype_to_f32(all_types[t], raw, y, 256);
                for (int i = 0; i < 256; i++)
                    ck_assert(isfinite(y[i]) && (x[i] != 0 || fabsf(y[i]) <= 0.01f * scale[s]));
            }
        }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("dtype");
    tcase_add_test(tc, test_sizes);
    tcase_add_test(tc, test_half_round_trip);
    tcase_add_test(tc, test_e4m3);
    tcase_add_test(tc, test_fp8_blocks);
    tcase_add_test(tc, test_golden_blocks);
    tcase_add_test(tc, test_error_levels);
    tcase_add_test(tc, test_requantise_is_stable);
    tcase_add_test(tc, test_extremes_stay_finite);
    return suite_run(tc);
}
