/* gemm_pack.c and gemm_shape.c: no value changes on its way into fragments, and what a grid and its memory must hold.
 */
#include <inttypes.h>
#include <string.h>

#include "err.h"
#include "gemm_case.h"
#include "rng.h"
#include "values.h"
#include "../unit/suite.h"

static int32_t block_of(enum gemm_format f)
{
    int len = dtype_info(gemm_case_type(f))->block_len;
    return len == 1 ? 8 : len;
}

START_TEST(test_round_trip)
{
    static const int32_t outs[] = {1, 16, 37};
    for (int f = 0; f < GEMM_N_FORMAT; f++)
        for (int o = 0; o < 3; o++)
            for (int n_block = 1; n_block <= 3; n_block++) {
                struct gemm_source s;
                int32_t n_in = n_block * block_of(f), n_matrix = 1 + n_block % 2;
                gemm_case_open(&s, f, n_matrix, outs[o], n_in, (uint64_t)(f * 100 + o * 10 + n_block));
                float *want = malloc((size_t)n_in * sizeof *want), *got = malloc((size_t)n_in * sizeof *got);
                for (int32_t m = 0; m < n_matrix; m++)
                    for (int32_t r = 0; r < outs[o]; r++) {
                        dtype_to_f32(s.type, gemm_case_row(&s, m, r), want, n_in);
                        gemm_case_unpack(&s.weight, m, r, got);
                        ck_assert_msg(!memcmp(got, want, (size_t)n_in * sizeof *want), "format %d, row %d", f, r);
                    }
                free(want), free(got);
                gemm_case_close(&s);
            }
}
END_TEST

/* A weight of random bytes, all of its packed form as one number (FNV-1a). */
static uint64_t packed_sum(enum gemm_format f, int32_t n_matrix, int32_t n_out, int32_t n_in, uint64_t sum)
{
    int type = gemm_case_type(f);
    struct gemm_weight w;
    ck_assert_int_eq(gemm_plan(f, n_matrix, n_out, n_in, &w), 0);
    size_t stride = dtype_row_bytes(type, n_in) + 3, n = stride * (size_t)(n_out * n_matrix);
    uint8_t *rows = malloc(n), *packed = malloc(gemm_weight_bytes(&w));
    for (size_t i = 0; i < n; i++)
        rows[i] = (uint8_t)(rng_mix(i + ((uint64_t)n_out << 32)) >> 24);
    memset(packed, 0xa5, gemm_weight_bytes(&w));
    w.data = packed;
    for (int32_t m = 0; m < n_matrix; m++)
        ck_assert_int_eq(gemm_pack(&w, m, 0, type, rows + stride * (size_t)(m * n_out), stride, n_out), 0);
    for (size_t i = 0; i < gemm_weight_bytes(&w); i++)
        sum = (sum ^ packed[i]) * UINT64_C(0x100000001b3);
    free(rows), free(packed);
    return sum;
}

/* What kernels were built for, bytes of missing rows and columns included: as the first packer made it, an element at a
 * time. */
START_TEST(test_packed_form)
{
    static const int32_t outs[] = {1, 8, 9, 16, 37};
    static const uint64_t want[GEMM_N_FORMAT] = {
        UINT64_C(0x8b9f349556105246), UINT64_C(0x8b9f349556105246), UINT64_C(0x1d72d3b1dd037ded),
        UINT64_C(0x1d9e22d2b9cfe3c2), UINT64_C(0x0d921ecea00a3b08), UINT64_C(0xcfe08ea8873d1142),
        UINT64_C(0x8aaade0f302da79f), UINT64_C(0xc52e6921957a5ce6), UINT64_C(0xcf87429954023d16),
        UINT64_C(0x2376f89d5a36435a),
    };
    for (int f = 0; f < GEMM_N_FORMAT; f++) {
        uint64_t sum = UINT64_C(0xcbf29ce484222325);
        for (int o = 0; o < 5; o++)
            for (int32_t n_block = 1; n_block <= 11; n_block += 2)
                sum = packed_sum((enum gemm_format)f, 1 + o % 2, outs[o], n_block * block_of((enum gemm_format)f), sum);
        ck_assert_msg(sum == want[f], "format %d: %#" PRIx64, f, sum);
    }
}
END_TEST

START_TEST(test_rows_in_pieces)
{
    struct gemm_source s;
    gemm_case_open(&s, GEMM_Q4_K, 2, 53, 256, 9);
    struct gemm_weight w = s.weight;
    w.data = malloc(gemm_weight_bytes(&w));
    size_t row = dtype_row_bytes(DT_Q4_K, 256);
    static const int32_t from[] = {48, 0, 16, 53};
    for (int m = 0; m < 2; m++)
        for (int i = 0; i < 3; i++) {
            int32_t n = from[i] == 48 ? 5 : from[i] == 0 ? 16 : 32;
            ck_assert_int_eq(gemm_pack(&w, m, from[i], DT_Q4_K, gemm_case_row(&s, m, from[i]), row, n), 0);
        }
    ck_assert(!memcmp(w.data, s.weight.data, gemm_weight_bytes(&w)));
    ck_assert_int_eq(gemm_pack(&w, 0, 8, DT_Q4_K, s.rows, row, 16), -ERR_INVALID);
    ck_assert_int_eq(gemm_pack(&w, 0, 48, DT_Q4_K, s.rows, row, 16), -ERR_INVALID);
    ck_assert_int_eq(gemm_pack(&w, 0, 0, DT_Q5_K, s.rows, row, 16), -ERR_INVALID);
    free(w.data);
    gemm_case_close(&s);
}
END_TEST

START_TEST(test_plan)
{
    struct gemm_weight w;
    ck_assert_int_eq(gemm_plan(GEMM_Q4_0, 1, 100, 96, &w), 0);
    ck_assert_int_eq(w.n_panel, 7);
    ck_assert_int_eq(w.n_slab, 2);
    ck_assert_uint_eq(gemm_weight_bytes(&w), 7 * 2 * 576);
    ck_assert_int_eq(gemm_plan(GEMM_Q6_K, 2, 4096, 4096, &w), 0);
    ck_assert_uint_eq(gemm_weight_bytes(&w), 2 * 4096 * dtype_row_bytes(DT_Q6_K, 4096)); /* not a byte more */
    ck_assert_int_eq(gemm_plan(GEMM_Q4_K, 1, 100, 128, &w), -ERR_INVALID);
    ck_assert_int_eq(gemm_plan(GEMM_Q8_0, 1, 100, 48, &w), -ERR_INVALID);
    ck_assert_int_eq(gemm_plan(GEMM_BF16, 1, 100, 12, &w), -ERR_INVALID);
    ck_assert_int_eq(gemm_plan(GEMM_BF16, 1, 0, 16, &w), -ERR_INVALID);
    ck_assert_int_eq(gemm_plan(GEMM_FP8, 1, 100, 192, &w), -ERR_INVALID);
    ck_assert_int_eq(gemm_format_of(DT_FP8), GEMM_FP8);
    for (int type = 0; type < 40; type++) {
        int f = gemm_format_of(type);
        ck_assert(!dtype_info(type) == (f < 0) && (f < 0 || gemm_case_type(f) == type));
    }
}
END_TEST

START_TEST(test_memory_of_a_block)
{
    for (int f = 0; f < GEMM_N_FORMAT; f++) {
        if (f != GEMM_F32)
            ck_assert_int_le(gemm_skinny_smem_bytes(f, 16), GEMM_SMEM_BYTES);
        ck_assert_int_le(gemm_skinny_smem_bytes(f == GEMM_F32 ? GEMM_BF16 : f, 8), GEMM_SMEM_BYTES);
        ck_assert_int_le(gemm_wide_smem_bytes(f, f == GEMM_F32 ? 64 : 128), GEMM_SMEM_BYTES);
        ck_assert_int_eq(gemm_stage_panel_bytes(f) % 16, 0); /* cp.async's pieces */
    }
}
END_TEST

START_TEST(test_grids)
{
    struct gemm_args a = {.n_block = 132};
    struct gemm_tiles t;
    float scratch;
    ck_assert_int_eq(gemm_plan(GEMM_BF16, 1, 4096 + 8, 4096, &a.weight), 0);
    ck_assert_int_eq(gemm_skinny_blocks(&a.weight), 129);
    for (a.n_row = 1; a.n_row < 3000; a.n_row += 37)
        for (int with = 0; with < 2; with++) {
            a.scratch = with ? &scratch : NULL;
            gemm_tiles(&a, &t);
            ck_assert_int_eq(t.n_out_tile, 33);
            ck_assert_int_ge(t.n_row_tile * t.rows, a.n_row);
            ck_assert_int_lt((t.n_row_tile - 1) * t.rows, a.n_row);
            ck_assert_int_eq(t.n_slice, with && a.n_row <= 256 ? GEMM_SLICES : 1);
            size_t need = t.n_slice == 1 ? 0 : 8 * (size_t)a.n_row * 257 * 16 * 4;
            ck_assert(gemm_is_skinny(&a) || gemm_scratch_bytes(&a.weight, a.n_row, 132) >= need);
        }
    ck_assert_uint_eq(gemm_scratch_bytes(&a.weight, 100000, 132), 8 * 256 * 257 * 16 * 4);
    ck_assert_uint_eq(gemm_scratch_bytes(&a.weight, 100000, 65), 0);
    ck_assert_uint_eq(gemm_scratch_bytes(&a.weight, 16, 132), 0);
}
END_TEST

/* Places are dealt out at random: there are never more tiles than the grid has, and sometimes as many. */
START_TEST(test_group_tiles)
{
    enum { MAX_WEIGHT = 40 };
    static const int32_t rows[] = {8, 16, 64};
    for (int i = 0; i < 3; i++) {
        int n_full = 0;
        for (uint64_t seed = 0; seed < 3000; seed++) {
            int32_t n_weight = value_int(seed, 1, 1, MAX_WEIGHT), n_row = value_int(seed, 2, 1, 3 * rows[i]),
                    n_used = value_int(seed, 3, 1, n_weight < 8 ? n_weight : 8), n_tile = 0, n[MAX_WEIGHT] = {0};
            for (int32_t row = 0; row < n_row; row++) /* neighbours, so that they crowd */
                for (int32_t j = 0, w = value_int(seed, 9 + (uint64_t)row, 0, n_weight / 3); j < n_used; j++)
                    n[(w + j) % n_weight]++;
            for (int32_t w = 0; w < n_weight; w++)
                n_tile += (n[w] + rows[i] - 1) / rows[i];
            struct gemm_group group = {.n_weight = n_weight, .most = n_row};
            struct gemm_args a = {.group = &group, .n_row = n_row * n_used};
            ck_assert_int_le(n_tile, gemm_group_tiles(&a, rows[i]));
            n_full += n_tile == gemm_group_tiles(&a, rows[i]);
        }
        ck_assert_int_ge(n_full, 100);
    }
}
END_TEST

/* Decoding goes to the skinny kernel, even where there are many experts, and tiles are wide where they are likely to be
 * filled; a group's slices run one after the other. */
START_TEST(test_group_grids)
{
    struct gemm_group group = {.n_weight = 128};
    struct gemm_args a = {.group = &group, .n_block = 132};
    struct gemm_tiles t;
    float scratch;
    a.scratch = &scratch;
    ck_assert_int_eq(gemm_plan(GEMM_BF16, 2, 768, 2048, &a.weight), 0);
    for (int32_t n_row = 1; n_row < 6000; n_row += 17) { /* each goes through 8 of the 128 */
        group.most = n_row;
        group.mean = (8 * n_row + 127) / 128;
        a.n_row = 8 * n_row;
        ck_assert_int_eq(gemm_is_skinny(&a), n_row <= 256);
        gemm_tiles(&a, &t);
        ck_assert_int_eq(t.rows, group.mean < 256 ? 64 : 128);
        ck_assert(t.n_slice == 1 && t.n_out_tile == 12);
        ck_assert_int_eq(t.n_row_tile, gemm_group_tiles(&a, t.rows));
    }
    group.mean = 1;
    a.n_row = group.most = 1;
    a.weight.format = GEMM_F32;
    ck_assert(!gemm_is_skinny(&a));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("gemm_pack");
    tcase_add_test(tc, test_round_trip);
    tcase_add_test(tc, test_packed_form);
    tcase_add_test(tc, test_rows_in_pieces);
    tcase_add_test(tc, test_plan);
    tcase_add_test(tc, test_memory_of_a_block);
    tcase_add_test(tc, test_grids);
    tcase_add_test(tc, test_group_tiles);
    tcase_add_test(tc, test_group_grids);
    return suite_run(tc);
}
