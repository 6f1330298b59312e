/* CUDA graphs on the fake runtime: steps that run by a graph against the same steps launched kernel by kernel, bit for
 * bit in results and cache; how few calls they make; and what happens when a graph cannot be made. */
#include <string.h>

#include "cuda.h"
#include "fake_runtime.h"
#include "mem.h"
#include "values.h"
#include "../unit/kernels/random_plan.h"
#include "../unit/suite.h"

enum { V = 152, BLOCK = 16, N_BLOCK = 700, SHARED = 300, N_LAYER = 2, MAX_SPAN = 64, SPAN_BLOCKS = 200 };

static const struct tiny_features many_experts = {
    .post_norms = 1, .n_expert = 21, .n_expert_used = 4, .n_ff_expert = 64, .up_f32 = 1};

static const struct config {
    int n_head, n_head_kv, head_dim, n_embd, n_ff, window, kv_type, type;
    uint32_t flags;
    int biases, plane;
    const struct tiny_features *features; /* NULL: none */
} configs[] = {
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, 0, 0, 1},
    {4, 1, 64, 128, 192, 0, DT_Q8_0, DT_Q8_0, MODEL_NEOX_ROPE, 1, 0},
    {3, 3, 80, 104, 136, 700, DT_BF16, DT_F32, MODEL_QK_NORM, 1, 1},
    {4, 2, 64, 128, 192, 700, DT_BF16, DT_BF16, 0, 0, 1, &tiny_gemma},
    {4, 2, 64, 128, 192, 0, DT_BF16, DT_BF16, 0, 0, 1, &tiny_mixtral},
    {4, 1, 64, 128, 192, 0, DT_BF16, DT_Q8_0, MODEL_NEOX_ROPE, 0, 1, &many_experts},
    {20, 1, 64, 64, 64, 0, DT_BF16, DT_BF16, 0, 0, 0}, /* a row's heads do not fit one warp */
    {2, 1, 64, 64, 64, 0, DT_BF16, DT_BF16, 0, 0, 0},
};
enum { N_CONFIG = sizeof configs / sizeof *configs, SMALLEST = N_CONFIG - 1 };

static struct tiny_model tiny;
static struct rnd rnd;

/* Two of the same: `by_graph` runs by graphs where it can, `plain` never does. */
struct pair {
    struct rig by_graph, plain;
    int n_kind[CUDA_GRAPH_KINDS]; /* steps that ran by a graph of a kind */
};

static int open_rig(struct rig *g, int config, long fail_alloc)
{
    struct kv_config kv = {.block_len = BLOCK,
                           .n_block = N_BLOCK,
                           .k_type = configs[config].kv_type,
                           .v_type = configs[config].kv_type,
                           .hidden_plane = configs[config].plane,
                           .n_bank = 4};
    struct backend_options opt = {.limits = test_limits(V)};
    struct err e = {0};
    *g = (struct rig){.ops = cuda_backend(&fake_runtime, NULL, NULL), .limits = opt.limits};
    g->env = (struct plan_env){V, N_LAYER, tiny.d.n_embd, N_BLOCK, BLOCK, 4, configs[config].plane};
    ck_assert(!g->ops->open(&opt, &g->b, &e));
    ck_assert(!g->ops->load(g->b, &tiny.d, &tiny.w, NULL, NULL, &g->m, &e));
    ck_assert(!plan_create(&g->plan, &g->limits, &e));
    g->out.f = calloc((size_t)g->limits.n_out_f, sizeof(float));
    g->out.i = calloc((size_t)g->limits.n_out_i, sizeof(int32_t));
    fake_faults.fail_alloc = fail_alloc;
    int rc = g->ops->kv_create(g->m, &kv, &e);
    fake_faults.fail_alloc = 0;
    return rc;
}

/* A cache that looks as if every slot had been written: contexts then need no steps of their own. */
static void fill_cache(struct bmodel *m, uint64_t seed)
{
    const struct cuda_pool *p = &m->pool;
    size_t bytes = p->k_layer_bytes * N_LAYER;
    bool fp8 = p->layer0.type == KV_FP8;
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)p->layer0.k)[i] = (uint8_t)rng_mix(seed + i),
                  ((uint8_t *)p->layer0.v)[i] = (uint8_t)rng_mix(~seed + i);
    for (size_t i = 0; fp8 && i < bytes; i++)
        ((uint8_t *)p->layer0.k)[i] &= 0xb7, ((uint8_t *)p->layer0.v)[i] &= 0xb7; /* below 2, and no NaN */
    for (size_t i = 1; !fp8 && i < bytes; i += 2)                                 /* bf16 of exponents -1 to -64 */
        ((uint8_t *)p->layer0.k)[i] = (((uint8_t *)p->layer0.k)[i] & 0x9f) | 0x20, ((uint8_t *)p->layer0.v)[i] &= 0xbf;
    for (size_t i = 0; fp8 && i < p->scale_layer_bytes * N_LAYER / sizeof(float); i++)
        p->layer0.k_scale[i] = p->layer0.v_scale[i] = 0.25f + 0.2f * value_at(seed, i);
    for (size_t i = 0; p->plane && i < (size_t)N_BLOCK * BLOCK * (size_t)m->d.n_embd; i++)
        p->plane[i].u = f32_to_f16(0.1f * value_at(seed, i));
}

static void pair_open(struct pair *g, int config, long fail_alloc)
{
    const struct config *c = &configs[config];
    fake_runtime_reset();
    memset(g, 0, sizeof *g);
    tiny_model_make(&tiny, &rnd, N_LAYER, c->n_head, c->n_head_kv, c->head_dim, c->n_embd, c->n_ff, V, c->flags,
                    c->type, c->biases, 0);
    tiny.d.sliding_window = c->window;
    if (c->features)
        tiny_model_extend(&tiny, &rnd, c->features, c->type);
    ck_assert(!open_rig(&g->by_graph, config, fail_alloc));
    ck_assert(!open_rig(&g->plain, config, 0));
    g->plain.m->graphs.off = true;
    uint64_t seed = rnd_u64(&rnd);
    fill_cache(g->by_graph.m, seed);
    fill_cache(g->plain.m, seed);
}

static void pair_close(struct pair *g)
{
    rig_close(&g->by_graph);
    rig_close(&g->plain);
    tiny_model_free(&tiny);
    ck_assert_int_eq(fake_runtime_live(), 0);
}

/* ---- Plans ---- */

struct blocks { /* of the pool: all but the last few of a context may belong to several sequences */
    int32_t next;
};

static void add_blocks(struct rig *g, struct blocks *at, int32_t ctx_len, int32_t n_slot)
{
    int32_t bt[SPAN_BLOCKS], n = (n_slot + BLOCK - 1) / BLOCK;
    ck_assert_int_le(n, SPAN_BLOCKS);
    for (int32_t i = 0; i < n; i++)
        bt[i] = i < ctx_len / BLOCK ? rnd_int(&rnd, 0, SHARED - 1) : at->next++;
    ck_assert_int_lt(at->next, N_BLOCK);
    ck_assert_int_ge(plan_blocks(&g->plan, bt, n), 0);
}

static void read_row(struct rig *g, int32_t row, int all_kinds)
{
    struct step_plan *p = &g->plan;
    plan_readout(p, &(struct readout){.kind = READ_SAMPLE, .row = row, .n = 1, .bank = -1}, NULL);
    plan_readout(p, &(struct readout){.kind = READ_TOPK, .raw = row % 2, .row = row, .n = 5, .bank = -1}, NULL);
    if (!all_kinds)
        return;
    plan_readout(p, &(struct readout){.kind = READ_HIDDEN, .row = row, .n = g->env.n_embd, .bank = -1}, NULL);
    if (row < g->env.n_bank)
        plan_readout(p, &(struct readout){.kind = READ_HIDDEN, .row = row, .n = g->env.n_embd, .bank = row}, NULL);
    if (g->env.hidden_plane)
        plan_readout(p, &(struct readout){.kind = READ_CONTRAST, .row = row, .bank = -1}, NULL);
}

static int32_t any_token(struct rig *g)
{
    if (rnd_int(&rnd, 0, 9) || g->plan.n.n_mix == 16)
        return rnd_int(&rnd, 0, V - 1);
    struct mix_part part[] = {{rnd_int(&rnd, 0, 70), 0.7f}, {rnd_int(&rnd, 71, V - 1), 0.3f}};
    return MIX_ROW(plan_mix(&g->plan, part, 2, 0));
}

/* A chain of n_chain rows, then a tree of n_tree. */
static void add_span(struct rig *g, struct blocks *at, int32_t ctx_len, int n_chain, int n_tree)
{
    struct span s = {
        .ctx_len = ctx_len, .n_chain = n_chain, .group = -1, .law = rnd_int(&rnd, 0, 1), .layer1 = N_LAYER};
    uint64_t vis[PLAN_MAX_TREE];
    int depth[PLAN_MAX_TREE];
    ck_assert_int_ge(plan_span(&g->plan, &s), 0);
    for (int i = 0; i < n_chain; i++)
        plan_row(&g->plan, any_token(g), ctx_len + i, (int16_t)(i - 1), 0);
    for (int i = 0; i < n_tree; i++) {
        int up = rnd_int(&rnd, i > 4 ? i - 4 : -1, i - 1);
        vis[i] = (up < 0 ? 0 : vis[up]) | (uint64_t)1 << i;
        depth[i] = up < 0 ? 0 : depth[up] + 1;
        plan_row(&g->plan, any_token(g), ctx_len + n_chain + depth[i], (int16_t)(n_chain + up), vis[i]);
    }
    add_blocks(g, at, ctx_len, ctx_len + n_chain + n_tree);
}

static void plan_begin(struct rig *g)
{
    struct law l = neutral_law();
    plan_reset(&g->plan);
    l.temperature = 8;
    plan_law(&g->plan, &l, (struct law_tok[]){{5, 1, 0, 0.5f}}, 1, (int32_t[]){11, 40}, 2);
    l.top_k = 20;
    plan_law(&g->plan, &l, NULL, 0, NULL, 0);
}

enum shape { DECODE, CHAINS, TREES };

/* n rows in spans of some shape, with contexts of up to max_ctx. */
static void build(struct rig *g, int n, enum shape shape, int max_ctx, int all_kinds)
{
    struct blocks at = {SHARED};
    plan_begin(g);
    for (int left = n, n_span = 0; left > 0; n_span++) {
        int even = (left + MAX_SPAN - n_span - 1) / (MAX_SPAN - n_span), most = shape == DECODE ? even : even + 5;
        int rows = rnd_int(&rnd, even, most < left ? most : left), n_tree = shape == TREES ? rows - 1 : 0;
        add_span(g, &at, rnd_int(&rnd, max_ctx / 2, max_ctx), rows - n_tree, n_tree);
        left -= rows;
    }
    for (int row = 0, step = n > 40 ? 7 : 1; row < n; row += step)
        read_row(g, row, all_kinds);
}

/* ---- Steps ---- */

/* Nothing that an earlier step left behind may help: neither on the host nor on the device. */
static void poison(struct bmodel *m)
{
    memset(m->pool.host_upload, 0xa5, m->pool.upload_bytes);
    memset((char *)m->pool.memory + m->pool.kv_bytes, 0xff, m->pool.scratch_bytes);
}

static struct fake_calls run(struct rig *g, const struct step_plan *p)
{
    struct err e = {0};
    unsigned long before = mem_thread_count();
    long before_device = fake_runtime_allocs();
    poison(g->m);
    fake_runtime_calls();
    ck_assert_msg(!g->ops->submit(g->m, p, &e), "%s", e.msg);
    ck_assert_msg(!g->ops->wait(g->m, &g->out, &e), "%s", e.msg);
    ck_assert_uint_eq(mem_thread_count(), before);
    ck_assert_int_eq(fake_runtime_allocs(), before_device);
    return fake_runtime_calls();
}

static bool same(const struct pair *g)
{
    const struct rig *a = &g->by_graph, *b = &g->plain;
    const struct step_plan *p = &a->plan;
    return !memcmp(a->out.f, b->out.f, (size_t)p->n.n_out_f * sizeof(float)) &&
           !memcmp(a->out.i, b->out.i, (size_t)p->n.n_out_i * sizeof(int32_t)) &&
           !memcmp(a->m->pool.memory, b->m->pool.memory, a->m->pool.kv_bytes);
}

/* Both run the plan; returns the calls of the one with graphs. */
static struct fake_calls step(struct pair *g)
{
    struct err e = {0};
    ck_assert_msg(!plan_check(&g->by_graph.plan, &g->by_graph.env, &e), "%s", e.msg);
    struct fake_calls c = run(&g->by_graph, &g->by_graph.plan), plain = run(&g->plain, &g->by_graph.plan);
    bool wide = false, folds = false;
    for (int kind = 0; kind < g->plain.m->n_kind; kind++) {
        const struct attn_work *w = &g->plain.m->lists.attn[kind];
        wide |= w->n_item > w->n_narrow;
        folds |= w->n_fold > 0;
    }
    ck_assert_int_eq(plain.n_graph, 0);
    if (c.n_graph)
        g->n_kind[wide + 2 * folds]++;
    return c;
}

static void same_step(struct pair *g, bool by_graph)
{
    struct fake_calls c = step(g);
    int n_row = g->by_graph.plan.n.n_row;
    ck_assert_msg(same(g), "%d rows", n_row);
    ck_assert_msg(c.n_graph == by_graph, "%d rows: %ld graphs", n_row, c.n_graph);
    if (by_graph)
        ck_assert_msg(c.n_kernel <= 13 && c.n_copy == 2, "%ld kernels, %ld copies", c.n_kernel, c.n_copy);
}

/* ---- The same bits ---- */

START_TEST(random_steps_are_the_same)
{
    rnd = rnd_begin("random_steps_are_the_same", (uint64_t)_i + 1);
    struct pair g;
    pair_open(&g, _i, 0);
    for (int i = 0; i < 10; i++) {
        int n = rnd_int(&rnd, 1, i % 4 ? 12 : 40), max_ctx = i % 3 == 0 ? 1400 : i % 3 == 1 ? 300 : 30;
        build(&g.by_graph, i < 2 ? i + 1 : n, (enum shape)(i % 7 % 3), max_ctx, i % 2);
        if (i % 5 == 4)
            plan_kvop(&g.by_graph.plan, 3 * BLOCK + 2, 600 * BLOCK, 7);
        same_step(&g, true);
    }
    build(&g.by_graph, 3, CHAINS, 2900, 0); /* more items than blocks */
    same_step(&g, true);
    pair_close(&g);
}
END_TEST

/* Narrow items or wide ones, folded or not. */
START_TEST(every_kind_is_the_same)
{
    rnd = rnd_begin("every_kind_is_the_same", (uint64_t)_i + 1);
    struct pair g;
    pair_open(&g, _i, 0);
    bool only_wide = configs[_i].n_head == 20;
    for (int kind = only_wide; kind < CUDA_GRAPH_KINDS; kind += only_wide ? 2 : 1) {
        struct blocks at = {SHARED};
        plan_begin(&g.by_graph);
        for (int i = 0; i < 2; i++)
            add_span(&g.by_graph, &at, kind / 2 ? 1400 : 30, kind % 2 && !only_wide ? 20 : 1, 0);
        read_row(&g.by_graph, 1, 1);
        same_step(&g, true);
        ck_assert_int_eq(g.n_kind[kind], 1);
    }
    pair_close(&g);
}
END_TEST

START_TEST(bucket_edges_are_the_same)
{
    static const int sizes[] = {1,  2,  3,  4,  5,  7,   8,   9,   15,  16,  17, 31,
                                32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257};
    rnd = rnd_begin("bucket_edges_are_the_same", 1);
    struct pair g;
    pair_open(&g, SMALLEST, 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        build(&g.by_graph, sizes[i], sizes[i] % 2 ? DECODE : CHAINS, 30, 0);
        same_step(&g, sizes[i] <= 256);
    }
    pair_close(&g);
}
END_TEST

/* What graphs do not cover runs as before, with lists in the same staging. */
START_TEST(other_steps_are_the_same)
{
    rnd = rnd_begin("other_steps_are_the_same", 1);
    struct pair g;
    struct blocks at = {SHARED};
    pair_open(&g, 0, 0);
    build(&g.by_graph, 5, CHAINS, 300, 1);
    g.by_graph.plan.span[0].layer1 = 1;
    same_step(&g, false);

    plan_begin(&g.by_graph);
    add_span(&g.by_graph, &at, 40, 3, 0);
    for (int i = 0; i < 9; i++) /* more mixes than rows */
        plan_mix(&g.by_graph.plan, (struct mix_part[]){{i, 1}, {V - 1 - i, 2}}, 2, 0);
    g.by_graph.plan.tok[1] = MIX_ROW(g.by_graph.plan.n.n_mix - 1);
    read_row(&g.by_graph, 2, 1);
    same_step(&g, false);

    build(&g.by_graph, 5, CHAINS, 300, 1);
    same_step(&g, true);
    pair_close(&g);
}
END_TEST

/* A decode step of a batch, as the engine makes most of them. */
START_TEST(decoding_takes_few_calls)
{
    rnd = rnd_begin("decoding_takes_few_calls", 1);
    struct pair g;
    pair_open(&g, 0, 0);
    build(&g.by_graph, 48, DECODE, 40, 0);
    struct fake_calls c = step(&g);
    ck_assert(same(&g));
    ck_assert_int_eq(c.n_graph, 1);
    ck_assert_int_le(c.n_graph + c.n_kernel + c.n_copy, 9);
    pair_close(&g);
}
END_TEST

/* ---- That the above can fail ---- */

enum tampering { NOT, PADDING_WRITES, ITEM_LOST, ITEMS_ELSEWHERE, FOLD_LOST, N_TAMPERING };

static struct cuda_api tampered;
static enum tampering tampering;
static struct bmodel *tampered_model;

/* Changes on the device what the host has just uploaded. */
static int tamper_and_launch(struct CUgraphExec_st *graph, struct CUstream_st *stream)
{
    struct cuda_lists *l = &tampered_model->lists;
    struct attn_count *count = (struct attn_count *)cuda_on_device(tampered_model, l->count);
    int32_t *slot = (int32_t *)cuda_on_device(tampered_model, l->slot);
    if (tampering == PADDING_WRITES)
        slot[5] = 17; /* the plan has 5 rows: the rest is padding */
    else if (tampering == ITEM_LOST)
        count->n_item--, count->n_narrow -= count->n_narrow > 0;
    else if (tampering == ITEMS_ELSEWHERE)
        count->item0++;
    else if (tampering == FOLD_LOST)
        count->n_fold--;
    return fake_runtime.graph_launch(graph, stream);
}

START_TEST(tampering_shows)
{
    rnd = rnd_begin("tampering_shows", (uint64_t)_i + 1);
    struct pair g;
    pair_open(&g, 0, 0);
    tampered = fake_runtime;
    tampered.graph_launch = tamper_and_launch;
    tampered_model = g.by_graph.m;
    tampering = (enum tampering)_i;
    g.by_graph.b->api = &tampered;
    struct blocks at = {SHARED};
    plan_begin(&g.by_graph); /* one span, long enough to be cut */
    add_span(&g.by_graph, &at, 1000, 5, 0);
    for (int row = 0; row < 5; row++)
        read_row(&g.by_graph, row, 0);
    ck_assert_int_eq(step(&g).n_graph, 1);
    ck_assert_msg(same(&g) == (_i == NOT), "tampering %d", _i);
    g.by_graph.b->api = &fake_runtime;
    pair_close(&g);
}
END_TEST

/* ---- Recording ---- */

START_TEST(recording_keeps_arguments_and_reads_memory_late)
{
    struct CUstream_st *s;
    struct CUgraphExec_st *graph;
    enum { N_PAIR = 4 };
    int32_t pos[2] = {3, 4};
    float freq[N_PAIR] = {1, 0.5f, 0.25f, 0.125f}, table[2 * N_PAIR * 2] = {0}, other[2 * N_PAIR * 2] = {0},
          cleared = 5;
    struct rope_args a = {.pos = pos, .inv_freq = freq, .mscale = 1, .table = table, .n_row = 2, .n_pair = N_PAIR};
    fake_runtime_reset();
    ck_assert(!fake_runtime.stream_create(&s));
    ck_assert(!fake_runtime.graph_begin(s));
    kv_rope_table(&a, s);
    ck_assert(!fake_runtime.zero(&cleared, sizeof cleared, s));
    ck_assert(!fake_runtime.graph_end(s, &graph));
    ck_assert(table[0] == 0 && cleared == 5); /* nothing ran */
    memset(&a, 0xff, sizeof a);               /* by value: what becomes of the caller's copy does not matter */
    a.table = other;
    pos[1] = 0; /* behind a pointer: as it is at the launch */
    for (int i = 0; i < 2; i++) {
        pos[0] = i;
        cleared = 5;
        ck_assert(!fake_runtime.graph_launch(graph, s));
        ck_assert(table[0] == cosf((float)i) && table[1] == sinf((float)i));
        ck_assert(table[2 * N_PAIR] == 1 && other[0] == 0 && cleared == 0);
    }
    ck_assert_int_eq(fake_runtime_calls().n_graph, 2);
    fake_runtime.graph_destroy(graph);
    fake_runtime.stream_destroy(s);
    ck_assert_int_eq(fake_runtime_live(), 0);
}
END_TEST

START_TEST(waiting_and_allocating_spoil_a_recording)
{
    struct CUstream_st *s;
    struct CUgraphExec_st *graph;
    void *p;
    fake_runtime_reset();
    ck_assert(!fake_runtime.stream_create(&s));
    for (int i = 0; i < 4; i++) {
        ck_assert(!fake_runtime.graph_begin(s));
        if (i < 3)
            ck_assert(i == 0   ? fake_runtime.stream_wait(s)
                      : i == 1 ? fake_runtime.alloc(&p, 8)
                               : fake_runtime.host_alloc(&p, 8));
        ck_assert(!fake_runtime.graph_end(s, &graph) == (i == 3));
        ck_assert(!graph == (i < 3));
    }
    fake_runtime.graph_destroy(graph);
    fake_runtime.stream_destroy(s);
    ck_assert_int_eq(fake_runtime_live(), 0);
}
END_TEST

/* ---- Graphs that cannot be made ---- */

/* kv_create's own allocations are three; the n-th graph fails. */
START_TEST(without_memory_for_graphs_steps_are_launched)
{
    static const int nth[] = {1, 2, 9};
    rnd = rnd_begin("without_memory_for_graphs_steps_are_launched", 1);
    struct pair g;
    pair_open(&g, 0, 3 + nth[_i]);
    for (int n = 1; n <= 33; n += 16) {
        build(&g.by_graph, n, DECODE, 30, 0);
        same_step(&g, n == 1 && nth[_i] > 1);
    }
    pair_close(&g);
}
END_TEST

static int failed_launch(void)
{
    return 1;
}

/* An error of a launch shows when it is asked for, even if the graph could be made. */
START_TEST(a_graph_with_a_failed_launch_is_not_kept)
{
    rnd = rnd_begin("a_graph_with_a_failed_launch_is_not_kept", 1);
    struct pair g;
    pair_open(&g, SMALLEST, 0);
    struct bmodel *m = g.by_graph.m;
    long live = fake_runtime_live();
    cuda_graphs_free(m);
    ck_assert_int_lt(fake_runtime_live(), live);
    live = fake_runtime_live();
    tampered = fake_runtime;
    tampered.last_error = failed_launch;
    m->b->api = &tampered;
    cuda_graphs_create(m);
    m->b->api = &fake_runtime;
    ck_assert_int_eq(fake_runtime_live(), live);
    build(&g.by_graph, 3, DECODE, 30, 0);
    same_step(&g, false);
    pair_close(&g);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("graph");
    tcase_add_loop_test(tc, random_steps_are_the_same, 0, N_CONFIG);
    tcase_add_loop_test(tc, every_kind_is_the_same, 0, N_CONFIG);
    tcase_add_test(tc, bucket_edges_are_the_same);
    tcase_add_test(tc, other_steps_are_the_same);
    tcase_add_test(tc, decoding_takes_few_calls);
    tcase_add_loop_test(tc, tampering_shows, NOT, N_TAMPERING);
    tcase_add_test(tc, recording_keeps_arguments_and_reads_memory_late);
    tcase_add_test(tc, waiting_and_allocating_spoil_a_recording);
    tcase_add_loop_test(tc, without_memory_for_graphs_steps_are_launched, 0, 3);
    tcase_add_test(tc, a_graph_with_a_failed_launch_is_not_kept);
    return suite_run(tc);
}
