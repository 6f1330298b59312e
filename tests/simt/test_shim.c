/* The shim itself: collectives, the matrix units and conversions against plain code, and every seeded fault is found.
 */
#include <math.h>
#include <stdlib.h>

#include "dtype.h"
#include "expect_fault.h"
#include "rng.h"
#include "shim_kernels.h"
#include "simt.h"
#include "../unit/suite.h"

enum { N_THREAD = 64, N_TILE = 5, N_SEED = 6 };

static float value(int i) /* small integers: sums are exact */
{
    return (float)(rng_mix((uint64_t)i) % 64) - 32;
}

static float tiles_in[N_TILE * N_THREAD * 4];

static int tiles_wrong(enum shim_fault fault)
{
    float out[N_THREAD];
    int n_wrong = 0;
    shim_tiles(fault, tiles_in, out, N_TILE, N_THREAD);
    for (int i = 0; i < N_THREAD; i++) {
        float sum = 0;
        for (int t = 0; t < N_TILE; t++)
            sum += tiles_in[4 * (t * N_THREAD + N_THREAD - 1 - i)];
        n_wrong += !(out[i] == sum);
    }
    return n_wrong;
}

static void run_tiles(void *fault)
{
    tiles_wrong(*(enum shim_fault *)fault);
}

static void fill_tiles(void)
{
    for (int i = 0; i < N_TILE * N_THREAD * 4; i++)
        tiles_in[i] = value(i);
}

START_TEST(test_tiles)
{
    fill_tiles();
    for (int seed = 0; seed < N_SEED; seed++) {
        simt_seed((uint64_t)seed);
        ck_assert_int_eq(tiles_wrong(FAULT_NONE), 0);
    }
}
END_TEST

/* Where loads and stores are watched a report is due at once; elsewhere the result must be wrong under some seed. */
static void expect_wrong(enum shim_fault fault)
{
    if (simt_race_enabled()) {
        expect_fault(run_tiles, &fault, "race: ");
        return;
    }
    int n_wrong = 0;
    for (int seed = 0; seed < N_SEED; seed++) {
        simt_seed((uint64_t)seed);
        n_wrong += tiles_wrong(fault) > 0;
    }
    ck_assert_int_gt(n_wrong, 0);
}

START_TEST(test_missing_barrier)
{
    fill_tiles();
    expect_wrong(FAULT_NO_BARRIER_BEFORE);
    expect_wrong(FAULT_NO_BARRIER_AFTER);
}
END_TEST

START_TEST(test_wrong_copies)
{
    fill_tiles();
    enum shim_fault fault = FAULT_NO_WAIT_AT_END;
    expect_fault(run_tiles, &fault, "nobody waited for");
    fault = FAULT_WRONG_WAIT; /* poison is read; the last group is never waited for either */
    expect_fault(run_tiles, &fault, "nobody waited for");
    fault = FAULT_MISALIGNED_COPY;
    expect_fault(run_tiles, &fault, "not aligned");
    fault = FAULT_COPY_OUTSIDE;
    expect_fault(run_tiles, &fault, "outside shared memory");
}
END_TEST

static float exchange_in[N_THREAD], exchange_out[3 * N_THREAD];

static void run_exchange(void *fault)
{
    shim_exchange(*(enum shim_fault *)fault, exchange_in, exchange_out, N_THREAD);
}

START_TEST(test_exchange)
{
    for (int seed = 0; seed < N_SEED; seed++) {
        simt_seed((uint64_t)seed);
        for (int i = 0; i < N_THREAD; i++)
            exchange_in[i] = value(i);
        enum shim_fault fault = FAULT_NONE;
        run_exchange(&fault);
        for (int i = 0; i < N_THREAD; i++) {
            ck_assert(exchange_out[i] == value(i ^ 1));
            ck_assert(exchange_out[N_THREAD + i] == value(i ^ 1));
            ck_assert(exchange_out[2 * N_THREAD + i] == (float)0xaaaaaaaau);
        }
    }
}
END_TEST

START_TEST(test_divergence)
{
    enum shim_fault fault = FAULT_DIVERGENT_SHUFFLE;
    expect_fault(run_exchange, &fault, "divergent warp");
    fault = FAULT_DIVERGENT_BARRIER;
    expect_fault(run_exchange, &fault, "divergent barrier");
    fault = FAULT_EARLY_EXIT;
    expect_fault(run_exchange, &fault, "deadlock");
}
END_TEST

START_TEST(test_unsynchronised)
{
    enum shim_fault fault = FAULT_NO_WARP_SYNC;
    if (simt_race_enabled()) {
        expect_fault(run_exchange, &fault, "race: ");
        return;
    }
    int n_wrong = 0;
    for (int seed = 0; seed < N_SEED; seed++) {
        simt_seed((uint64_t)seed);
        run_exchange(&fault);
        for (int i = 0; i < N_THREAD; i++)
            n_wrong += !(exchange_out[N_THREAD + i] == value(i ^ 1));
    }
    ck_assert_int_gt(n_wrong, 0);
}
END_TEST

START_TEST(test_uninitialised)
{
    enum shim_fault fault = FAULT_UNINITIALISED;
    run_exchange(&fault);
    ck_assert(isnan(exchange_out[N_THREAD + 5]));
}
END_TEST

static uint32_t count_in[1000], count_out[16];

static void run_count(void *fault)
{
    shim_count(*(enum shim_fault *)fault, count_in, 1000, count_out, 3);
}

START_TEST(test_atomics)
{
    uint32_t expected[16] = {0};
    for (int i = 0; i < 1000; i++)
        expected[count_in[i] = (uint32_t)(rng_mix((uint64_t)i) % 16)]++;
    enum shim_fault fault = FAULT_NONE;
    run_count(&fault);
    for (int b = 0; b < 16; b++)
        ck_assert_uint_eq(count_out[b], expected[b]);
    fault = FAULT_PLAIN_ADD;
    if (simt_race_enabled())
        expect_fault(run_count, &fault, "race: ");
}
END_TEST

START_TEST(test_reduce)
{
    float in[777], sum = 0, top = -INFINITY, out[2];
    for (int i = 0; i < 777; i++) {
        in[i] = value(i);
        sum += in[i];
        top = fmaxf(top, in[i]);
    }
    for (int n_thread = 32; n_thread <= 1024; n_thread += 32 * (n_thread < 96 ? 1 : 9)) {
        simt_seed((uint64_t)n_thread);
        shim_reduce(in, 777, out, n_thread);
        ck_assert(out[0] == sum && out[1] == top);
    }
}
END_TEST

START_TEST(test_mma_16_bits)
{
    for (int is_f16 = 0; is_f16 < 2; is_f16++) {
        uint16_t a[16 * 16], b[16 * 8];
        float d[16 * 8], expected[16 * 8];
        for (int i = 0; i < 16 * 16; i++)
            a[i] = is_f16 ? f32_to_f16(value(i)) : f32_to_bf16(value(i));
        for (int i = 0; i < 16 * 8; i++)
            b[i] = is_f16 ? f32_to_f16(value(i + 999)) : f32_to_bf16(value(i + 999));
        for (int r = 0; r < 16; r++)
            for (int c = 0; c < 8; c++) {
                d[r * 8 + c] = expected[r * 8 + c] = value(5000 + r * 8 + c);
                for (int k = 0; k < 16; k++)
                    expected[r * 8 + c] += value(r * 16 + k) * value(k * 8 + c + 999);
            }
        shim_mma16(is_f16, a, b, d);
        for (int i = 0; i < 16 * 8; i++)
            ck_assert(d[i] == expected[i]);
    }
}
END_TEST

START_TEST(test_mma_8_bits)
{
    int8_t a[16 * 32], b[8 * 32];
    uint8_t fa[16 * 32], fb[8 * 32];
    int32_t d[16 * 8] = {0}, expected[16 * 8] = {0};
    float fd[16 * 8] = {0}, fexpected[16 * 8] = {0};
    /* bytes of e4m3 with exponent field 4..11: +-(8 + m) * 2^(e - 10) */
    for (int i = 0; i < 16 * 32; i++) {
        a[i] = (int8_t)rng_mix((uint64_t)i);
        fa[i] = (uint8_t)((rng_mix((uint64_t)i + 7) & 0xbf) + 0x20);
    }
    for (int i = 0; i < 8 * 32; i++) {
        b[i] = (int8_t)rng_mix((uint64_t)i + 777);
        fb[i] = (uint8_t)((rng_mix((uint64_t)i + 77) & 0xbf) + 0x20);
    }
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 8; c++)
            for (int k = 0; k < 32; k++) {
                expected[r * 8 + c] += a[r * 32 + k] * b[c * 32 + k];
                unsigned x = fa[r * 32 + k], y = fb[c * 32 + k];
                double product =
                    ldexp(8 + (x & 7), (int)(x >> 3 & 15) - 10) * ldexp(8 + (y & 7), (int)(y >> 3 & 15) - 10);
                fexpected[r * 8 + c] += (float)((x ^ y) & 0x80 ? -product : product);
            }
    shim_mma_s8((uint8_t *)a, (uint8_t *)b, d);
    shim_mma_fp8(fa, fb, fd);
    for (int i = 0; i < 16 * 8; i++) {
        ck_assert_int_eq(d[i], expected[i]);
        ck_assert(fabsf(fd[i] - fexpected[i]) <= 1e-3f * (1 + fabsf(fexpected[i])));
    }
}
END_TEST

/* The nearest e4m3 value by looking at all of them; ties to the even code. */
static float nearest_fp8(float x)
{
    float best = 0, distance = INFINITY;
    for (unsigned u = 0; u < 0x7f; u++) {
        float v = u >> 3 ? ldexpf(8 + (float)(u & 7), (int)(u >> 3) - 10) : ldexpf((float)(u & 7), -9);
        float d = fabsf(fabsf(x) - v);
        if (d < distance || (d == distance && !(u & 1))) {
            distance = d;
            best = v;
        }
    }
    return copysignf(best, x);
}

START_TEST(test_conversions)
{
    enum { N = 6000 };
    float *in = malloc(N * sizeof *in), *out = malloc(3 * N * sizeof *out);
    for (int i = 0; i < N; i++) {
        uint64_t bits = rng_mix((uint64_t)i);
        float scale = ldexpf(1, (int)(bits >> 40 & 31) - 24);
        in[i] = (float)((int64_t)(bits & 0xffff) - 0x8000) * 0x1p-11f * scale;
    }
    in[0] = INFINITY, in[1] = -INFINITY, in[2] = 65520, in[3] = 65519, in[4] = -0.0f, in[5] = 0x1p-25f, in[6] = 500;
    shim_convert(in, out, N);
    for (int i = 0; i < N; i++) {
        ck_assert(out[i] == f16_to_f32(f32_to_f16(in[i])));
        ck_assert(out[N + i] == bf16_to_f32(f32_to_bf16(in[i])));
        ck_assert_msg(out[2 * N + i] == nearest_fp8(in[i]), "%a: %a, not %a", in[i], out[2 * N + i],
                      nearest_fp8(in[i]));
    }
    in[0] = NAN;
    shim_convert(in, out, 1);
    ck_assert(isnan(out[0]) && isnan(out[1]) && out[2] == 480);
    free(in);
    free(out);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("shim");
    tcase_add_test(tc, test_tiles);
    tcase_add_test(tc, test_missing_barrier);
    tcase_add_test(tc, test_wrong_copies);
    tcase_add_test(tc, test_exchange);
    tcase_add_test(tc, test_divergence);
    tcase_add_test(tc, test_unsynchronised);
    tcase_add_test(tc, test_uninitialised);
    tcase_add_test(tc, test_atomics);
    tcase_add_test(tc, test_reduce);
    tcase_add_test(tc, test_mma_16_bits);
    tcase_add_test(tc, test_mma_8_bits);
    tcase_add_test(tc, test_conversions);
    return suite_run(tc);
}
