/* Readouts on the shim against kernels/readout.c, which is tested against slow rules of its own (tests/unit/kernels).
 */
#include <string.h>

#include "readout.h"
#include "readouts.h"
#include "simt.h"
#include "values.h"
#include "visible.h"
#include "../unit/suite.h"

static struct step_plan p;
static int32_t n_vocab;
static float *logits; /* [plan rows][n_vocab] */

static void open_plan(int32_t vocab)
{
    struct plan_limits cap = {.n_span = 16,
                              .n_row = 64,
                              .n_held = 16,
                              .n_mix = 1,
                              .n_part = 1,
                              .n_kvop = 1,
                              .n_law = 16,
                              .n_law_tok = 200,
                              .n_ban = 40,
                              .n_mask = 4,
                              .n_readout = 400,
                              .n_list = 8000,
                              .n_bt = 100,
                              .n_out_f = 60000,
                              .n_out_i = 60000,
                              .n_vocab = vocab};
    n_vocab = vocab;
    ck_assert(!plan_create(&p, &cap, NULL));
    logits = NULL;
}

static void close_plan(void)
{
    plan_free(&p);
    free(logits);
}

/* ---- Plans ---- */

static struct law law_of(uint64_t seed)
{
    struct law l = {
        .temperature = 0.8f, .top_p = 1, .typical_p = 1, .top_h_n = 100, .repetition = 1, .noise_key = seed};
    switch (seed % 10) {
    case 0:
        break;
    case 1:
        l.temperature = 0;
        break;
    case 2:
        l.top_k = value_int(seed, 1, 1, 40);
        break;
    case 3:
        l.top_p = 0.9f;
        break;
    case 4:
        l.min_p = 0.05f;
        break;
    case 5:
        l.typical_p = 0.8f;
        break;
    case 6:
        l.top_h = 0.5f;
        l.top_h_n = 30;
        break;
    case 7:
        l.top_h = 0.7f;
        l.top_h_mode = TOP_H_ENTROPY;
        break;
    case 8:
        l.top_k = 50, l.top_p = 0.95f, l.min_p = 0.01f, l.typical_p = 0.95f, l.top_h = 0.9f, l.temperature = 1.3f;
        break;
    case 9:
        l.temperature = 5, l.top_p = 0.999f;
        break;
    }
    if (seed % 3 == 0)
        l.repetition = 1.3f, l.frequency = 0.4f, l.presence = 0.2f;
    return l;
}

static int add_law(uint64_t seed)
{
    struct law_tok tok[12];
    int32_t ban[3], n_tok = 0;
    for (int32_t t = value_int(seed, 9, 0, 3); t < n_vocab && n_tok < 12;
         t += value_int(seed, (uint64_t)(t + 10), 1, n_vocab / 8))
        tok[n_tok++] =
            (struct law_tok){.tok = t, .n_prompt = t % 2, .n_output = t % 3, .bias = value_at(seed, (uint64_t)t) * 3};
    for (int i = 0; i < 3; i++)
        ban[i] = value_int(seed, (uint64_t)(500 + i), 0, n_vocab - 1);
    struct law l = law_of(seed);
    return plan_law(&p, &l, tok, seed % 4 ? n_tok : 0, ban, seed % 5 == 1 ? 3 : 0);
}

/* A span with an uncounted chain, or one that holds rows, and a tree; few tokens, so that they repeat. */
static void add_span(uint64_t seed, int held)
{
    int law = add_law(seed);
    int32_t n_held = held ? 3 : 0, n_chain = held ? 0 : 3;
    struct span s = {
        .ctx_len = 20, .n_chain = n_chain, .n_counted = held ? 0 : 1, .group = -1, .law = law, .layer1 = 1};
    ck_assert_int_ge(plan_span(&p, &s), 0);
    uint64_t vis[8];
    for (int32_t i = 0; i < n_held; i++) {
        plan_held(&p, value_int(seed, (uint64_t)(40 + i), 0, 6), i ? HELD_PARENT(i - 1) : PARENT_CTX);
        vis[i] = (i ? vis[i - 1] : 0) | (uint64_t)1 << i;
    }
    for (int32_t i = 0; i < n_chain; i++)
        plan_row(&p, value_int(seed, (uint64_t)(50 + i), 0, 6), 20 + i, (int16_t)(i - 1), 0);
    for (int32_t i = n_held; i < n_held + 3; i++) {
        int32_t up = i ? i - 1 : -1;
        vis[i] = (up < 0 ? 0 : vis[up]) | (uint64_t)1 << i;
        int16_t parent = up < 0        ? (int16_t)(n_chain - 1)
                         : up < n_held ? HELD_PARENT(up)
                                       : (int16_t)(n_chain + up - n_held);
        plan_row(&p, value_int(seed, (uint64_t)(60 + i), 0, 6), 20 + n_chain + i, parent, vis[i]);
    }
    plan_blocks(&p, &(int32_t){p.n.n_span}, 1);
}

static void add_mask(uint64_t seed, int32_t row, int empty)
{
    uint32_t *mask = calloc((size_t)mask_words(n_vocab), sizeof *mask);
    for (int32_t t = 0; t < n_vocab; t++)
        if (!empty && rng_mix(seed * 99 + (uint64_t)t) % 3)
            mask[t >> 5] |= 1u << (t & 31);
    p.row_mask[row] = plan_mask(&p, mask);
    free(mask);
}

static void add_readouts(uint64_t seed, int32_t row)
{
    int32_t list[PLAN_MAX_LIST], n_list = seed % 2 ? (n_vocab < PLAN_MAX_LIST ? n_vocab : PLAN_MAX_LIST) : 5;
    int32_t step = n_vocab / n_list; /* spread over the vocabulary, distinct */
    for (int32_t i = 0; i < n_list; i++)
        list[i] = (i * step + value_int(seed, (uint64_t)i, 0, step - 1)) % n_vocab;
    int32_t k = 1 + (int32_t)(seed * 7 % PLAN_MAX_TOPK);
    const struct readout all[] = {
        {.kind = READ_SAMPLE},
        {.kind = READ_SAMPLE, .n = 1},
        {.kind = READ_TOPK, .raw = 1, .n = k},
        {.kind = READ_TOPK, .n = k},
        {.kind = READ_LOGPROB, .raw = 1, .n = n_list},
        {.kind = READ_LOGPROB, .n = n_list},
        {.kind = READ_PROBE, .n = n_list},
        {.kind = READ_PROBE, .raw = 1, .n = n_list},
        {.kind = READ_PROBE, .raw = 1, .n = 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct readout r = all[i];
        r.row = row;
        r.bank = -1;
        int listed = r.kind == READ_LOGPROB || r.kind == READ_PROBE;
        ck_assert_int_ge(plan_readout(&p, &r, listed ? list : NULL), 0);
    }
}

/* ---- Both ways ---- */

static void run_device(struct step_result *out)
{
    size_t n = (size_t)p.n.n_readout;
    struct readout_work w = {.logit_row = malloc(n * sizeof *w.logit_row),
                             .raw_logit = malloc(n * sizeof *w.raw_logit),
                             .law_row = malloc(n * sizeof *w.law_row),
                             .job = malloc(n * sizeof *w.job),
                             .contrast = malloc(n * sizeof *w.contrast)};
    int32_t *map = malloc(sizeof *map * (size_t)p.n.n_row * 2);
    readout_work_make(&p, map, &w);
    float *rows = malloc(sizeof *rows * (size_t)(w.n_logit * n_vocab)),
          *score = malloc(sizeof *score * (size_t)((w.n_law_row + 1) * n_vocab));
    for (int32_t i = 0; i < w.n_logit; i++)
        memcpy(rows + i * n_vocab, logits + w.logit_row[i] * n_vocab, sizeof *rows * (size_t)n_vocab);
    struct law_state *state = malloc(sizeof *state * (size_t)(w.n_law_row + 1));
    struct raw_state *raw = malloc(sizeof *raw * (size_t)(w.n_logit + 1));
    struct readout_args a = {.raw_logit = w.raw_logit,
                             .law_row = w.law_row,
                             .job = w.job,
                             .n_raw = w.n_raw,
                             .n_law_row = w.n_law_row,
                             .n_job = w.n_job,
                             .n_vocab = n_vocab,
                             .tok = p.tok,
                             .ban = p.ban,
                             .list = p.list,
                             .held = p.held,
                             .law = p.law,
                             .law_tok = p.law_tok,
                             .mask = p.mask,
                             .logits = rows,
                             .score = score,
                             .state = state,
                             .raw = raw,
                             .f = out->f,
                             .i = out->i};
    readouts_raw(&a, NULL);
    readouts_law(&a, NULL);
    readouts_read(&a, NULL);
    free(w.logit_row), free(w.raw_logit), free(w.law_row), free(w.job), free(w.contrast), free(map);
    free(rows), free(score), free(state), free(raw);
}

static void run_host(struct step_result *out)
{
    struct readout_ws ws;
    ck_assert(!readout_ws_create(&ws, n_vocab, 100, NULL));
    for (int32_t i = 0; i < p.n.n_readout; i++) {
        const struct readout *r = &p.readout[i];
        readout_logits(&p, plan_span_of(&p, r->row), r, logits + r->row * n_vocab, &ws, out);
    }
    readout_ws_free(&ws);
}

static void compare(const struct step_result *got, const struct step_result *want)
{
    static const char *const names[] = {"SAMPLE", "TOPK", "LOGPROB", "PROBE"};
    for (int32_t k = 0; k < p.n.n_readout; k++) {
        const struct readout *r = &p.readout[k];
        int32_t n_f, n_i;
        readout_size(r, &n_f, &n_i);
        for (int32_t j = 0; j < n_i; j++)
            ck_assert_msg(got->i[r->i0 + j] == want->i[r->i0 + j], "%s %d raw %d n %d: int %d is %d, not %d",
                          names[r->kind], k, r->raw, r->n, j, got->i[r->i0 + j], want->i[r->i0 + j]);
        for (int32_t j = 0; j < n_f; j++) {
            float g = got->f[r->f0 + j], h = want->f[r->f0 + j];
            if (!(g == h)) /* infinities */
                CK_CLOSE(g, h, 2e-6 + 3e-6 * fabs((double)h), "%s %d raw %d n %d: float %d", names[r->kind], k, r->raw,
                         r->n, j);
        }
    }
}

static void check_plan(void)
{
    struct plan_env env = {.n_vocab = n_vocab, .n_layer = 1, .n_embd = 4, .n_block = 100, .block_len = 64};
    struct err e = {0};
    ck_assert_msg(!plan_check(&p, &env, &e), "%s", e.msg);
    struct step_result got = {.f = calloc(60000, 4), .i = calloc(60000, 4)},
                       want = {.f = calloc(60000, 4), .i = calloc(60000, 4)};
    memset(got.f, 0xff, 60000 * 4);
    run_device(&got);
    run_host(&want);
    compare(&got, &want);
    free(got.f), free(got.i), free(want.f), free(want.i);
}

/* Logits like a model's: most far below a few. */
static void make_logits(uint64_t seed)
{
    size_t n = (size_t)(p.n.n_row * n_vocab);
    logits = malloc(n * sizeof *logits);
    for (size_t i = 0; i < n; i++) {
        float x = value_at(seed, i), spread = rng_mix(seed + i) % 50 ? 3 : 9;
        logits[i] = spread * x + 4 * x * x * x;
    }
}

static void check_seed(int32_t vocab, uint64_t seed)
{
    simt_seed(seed);
    open_plan(vocab);
    add_span(seed, 0);
    add_span(seed + 1, 1);
    if (seed % 2)
        add_mask(seed, 2, 0);
    static const int32_t rows[] = {2, 4, 8};
    for (int i = 0; i < 3; i++)
        add_readouts(seed + (uint64_t)i, rows[i]);
    make_logits(seed);
    check_plan();
    close_plan();
}

START_TEST(test_laws)
{
    static const int32_t vocab[] = {130, 515, 2051};
    for (uint64_t seed = 0; seed < 30; seed++)
        check_seed(vocab[seed % 3], seed);
}
END_TEST

START_TEST(test_nothing_allowed)
{
    open_plan(200);
    add_span(2, 0);
    make_logits(1);
    add_mask(1, 2, 1); /* all forbidden */
    logits[1 * n_vocab + 3] = INFINITY;
    logits[0 * n_vocab + 7] = NAN; /* no token, and no harm to others */
    for (int32_t row = 0; row < 3; row++) {
        plan_readout(&p, &(struct readout){.kind = READ_SAMPLE, .row = row, .bank = -1}, NULL);
        plan_readout(&p, &(struct readout){.kind = READ_PROBE, .row = row, .n = 2, .bank = -1}, (int32_t[]){4, 9});
    }
    check_plan();
    close_plan();
}
END_TEST

/* Equal logits: every order and every draw falls to the lower id. */
START_TEST(test_ties)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        open_plan(300);
        add_span(seed, 0);
        logits = malloc(sizeof *logits * (size_t)(p.n.n_row * n_vocab));
        for (int32_t i = 0; i < p.n.n_row * n_vocab; i++)
            logits[i] = (float)(i * 7 % 5);
        add_readouts(seed, 4);
        check_plan();
        close_plan();
    }
}
END_TEST

/* Nothing but the noise decides: each position draws what the host draws there. */
START_TEST(test_draws)
{
    enum { V = 40, N = 60 };
    open_plan(V);
    struct law l = law_of(0);
    plan_law(&p, &l, NULL, 0, NULL, 0);
    struct span s = {.ctx_len = 0, .n_chain = N, .n_counted = N, .group = -1, .layer1 = 1};
    plan_span(&p, &s);
    for (int32_t i = 0; i < N; i++) {
        plan_row(&p, 0, i, (int16_t)(i - 1), 0);
        plan_readout(&p, &(struct readout){.kind = READ_SAMPLE, .row = i, .bank = -1}, NULL);
    }
    plan_blocks(&p, &(int32_t){0}, 1);
    logits = calloc(N * V, sizeof *logits);
    check_plan();
    close_plan();
}
END_TEST

/* ---- CONTRAST ---- */

START_TEST(test_contrast)
{
    enum { WIDTH = 70, N_SLOT = 256, BLOCK_LEN = 16, CTX = 150 };
    open_plan(10);
    int32_t blocks[12];
    plan_span(&p, &(struct span){.ctx_len = CTX, .n_chain = 2, .group = -1, .law = -1, .layer1 = 1});
    plan_row(&p, 0, CTX, -1, 0);
    plan_row(&p, 0, CTX + 1, 0, 0);
    uint64_t vis[4] = {1, 3, 4, 11};
    int16_t parent[4] = {1, 2, 1, 3};
    for (int i = 0; i < 4; i++)
        plan_row(&p, 0, CTX + 1 + __builtin_popcountll(vis[i]), parent[i], vis[i]);
    for (int i = 0; i < 12; i++)
        blocks[i] = (i * 5 + 3) % 16;
    plan_blocks(&p, blocks, 12);
    for (int32_t row = 0; row < 6; row++)
        plan_readout(&p, &(struct readout){.kind = READ_CONTRAST, .row = row, .bank = -1}, NULL);
    plan_readout(&p, &(struct readout){.kind = READ_HIDDEN, .row = 2, .n = 4, .bank = -1}, NULL);
    plan_readout(&p, &(struct readout){.kind = READ_HIDDEN, .row = 1, .n = 4, .bank = 9}, NULL);
    uint16_t *plane = malloc(N_SLOT * WIDTH * sizeof *plane);
    for (int i = 0; i < N_SLOT * WIDTH; i++)
        plane[i] = f32_to_f16(value_at(3, (uint64_t)i) * 0.2f);

    int32_t map[12], hidden[2], hidden_at[2], save[2], save_to[2];
    struct contrast_job contrast[6];
    struct readout_work w = {
        .contrast = contrast, .hidden_row = hidden, .hidden_at = hidden_at, .save_row = save, .save_to = save_to};
    readout_work_make(&p, map, &w);
    ck_assert(w.n_contrast == 6 && !w.n_job && w.n_hidden == 1 && w.n_save == 1);
    ck_assert(hidden[0] == 2 && hidden_at[0] == p.readout[6].f0 && save[0] == 1 && save_to[0] == 9);
    struct attn_row row[6];
    int32_t fold[6];
    struct attn_item item[64];
    struct attn_work aw = {.row = row, .fold = fold, .item = item, .cap_item = 64, .cap_part = 64};
    struct attn_shape shape = {.n_head = 1, .n_head_kv = 1, .head_dim = 64, .sliding_window = 8}; /* does not count */
    attn_work_make(&p, 0, &shape, 0, 0, &aw);
    float part[6 * CONTRAST_PARTS], f[6];
    readouts_contrast(&(struct contrast_args){.job = contrast,
                                              .row = row,
                                              .bt = p.bt,
                                              .plane = (struct f16 *)plane,
                                              .part = part,
                                              .f = f,
                                              .n_job = 6,
                                              .n = WIDTH,
                                              .block_shift = 4},
                      NULL);
    for (int32_t r = 0; r < 6; r++) {
        struct visible v;
        visible_of(&p, &p.span[0], r, 0, &v);
        double best = -1;
        for (int32_t j = 0; j < v.n_prefix + v.n_tail; j++) {
            double dot = 0;
            int32_t a = span_slot(&p, &p.span[0], BLOCK_LEN, row_slot(&p.span[0], r));
            int32_t b = span_slot(&p, &p.span[0], BLOCK_LEN, visible_slot(&v, j));
            for (int i = 0; i < WIDTH; i++)
                dot += (double)f16_to_f32(plane[a * WIDTH + i]) * f16_to_f32(plane[b * WIDTH + i]);
            if (a != b)
                best = fmax(best, dot);
        }
        CK_CLOSE(f[p.readout[r].f0], best, 1e-6, "row %d", r);
    }
    free(plane);
    close_plan();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("readouts");
    tcase_add_test(tc, test_laws);
    tcase_add_test(tc, test_nothing_allowed);
    tcase_add_test(tc, test_ties);
    tcase_add_test(tc, test_draws);
    tcase_add_test(tc, test_contrast);
    return suite_run(tc);
}
