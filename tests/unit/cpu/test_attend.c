/* Attention of the cpu back end where contexts span several segments: the same bits whoever computes what, and close to
 * ref. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "isa.h"
#include "lanes.h"
#include "random_plan.h"
#include "../suite.h"

extern const struct backend_ops backend_cpu, backend_ref;

enum { V = 60, BLOCK = 16, SEQ_BLOCKS = 192, N_BLOCK = 304, N_READ = 32 };

static const struct config {
    int n_head, n_head_kv, head_dim, window, k_type, v_type, block_len,
        deep; /* deep: segments before what is compared */
    uint32_t flags;
} configs[] = {
    {4, 1, 64, 0, DT_F16, DT_F16, BLOCK, 2, 0},
    {4, 2, 32, SEGMENT + 77, DT_Q8_0, DT_Q8_0, BLOCK, 2, MODEL_NEOX_ROPE},
    {3, 3, 20, 700, DT_F32, DT_F32, 32, 2, MODEL_QK_NORM},
    {5, 1, 52, 0, DT_BF16, DT_F16, 4, 2, 0}, /* groups of fewer than 16 keys */
    {2, 2, 96, 0, DT_F16, DT_BF16, 64, 1, MODEL_NEOX_ROPE},
    {6, 1, 32, 33, DT_F32, DT_Q8_0, 8, 1, 0},
    {16, 1, 16, 0, DT_F16, DT_F32, BLOCK, 2, 0},               /* four rows a chunk */
    {8, 4, 16, 3 * SEGMENT + 90, DT_F16, DT_F16, BLOCK, 5, 0}, /* runs of several segments; the window's first is odd */
};
enum { N_CONFIG = sizeof configs / sizeof *configs };

static struct tiny_model tiny;
static struct rnd rnd;
static int32_t tok[6 * SEGMENT], bt[SEQ_BLOCKS * 4];

static int32_t n_bt(int i)
{
    return SEQ_BLOCKS * BLOCK / configs[i].block_len;
}

static int32_t deep(int i)
{
    return configs[i].deep * SEGMENT + 40;
}

static void begin(int i, const char *what)
{
    const struct config *c = &configs[i];
    rnd = rnd_begin(what, (uint64_t)i + 1);
    tiny_model_make(&tiny, &rnd, 2, c->n_head, c->n_head_kv, c->head_dim, 48, 64, V, c->flags, DT_F32, 0, 1);
    tiny.d.sliding_window = c->window;
    for (size_t t = 0; t < sizeof tok / sizeof *tok; t++)
        tok[t] = rnd_int(&rnd, 0, V - 1);
    for (int b = 0; b < n_bt(i); b++)
        bt[b] = (b * 7 + 3) % n_bt(i);
}

static void rig_make(struct rig *g, const struct backend_ops *ops, int i, int n_thread)
{
    const struct config *c = &configs[i];
    struct kv_config kv = {
        .block_len = c->block_len, .n_block = N_BLOCK * BLOCK / c->block_len, .k_type = c->k_type, .v_type = c->v_type};
    rig_open(g, ops, &tiny, &kv, n_thread);
}

static void chain(struct rig *g, int i, int32_t ctx_len, const int32_t *t, int32_t n)
{
    rig_chain(g, 0, ctx_len, t, n, bt, n_bt(i));
}

/* Tokens 0..n-1, in steps that differ. */
static void fill(struct rig *g, int i, int32_t n)
{
    for (int32_t at = 0, step = 300; at < n; at += step, step = step % 400 + 111) {
        plan_reset(&g->plan);
        chain(g, i, at, tok + at, at + step < n ? step : n - at);
        rig_step(g);
    }
}

/* A chain row and a tree below it of random shape, all read. */
static void tree(struct rig *g, struct rnd *r, int i, int32_t ctx_len, int n, int *parent)
{
    uint64_t vis[PLAN_MAX_TREE];
    int depth[PLAN_MAX_TREE];
    plan_span(
        &g->plan,
        &(struct span){.ctx_len = ctx_len, .n_chain = 1, .group = -1, .law = -1, .layer1 = (int16_t)g->env.n_layer});
    plan_row(&g->plan, tok[ctx_len], ctx_len, PARENT_CTX, 0);
    rig_read_logits(g, 0, N_READ);
    for (int k = 0; k < n; k++) {
        int up = rnd_int(r, k > 12 ? k - 12 : -1, k - 1);
        parent[k] = up;
        depth[k] = up < 0 ? 1 : depth[up] + 1;
        vis[k] = (up < 0 ? 0 : vis[up]) | (uint64_t)1 << k;
        plan_row(&g->plan, tok[ctx_len + 1 + k], ctx_len + depth[k], (int16_t)(up + 1), vis[k]);
        rig_read_logits(g, k + 1, N_READ);
    }
    plan_blocks(&g->plan, bt, n_bt(i));
}

static void assert_same(const struct rig *a, const struct rig *b, const char *what)
{
    for (int f = 0; f < a->plan.n.n_out_f; f++)
        ck_assert_msg(!memcmp(&a->out.f[f], &b->out.f[f], sizeof(float)), "%s: result %d: %a, not %a", what, f,
                      b->out.f[f], a->out.f[f]);
}

/* ---- Against itself ---- */

/* With one worker nothing is cut, with more everything is. */
START_TEST(workers_and_instruction_sets_give_the_same_bits)
{
    static const struct {
        const char *isa;
        int n_thread;
    } others[] = {{"amx", 2}, {"avx512vnni", 2}, {"avx512vnni", 3}, {"avx512", 2}, {"avx2", 2}, {"portable", 5}};
    begin(_i, "workers_and_instruction_sets_give_the_same_bits");
    struct rig base;
    setenv("GALLEY_CPU_ISA", "", 1);
    rig_make(&base, &backend_cpu, _i, 1);
    fill(&base, _i, deep(_i));
    for (size_t o = 0; o < sizeof others / sizeof *others; o++) {
        const struct cpu_isa *isa;
        setenv("GALLEY_CPU_ISA", others[o].isa, 1);
        if (cpu_isa_choose(&isa, NULL))
            continue; /* this processor lacks it */
        struct rig other;
        rig_make(&other, &backend_cpu, _i, others[o].n_thread);
        fill(&other, _i, deep(_i));
        for (int what = 0; what < 4; what++) {
            struct rnd same = rnd;
            int parent[PLAN_MAX_TREE];
            for (int k = 0; k < 2; k++) {
                struct rig *g = k ? &other : &base;
                struct rnd r = same;
                plan_reset(&g->plan);
                if (what == 0) {
                    tree(g, &r, _i, deep(_i), 40, parent);
                } else {
                    chain(g, _i, deep(_i), tok + deep(_i), what == 1 ? 1 : what == 2 ? 9 : 70);
                    rig_read_logits(g, 0, N_READ);
                    rig_read_logits(g, g->plan.n.n_row - 1, N_READ);
                }
                rig_step(g);
            }
            assert_same(&base, &other, others[o].isa);
        }
        rig_close(&other);
    }
    rig_close(&base);
    tiny_model_free(&tiny);
}
END_TEST

/* Rows that cross a segment's end, in steps of n: the same logits, whatever n. */
START_TEST(row_counts_give_the_same_bits)
{
    enum { N = 90 };
    int from = configs[_i].deep * SEGMENT - 37;
    static const int counts[] = {N, 1, 4, 15, 16, 17, 33};
    static float first[N][N_READ];
    begin(_i, "row_counts_give_the_same_bits");
    setenv("GALLEY_CPU_ISA", "", 1);
    struct rig g;
    rig_make(&g, &backend_cpu, _i, 3);
    fill(&g, _i, from);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int done = 0; done < N; done += counts[c]) {
            int n = N - done < counts[c] ? N - done : counts[c];
            plan_reset(&g.plan);
            chain(&g, _i, from + done, tok + from + done, n);
            for (int k = 0; k < n; k++)
                rig_read_logits(&g, k, N_READ);
            rig_step(&g);
            if (c == 0)
                memcpy(first, g.out.f, sizeof first);
            for (int k = 0; k < n; k++)
                ck_assert_msg(!memcmp(first[done + k], g.out.f + k * N_READ, sizeof first[0]),
                              "position %d in steps of %d", from + done + k, counts[c]);
        }
    rig_close(&g);
    tiny_model_free(&tiny);
}
END_TEST

/* A tree that grows across a segment's end: each row as at the end of its own path. */
START_TEST(a_deep_tree_equals_its_paths)
{
    enum { N = 30 };
    int from = configs[_i].deep * SEGMENT - 4;
    static float whole[N + 1][N_READ];
    begin(_i, "a_deep_tree_equals_its_paths");
    setenv("GALLEY_CPU_ISA", "", 1);
    struct rig g;
    rig_make(&g, &backend_cpu, _i, 2);
    fill(&g, _i, from);
    int parent[PLAN_MAX_TREE];
    plan_reset(&g.plan);
    tree(&g, &rnd, _i, from, N, parent);
    rig_step(&g);
    memcpy(whole, g.out.f, sizeof whole);
    for (int k = 0; k < N; k++) {
        int32_t path[N + 1];
        int n = 0;
        for (int up = k; up >= 0; up = parent[up])
            n++;
        path[0] = tok[from];
        for (int up = k, at = n; up >= 0; up = parent[up])
            path[at--] = tok[from + 1 + up];
        plan_reset(&g.plan);
        chain(&g, _i, from, path, n + 1);
        rig_read_logits(&g, n, N_READ);
        rig_step(&g);
        ck_assert_msg(!memcmp(whole[k + 1], g.out.f, sizeof whole[0]), "tree row %d at depth %d", k, n);
    }
    rig_close(&g);
    tiny_model_free(&tiny);
}
END_TEST

/* One deep sequence decoded among many short ones, and all of them deep. */
START_TEST(company_gives_the_same_bits)
{
    enum { N = 24 };
    begin(_i, "company_gives_the_same_bits");
    setenv("GALLEY_CPU_ISA", "", 1);
    struct rig g;
    rig_make(&g, &backend_cpu, _i, 3);
    fill(&g, _i, deep(_i));
    float alone[N_READ];
    for (int n = 1; n <= N; n += N - 1)
        for (int all = 0; all < 2; all++) {
            plan_reset(&g.plan);
            chain(&g, _i, deep(_i), tok + deep(_i), 1);
            rig_read_logits(&g, 0, N_READ);
            for (int s = 1; s < n; s++) { /* they read the same context and write to blocks of their own */
                int32_t own[SEQ_BLOCKS * 4], len = configs[_i].block_len,
                                             ctx = all ? deep(_i) / len * len : s % 3 * len;
                memcpy(own, bt, sizeof own);
                own[ctx / len] = N_BLOCK * BLOCK / len - s;
                rig_chain(&g, s, ctx, tok + s, 1, own, ctx / len + 1);
            }
            rig_step(&g);
            if (n == 1)
                memcpy(alone, g.out.f, sizeof alone);
            ck_assert_mem_eq(alone, g.out.f, sizeof alone);
        }
    rig_close(&g);
    tiny_model_free(&tiny);
}
END_TEST

/* ---- Against ref ---- */

START_TEST(deep_rows_are_near_ref)
{
    begin(_i, "deep_rows_are_near_ref");
    setenv("GALLEY_CPU_ISA", "", 1);
    struct rig ref, cpu, *both[] = {&cpu, &ref};
    struct rnd same = rnd;
    rig_make(&cpu, &backend_cpu, _i, 2);
    rig_make(&ref, &backend_ref, _i, 1);
    for (int k = 0; k < 2; k++) {
        struct rnd r = same;
        int parent[PLAN_MAX_TREE];
        fill(both[k], _i, SEGMENT + 60);
        plan_reset(&both[k]->plan);
        tree(both[k], &r, _i, SEGMENT + 60, 20, parent);
        rig_step(both[k]);
    }
    double worst = 0, top = 0;
    for (int f = 0; f < cpu.plan.n.n_out_f; f++) {
        worst = fmax(worst, fabs((double)cpu.out.f[f] - ref.out.f[f]));
        top = fmax(top, fabs(ref.out.f[f]));
    }
    int exact =
        configs[_i].k_type == DT_F32 && configs[_i].v_type == DT_F32; /* else a K or V may round the other way */
    printf("config %d: %.2e\n", _i, worst / top);
    ck_assert_double_lt(worst / top, exact ? 1e-5 : 1e-2);
    rig_close(&cpu);
    rig_close(&ref);
    tiny_model_free(&tiny);
}
END_TEST

/* ---- The pool's layout ---- */

static const char *element(const char *group, int type, int n, int step, int i, int d, const uint16_t **scale)
{
    if (type == DT_Q8_0) { /* as lanes.h says */
        const char *piece = group + d / 32 * 34 * n;
        *scale = (const uint16_t *)(const void *)piece + i;
        return piece + 2 * n + (step == 1 ? 32 * i + d % 32 : d % 32 * n + i);
    }
    return group + (type == DT_F32 ? 4 : 2) * (step == 1 ? (n == 1 ? d : -1) : d * n + i);
}

START_TEST(keys_stand_where_lanes_h_says)
{
    enum { DIM = 64 };
    static const int types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0};
    static const struct {
        int n, of_v;
    } groups[] = {{16, 0}, {4, 0}, {1, 0}, {16, 1}, {8, 1}};
    int type = types[_i];
    size_t row = dtype_row_bytes(type, DIM), size = type == DT_F32 ? 4 : type == DT_Q8_0 ? 1 : 2;
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        int n = groups[g].of_v && type != DT_Q8_0 ? 1 : groups[g].n, step = groups[g].of_v ? 1 : n;
        _Alignas(4) char plain[16][DIM * 4], group[16 * DIM * 4], back[DIM * 4];
        for (int i = 0; i < n; i++) {
            for (size_t b = 0; b < row; b++)
                plain[i][b] = (char)(17 * i + 3 * (int)b + 1);
            lane_copy(type, DIM, (struct lane){plain[i], 1, 1, 0}, (struct lane){group, n, step, i});
        }
        for (int i = 0; i < n; i++) {
            lane_copy(type, DIM, (struct lane){group, n, step, i}, (struct lane){back, 1, 1, 0});
            ck_assert_mem_eq(back, plain[i], row);
            for (int d = 0; d < DIM; d++) {
                const uint16_t *in_group = NULL, *in_plain = NULL;
                const char *a = element(group, type, n, step, i, d, &in_group);
                const char *b = element(plain[i], type, 1, 1, 0, d, &in_plain);
                ck_assert_mem_eq(a, b, size);
                if (in_group)
                    ck_assert_mem_eq(in_group, in_plain, sizeof *in_group);
            }
        }
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("attend");
    tcase_add_loop_test(tc, workers_and_instruction_sets_give_the_same_bits, 0, suite_all_or(N_CONFIG, 4));
    tcase_add_loop_test(tc, row_counts_give_the_same_bits, 0, N_CONFIG);
    tcase_add_loop_test(tc, a_deep_tree_equals_its_paths, 0, N_CONFIG);
    tcase_add_loop_test(tc, company_gives_the_same_bits, 0, N_CONFIG);
    tcase_add_loop_test(tc, deep_rows_are_near_ref, 0, N_CONFIG);
    tcase_add_loop_test(tc, keys_stand_where_lanes_h_says, 0, 4);
    return suite_run(tc);
}
