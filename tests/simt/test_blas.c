/* The cuda back end beside a library for products of many rows: what it is given, that results are those of ref, and
 * what happens where it is missing, slower or broken. */
#include <check.h>
#include <string.h>

#include "../unit/suite.h"
#include "cuda_case.h"
#include "fake_blas.h"
#include "fake_comm.h"
#include "fake_runtime.h"

extern const struct backend_ops backend_ref;

enum { N_ROW = 300, FEW_ROWS = 256 }; /* the library has more than 256 */

static const struct tiny_features routed = {.n_expert = 3, .n_expert_used = 3, .n_ff_expert = 40};

static const struct {
    struct case_config is;
    int n_rank;
} cases[] = {
    {{4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, 0, 0, 1, 2e-2}, 1},
    {{3, 1, 80, 104, 136, 9, DT_BF16, DT_BF16, MODEL_NEOX_ROPE | MODEL_QK_NORM, 1, 0, 2e-2}, 1},
    {{4, 2, 64, 128, 192, 0, DT_BF16, DT_Q8_0, MODEL_NEOX_ROPE, 1, 1, 2e-2}, 1},
    {{2, 1, 128, 256, 256, 0, DT_BF16, DT_Q4_K, 0, 0, 1, 2e-2}, 1},
    {{4, 2, 64, 128, 192, 0, DT_BF16, DT_Q4_0, MODEL_NEOX_ROPE, 0, 1, 2e-2, &tiny_gemma}, 1},
    {{4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, 0, 0, 0, 2e-2, &routed}, 1},
    {{4, 2, 64, 128, 256, 0, DT_BF16, DT_FP8, 0, 0, 1, 2e-2}, 1},
    {{4, 2, 64, 128, 256, 0, DT_BF16, DT_BF16, 0, 0, 1, 2e-2}, 2},
};
enum { N_CASE = sizeof cases / sizeof *cases };

static struct rnd rnd;

static void healthy(void)
{
    fake_runtime_reset();
    fake_comm_reset();
    fake_blas_reset();
}

static void open_case(struct pair *g, int i, const struct blas_api *blas, bool deterministic)
{
    int n_rank = cases[i].n_rank;
    fake_faults.n_device = n_rank;
    pair_open(g, &cases[i].is, &rnd, cuda_backend(&fake_runtime, &fake_comm, blas),
              (struct backend_options){.tensor_parallel = n_rank, .deterministic = deterministic}, &backend_ref);
}

static void close_case(struct pair *g)
{
    pair_close(g);
    ck_assert_int_eq(fake_blas_live(), 0);
    ck_assert_int_eq(fake_comm_live(), 0);
}

/* A prompt of n rows, with logits of three of them. */
static void add_prompt(struct rig *g, int32_t n)
{
    int32_t tok[N_ROW], bt[N_ROW / CASE_BLOCK + 1];
    for (int32_t i = 0; i < n; i++)
        tok[i] = (i * 31 + i / 7) % CASE_VOCAB;
    for (int32_t i = 0; i < (int32_t)(sizeof bt / sizeof *bt); i++)
        bt[i] = i * 7 % (CASE_BLOCKS - 1);
    plan_reset(&g->plan);
    rig_chain(g, 0, 0, tok, n, bt, (n + CASE_BLOCK - 1) / CASE_BLOCK);
    rig_read_logits(g, 0, 128);
    rig_read_logits(g, n / 2, 128);
    rig_read_logits(g, n - 1, 128);
}

static void prompt_on_both(struct pair *g, int32_t n, struct worst *w)
{
    add_prompt(&g->got, n);
    add_prompt(&g->want, n);
    pair_step(g, w);
}

/* How many products a prompt gives the library. */
static long runs_of_prompt(int i, const struct blas_api *blas, bool deterministic, int32_t n_row)
{
    struct pair g;
    struct worst w = {0};
    rnd = rnd_begin("runs_of_prompt", (uint64_t)i + 1);
    open_case(&g, i, blas, deterministic);
    long before = fake_blas_runs();
    prompt_on_both(&g, n_row, &w);
    long n = fake_blas_runs() - before;
    check_worst(&w, &cases[i].is);
    close_case(&g);
    return n;
}

START_TEST(prompts_are_near_ref)
{
    healthy();
    ck_assert_int_gt(runs_of_prompt(_i, &fake_blas, false, N_ROW), CASE_LAYERS * 3);
}
END_TEST

/* Pieces are of 20,000 bytes, which are 64 outputs of 128 columns, and so on in whole panels: q is four of them, k and
 * v are two each, the projection (256 columns) is four, down (192) three; of gate and up there is also what comes of
 * all rows, so that a panel is all that fits. */
START_TEST(pieces_cover_each_product)
{
    healthy();
    ck_assert_int_eq(runs_of_prompt(0, &fake_blas, false, N_ROW), CASE_LAYERS * (4 + 2 + 2 + 4 + 2 * 12 + 3));
}
END_TEST

START_TEST(few_rows_and_fixed_order_are_by_own_kernels)
{
    healthy();
    ck_assert_int_eq(runs_of_prompt(0, &fake_blas, false, FEW_ROWS), 0);
    ck_assert_int_eq(runs_of_prompt(0, &fake_blas, true, N_ROW), 0);
}
END_TEST

/* k and v, of 64 outputs a piece, are one kind of product. */
START_TEST(a_clock_decides)
{
    healthy();
    fake_blas_faults.serves = 64;
    ck_assert_int_eq(runs_of_prompt(2, fake_blas_timed(), false, N_ROW), CASE_LAYERS * (4 + 2 + 2));
    fake_blas_faults.slow = true;
    long before = fake_blas_runs();
    ck_assert_int_eq(runs_of_prompt(2, fake_blas_timed(), false, N_ROW), 0);
    ck_assert_int_gt(fake_blas_runs(), before);
}
END_TEST

START_TEST(what_it_cannot_do_is_by_own_kernels)
{
    healthy();
    fake_blas_faults.missing = true;
    ck_assert_int_eq(runs_of_prompt(0, &fake_blas, false, N_ROW), 0);
    healthy();
    fake_blas_faults.closed = true;
    ck_assert_int_eq(runs_of_prompt(0, &fake_blas, false, N_ROW), 0);
    healthy();
    fake_blas_faults.serves = 48; /* a piece of down */
    ck_assert_int_eq(runs_of_prompt(0, &fake_blas, false, N_ROW), CASE_LAYERS * 3);
    healthy();
    fake_blas_faults.fail_at = 1; /* while it is tried: q, which is tried first */
    ck_assert_int_eq(runs_of_prompt(0, &fake_blas, false, N_ROW), CASE_LAYERS * (2 + 2 + 4 + 2 * 12 + 3));
}
END_TEST

START_TEST(failed_product_fails_the_step)
{
    struct pair g;
    struct err e = {0};
    healthy();
    rnd = rnd_begin("failed_product_fails_the_step", 1);
    open_case(&g, 0, &fake_blas, false);
    add_prompt(&g.got, N_ROW);
    fake_blas_faults.fail_at = 5;
    ck_assert_int_eq(g.got.ops->submit(g.got.m, &g.got.plan, &e), -ERR_DEVICE);
    ck_assert_msg(strstr(e.msg, "fake refused a product: execution failed") != NULL, "%s", e.msg);
    e = (struct err){0};
    ck_assert_int_eq(g.got.ops->submit(g.got.m, &g.got.plan, &e), -ERR_DEVICE);
    close_case(&g);
}
END_TEST

/* What it needs is planned: a pool with it takes more, by as much as is allocated. */
START_TEST(its_scratch_is_planned)
{
    struct backend_stats s[2];
    healthy();
    for (int with = 0; with < 2; with++) {
        struct pair g;
        rnd = rnd_begin("its_scratch_is_planned", 1);
        open_case(&g, 0, with ? &fake_blas : NULL, false);
        g.got.ops->stats(g.got.m, &s[with]);
        close_case(&g);
    }
    ck_assert_uint_eq(s[1].kv_bytes, s[0].kv_bytes);
    ck_assert_uint_ge(s[1].scratch_bytes, s[0].scratch_bytes + fake_blas.workspace_bytes);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("blas");
    tcase_add_loop_test(tc, prompts_are_near_ref, 0, N_CASE);
    tcase_add_test(tc, pieces_cover_each_product);
    tcase_add_test(tc, few_rows_and_fixed_order_are_by_own_kernels);
    tcase_add_test(tc, a_clock_decides);
    tcase_add_test(tc, what_it_cannot_do_is_by_own_kernels);
    tcase_add_test(tc, failed_product_fails_the_step);
    tcase_add_test(tc, its_scratch_is_planned);
    return suite_run(tc);
}
