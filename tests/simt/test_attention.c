/* Attention on the shim against double precision, over shapes, masks and schedules; and bit for bit against itself. */
#include <string.h>

#include "attention_case.h"
#include "simt.h"
#include "values.h"
#include "../unit/suite.h"

static const int32_t dims[] = {64, 80, 96, 128, 256};

static uint16_t *new_out(const struct attn_case *c)
{
    return malloc(attn_case_out(c) * sizeof(uint16_t));
}

START_TEST(test_split_geometry)
{
    int32_t at = 0, n = 0;
    while (at < 8192)
        at += attn_split_len(at), n++;
    ck_assert_int_eq(n, 32);
    while (at < 32768)
        at += attn_split_len(at), n++;
    ck_assert_int_eq(n, 64);
    ck_assert_int_eq(at, 32768);
}
END_TEST

START_TEST(test_shared_memory)
{
    for (int i = 0; i < 5; i++) {
        ck_assert_uint_gt(attn_smem_bytes(dims[i], KV_BF16, 1), 0);
        ck_assert_uint_lt(attn_smem_bytes(dims[i], KV_BF16, 1), attn_smem_bytes(dims[i], KV_BF16, 4));
        for (int type = KV_BF16; type <= KV_FP8; type++) /* sm_120 has the least */
            ck_assert_uint_le(attn_smem_bytes(dims[i], type, 4), 99 * 1024);
    }
    ck_assert_uint_eq(attn_smem_bytes(72, KV_BF16, 1), 0);
}
END_TEST

/* ---- Against double precision ---- */

/* Spans of every kind in one plan: a prompt, a decoded token, drafts after a chain, drafts that hold earlier ones. */
static void add_kinds(struct attn_case *c, int32_t ctx_len)
{
    attn_case_span(c, 0, 0, 19, 0, ATTN_CAUSAL);
    attn_case_span(c, ctx_len, 0, 1, 0, ATTN_CAUSAL);
    attn_case_span(c, ctx_len + 3, 0, 2, 7, ATTN_CAUSAL);
    attn_case_span(c, 40, 5, 0, 4, ATTN_CAUSAL);
    attn_case_span(c, 21, 0, 5, 0, ATTN_FULL);
    attn_case_queries(c);
}

static void check_kinds(struct attn_shape shape, int32_t block_len, int32_t type, int32_t ctx_len, uint64_t seed)
{
    struct attn_case c;
    attn_case_open(&c, shape, block_len, type, seed);
    add_kinds(&c, ctx_len);
    uint16_t *out = new_out(&c);
    simt_seed(seed);
    attn_case_run(&c, seed % 2 ? 1000 : 0, seed / 2 % 2, 1000, out, NULL);
    attn_case_check(&c, out);
    free(out);
    attn_case_close(&c);
}

START_TEST(test_shapes)
{
    static const int32_t heads[][2] = {{2, 2}, {4, 1}, {6, 2}, {7, 1}, {8, 1}, {20, 1}};
    for (int i = 0; i < 5; i++)
        for (int h = i % 2; h < 6; h += 2) {
            struct attn_shape shape = {.n_head = heads[h][0], .n_head_kv = heads[h][1], .head_dim = dims[i]};
            check_kinds(shape, 16 << (i + h) % 3, (i + h / 2) % 2 ? KV_FP8 : KV_BF16, 59 + 70 * h + i,
                        (uint64_t)(i * 6 + h));
        }
}
END_TEST

START_TEST(test_windows)
{
    static const int32_t windows[] = {1, 2, 5, 64, 100, 257};
    for (int i = 0; i < 6; i++)
        for (uint64_t seed = 0; seed < 4; seed++) { /* cut or not, deterministic or not */
            struct attn_shape shape = {.n_head = 2, .n_head_kv = 1, .head_dim = 64, .sliding_window = windows[i]};
            check_kinds(shape, 16, seed % 2 ? KV_FP8 : KV_BF16, 250 + (int32_t)seed * 9, (uint64_t)i * 4 + seed);
        }
}
END_TEST

START_TEST(test_tile_and_page_edges)
{
    static const int32_t ctx[] = {0, 1, 15, 16, 62, 63, 64, 65, 254, 255, 256, 257, 511, 512};
    struct attn_shape shape = {.n_head = 2, .n_head_kv = 2, .head_dim = 64};
    for (int i = 0; i < 14; i++)
        for (int deterministic = 0; deterministic < 2; deterministic++) {
            struct attn_case c;
            attn_case_open(&c, shape, 1 << i % 7, KV_BF16, (uint64_t)i);
            attn_case_span(&c, ctx[i], 0, 1, 3, ATTN_CAUSAL);
            attn_case_queries(&c);
            uint16_t *out = new_out(&c);
            attn_case_run(&c, i % 2 ? 1000 : 0, deterministic, 100, out, NULL);
            attn_case_check(&c, out);
            free(out);
            attn_case_close(&c);
        }
}
END_TEST

/* A prompt of many tiles after a context, with drafts behind it. */
START_TEST(test_prefill)
{
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        struct attn_case c;
        attn_case_open(&c, (struct attn_shape){.n_head = 6, .n_head_kv = 2, .head_dim = 128}, 32, KV_BF16, 5);
        attn_case_span(&c, 190, 0, 130, 0, ATTN_CAUSAL);
        attn_case_span(&c, 300, 0, 1, 40, ATTN_CAUSAL);
        attn_case_queries(&c);
        uint16_t *out = new_out(&c);
        attn_case_run(&c, 0, deterministic, 0, out, NULL);
        attn_case_check(&c, out);
        free(out);
        attn_case_close(&c);
    }
}
END_TEST

START_TEST(test_long_context)
{
    struct attn_case c;
    attn_case_open(&c, (struct attn_shape){.n_head = 4, .n_head_kv = 1, .head_dim = 64}, 64, KV_BF16, 8);
    attn_case_span(&c, 9000, 0, 1, 3, ATTN_CAUSAL);
    attn_case_queries(&c);
    uint16_t *out = new_out(&c);
    int32_t n_fold;
    attn_case_run(&c, 1000, 0, 1000, out, &n_fold);
    ck_assert_int_eq(n_fold, 4);
    attn_case_check(&c, out);
    free(out);
    attn_case_close(&c);
}
END_TEST

/* A broken row is seen to be broken, and breaks no other. */
START_TEST(test_nan)
{
    struct attn_case c;
    attn_case_open(&c, (struct attn_shape){.n_head = 2, .n_head_kv = 1, .head_dim = 64}, 16, KV_BF16, 4);
    attn_case_span(&c, 300, 0, 3, 0, ATTN_CAUSAL);
    attn_case_queries(&c);
    c.q[2 * 128 + 5] = 0x7fc0;
    uint16_t *out = new_out(&c);
    for (int32_t n_block = 0; n_block <= 1000; n_block += 1000) {
        attn_case_run(&c, n_block, 0, 100, out, NULL);
        for (int i = 0; i < 3 * 128; i++)
            ck_assert((isnan(bf16_to_f32(out[i])) != 0) == (i / 64 == 4));
    }
    free(out);
    attn_case_close(&c);
}
END_TEST

/* ---- Bit for bit ---- */

START_TEST(test_cut_equals_whole)
{
    for (int type = KV_BF16; type <= KV_FP8; type++)
        for (int deterministic = 0; deterministic < 2; deterministic++) {
            struct attn_case c;
            attn_case_open(&c, (struct attn_shape){.n_head = 4, .n_head_kv = 2, .head_dim = 80}, 32, type, 3);
            attn_case_span(&c, 600, 0, 2, 9, ATTN_CAUSAL);
            attn_case_span(&c, 250, 0, 40, 0, ATTN_CAUSAL);
            attn_case_span(&c, 767, 0, 1, 0, ATTN_CAUSAL);
            attn_case_span(&c, 500, 3, 0, 12, ATTN_CAUSAL);
            attn_case_queries(&c);
            uint16_t *whole = new_out(&c), *cut = new_out(&c);
            int32_t n_whole, n_cut;
            simt_seed(1);
            attn_case_run(&c, 0, deterministic, 0, whole, &n_whole);
            attn_case_check(&c, whole);
            for (int32_t n_part = 5; n_part <= 1000; n_part *= 14) { /* room to cut some, or all */
                simt_seed((uint64_t)n_part);
                attn_case_run(&c, 1000, deterministic, n_part, cut, &n_cut);
                ck_assert(!memcmp(whole, cut, attn_case_out(&c) * sizeof *cut));
            }
            ck_assert_int_gt(n_cut, n_whole); /* it did go the other way */
            free(whole), free(cut);
            attn_case_close(&c);
        }
}
END_TEST

/* The rows of a chunk equal the same rows one at a time, and in other company. */
START_TEST(test_chunking_and_company)
{
    enum { CTX = 230, N = 45 };
    struct attn_shape shape = {.n_head = 4, .n_head_kv = 2, .head_dim = 64};
    struct attn_case c, one;
    attn_case_open(&c, shape, 16, KV_BF16, 9);
    attn_case_span(&c, CTX, 0, N, 0, ATTN_CAUSAL);
    attn_case_queries(&c);
    uint16_t *out = new_out(&c);
    attn_case_run(&c, 1000, 1, 1000, out, NULL);
    size_t row = (size_t)(shape.n_head * shape.head_dim);
    for (int32_t i = 0; i < N; i += 11) {
        attn_case_open(&one, shape, 16, KV_BF16, 9);
        attn_case_span(&one, CTX + i, 0, 1, 0, ATTN_CAUSAL); /* the same blocks, so the same keys */
        attn_case_span(&one, 100, 0, 3, 2, ATTN_CAUSAL);
        attn_case_queries(&one);
        memcpy(one.q, c.q + (size_t)i * row, row * sizeof *c.q);
        uint16_t *single = new_out(&one);
        attn_case_run(&one, i % 2 ? 1000 : 0, 1, 1000, single, NULL);
        ck_assert(!memcmp(single, out + (size_t)i * row, row * sizeof *out));
        free(single);
        attn_case_close(&one);
    }
    free(out);
    attn_case_close(&c);
}
END_TEST

/* With `deterministic` a tree row equals the token decoded alone after its ancestors were committed. */
START_TEST(test_tree_equals_path)
{
    enum { CHAIN = 2, TREE = 12 };
    for (int32_t window = 0; window <= 30; window += 15)
        for (int32_t ctx = 55; ctx <= 255; ctx += 50) {
            struct attn_shape shape = {.n_head = 4, .n_head_kv = 2, .head_dim = 64, .sliding_window = window};
            struct attn_case c;
            attn_case_open(&c, shape, 16, KV_BF16, (uint64_t)ctx);
            attn_case_span(&c, ctx, 0, CHAIN, TREE, ATTN_CAUSAL);
            for (int32_t b = 0; b < TREE; b++) { /* each row's path as a sequence of its own */
                int32_t r = CHAIN + b, depth = __builtin_popcountll(c.plan.vis[r]), at = ctx + CHAIN;
                if (b % 4 != 3)
                    continue;
                attn_case_span(&c, ctx + CHAIN + depth - 1, 0, 1, 0, ATTN_CAUSAL);
                int si = c.plan.n.n_span - 1;
                for (int32_t i = 0; i < ctx + CHAIN; i++)
                    attn_case_copy_slot(&c, si, i, 0, i);
                for (uint64_t bits = c.plan.vis[r]; bits; bits &= bits - 1)
                    attn_case_copy_slot(&c, si, at++, 0, ctx + CHAIN + __builtin_ctzll(bits));
            }
            attn_case_queries(&c);
            size_t row = (size_t)(shape.n_head * shape.head_dim);
            for (int si = 1; si < c.plan.n.n_span; si++)
                memcpy(c.q + (size_t)c.plan.span[si].row0 * row, c.q + (size_t)(CHAIN + 4 * si - 1) * row,
                       row * sizeof *c.q);
            uint16_t *out = new_out(&c);
            attn_case_run(&c, ctx % 100 > 50 ? 1000 : 0, 1, 1000, out, NULL);
            for (int si = 1; si < c.plan.n.n_span; si++)
                ck_assert(!memcmp(out + (size_t)c.plan.span[si].row0 * row, out + (size_t)(CHAIN + 4 * si - 1) * row,
                                  row * sizeof *out));
            free(out);
            attn_case_close(&c);
        }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("attention");
    tcase_add_test(tc, test_split_geometry);
    tcase_add_test(tc, test_shared_memory);
    tcase_add_test(tc, test_shapes);
    tcase_add_test(tc, test_windows);
    tcase_add_test(tc, test_tile_and_page_edges);
    tcase_add_test(tc, test_prefill);
    tcase_add_test(tc, test_long_context);
    tcase_add_test(tc, test_nan);
    tcase_add_test(tc, test_cut_equals_whole);
    tcase_add_test(tc, test_chunking_and_company);
    tcase_add_test(tc, test_tree_equals_path);
    return suite_run(tc);
}
