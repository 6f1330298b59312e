/* Drafts: the index they are copied from, the sharing out of rows, and above all that no draft, good or bad, changes
 * what a request says. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "draft/allot.h"
#include "engine_rig.h"
#include "random_plan.h"
#include "../suite.h"

/* ---- The index ---- */

static struct history_text text_from(const int32_t *tok, int32_t n, int32_t cut1, int32_t cut2)
{
    return (struct history_text){
        .part = {tok, tok + cut1, tok + cut2}, .n_part = {cut1, cut2 - cut1, n - cut2}, .n = n};
}

/* The longest earlier occurrence of the end, the most recent of equals, by looking everywhere. */
static struct history_match look_everywhere(const int32_t *tok, int32_t n, int32_t min_match)
{
    struct history_match best = {0};
    for (int32_t at = n - 1; at >= min_match; at--) {
        int32_t len = 0;
        while (len < HISTORY_MAX_MATCH && len < at && tok[at - 1 - len] == tok[n - 1 - len])
            len++;
        if (len >= min_match && len > best.len)
            best = (struct history_match){.at = at, .len = len};
    }
    return best;
}

START_TEST(finds_the_longest_and_most_recent)
{
    struct rnd r = rnd_begin("finds_the_longest_and_most_recent", 31);
    int32_t tok[HISTORY_MAX_CHAIN];
    for (int round = 0; round < 300; round++) {
        int32_t n = rnd_int(&r, 1, HISTORY_MAX_CHAIN), alphabet = rnd_int(&r, 1, 6), min_match = rnd_int(&r, 1, 5);
        int32_t cut1 = rnd_int(&r, 0, n), cut2 = rnd_int(&r, cut1, n);
        struct history h;
        void *mem = malloc(history_bytes(n));
        history_begin(&h, mem, n, min_match);
        for (int32_t i = 0; i < n; i++)
            tok[i] = rnd_int(&r, 1, alphabet);
        for (int32_t len = cut2; len <= n; len += rnd_int(&r, 1, 3)) { /* the text grows at its end */
            struct history_text t = text_from(tok, len, cut1, cut2);
            struct history_match got = history_find(&h, &t), want = look_everywhere(tok, len, min_match);
            ck_assert_int_eq(got.len, want.len);
            ck_assert_int_eq(got.at, want.at);
        }
        free(mem);
    }
}
END_TEST

/* autoregressive.md, section 1, test 2: after A B C D E F | A B C comes D E F A B C, and there history ends. */
START_TEST(the_papers_example)
{
    const int32_t tok[] = {1, 2, 3, 4, 5, 6, 1, 2, 3}, want[] = {4, 5, 6, 1, 2, 3};
    struct copy_drafter c;
    struct accept_rates all = {0};
    struct draft d = {0};
    void *mem = malloc(copy_bytes(9));
    copy_init(&c, mem, 9, 3, false);
    struct history_text t = text_from(tok, 9, 0, 6), two = text_from(tok, 2, 0, 2);
    copy_propose(&c, &all, &t, &d);
    ck_assert_int_eq(d.n, 6);
    ck_assert_mem_eq(d.tok, want, sizeof want);
    copy_init(&c, mem, 9, 3, false); /* too short for a match: no draft */
    d = (struct draft){0};
    copy_propose(&c, &all, &two, &d);
    ck_assert_int_eq(d.n, 0);
    free(mem);
}
END_TEST

/* The prediction says 1..40; the answer exchanges, drops and inserts tokens. Copying must find its place again at once.
 */
START_TEST(an_edited_prediction_is_followed)
{
    enum { N = 40 };
    int32_t predicted[N], prompt[] = {900, 901}, out[N + 1], n_out = 0, n_right = 0, n_edits = 0;
    for (int i = 0; i < N; i++)
        predicted[i] = 100 + i;
    for (int i = 0; i < N; i++) {
        bool swap = i == 9, drop = i == 18, insert = i == 27;
        n_edits += swap || drop || insert;
        if (insert)
            out[n_out++] = 777;
        if (!drop)
            out[n_out++] = swap ? 888 : predicted[i];
    }
    struct copy_drafter c;
    struct accept_rates all = {0};
    struct draft d = {0};
    void *mem = malloc(copy_bytes(N + 2 + N + 1));
    copy_init(&c, mem, N + 2 + N + 1, 3, true);
    for (int32_t i = 0; i < n_out; i++) {
        struct history_text t = {.part = {predicted, prompt, out}, .n_part = {N, 2, i}, .n = N + 2 + i};
        copy_propose(&c, &all, &t, &d);
        n_right += d.n > 0 && d.tok[0] == out[i];
    }
    ck_assert_int_ge(n_right, n_out - 2 * n_edits);
    free(mem);
}
END_TEST

/* ---- Sharing out rows ---- */

static struct step_cost random_cost(struct rnd *r)
{
    struct step_cost c;
    double s = 1;
    cost_init(&c);
    for (int32_t n = 1; n <= 64; n *= 2, s *= 1 + rnd_int(r, 0, 100) * 0.01)
        cost_set(&c, n, s);
    return c;
}

static double rate_of(const struct bid *bid, const int32_t *n, int32_t n_bid, int32_t n_row, double n_token,
                      const struct step_cost *cost)
{
    for (int32_t b = 0; b < n_bid; b++)
        for (int32_t i = 0; i < n[b]; i++) {
            n_token += bid[b].draft->chance[i];
            n_row++;
        }
    return n_token / cost_step(cost, n_row);
}

/* No other way to share out the rows promises more tokens a second. */
START_TEST(rows_go_where_they_are_worth_most)
{
    struct rnd r = rnd_begin("rows_go_where_they_are_worth_most", 32);
    struct draft draft[3];
    for (int round = 0; round < 200; round++) {
        struct step_cost cost = random_cost(&r);
        struct bid bid[3];
        int32_t budget = rnd_int(&r, 0, 12), used = 0, n_row = rnd_int(&r, 3, 20), got[3];
        for (int b = 0; b < 3; b++) {
            draft[b].n = rnd_int(&r, 0, 5);
            float chance = 1;
            for (int32_t i = 0; i < draft[b].n; i++)
                draft[b].chance[i] = chance *= (float)rnd_int(&r, 0, 100) * 0.01f;
            bid[b] = (struct bid){.draft = &draft[b], .max = draft[b].n};
        }
        draft_allot(bid, 3, budget, n_row, 3, &cost);
        for (int b = 0; b < 3; b++)
            used += got[b] = bid[b].n;
        ck_assert_int_le(used, budget);
        double best = rate_of(bid, got, 3, n_row, 3, &cost);
        for (int32_t i = 0; i <= draft[0].n; i++)
            for (int32_t j = 0; j <= draft[1].n; j++)
                for (int32_t k = 0; k <= draft[2].n; k++)
                    if (i + j + k <= budget)
                        ck_assert_double_ge(best + 12 * ALLOT_LEAST,
                                            rate_of(bid, (int32_t[]){i, j, k}, 3, n_row, 3, &cost));
    }
}
END_TEST

START_TEST(the_cost_curve_follows_what_is_measured)
{
    struct step_cost c;
    cost_init(&c);
    cost_set(&c, 1, 1.0);
    cost_set(&c, 2, 0.9); /* noise: a curve never falls */
    cost_set(&c, 4, 2.0);
    ck_assert_double_eq(cost_step(&c, 2), cost_step(&c, 1));
    ck_assert_double_eq_tol(cost_step(&c, 3), 1.5, 1e-12);
    ck_assert_double_eq_tol(cost_step(&c, 8), 4.0, 1e-12); /* beyond the last point it goes on as it went */
    ck_assert_int_eq(cost_rows_within(&c, 2, 2.5, 512), 3);    /* 1, 1, 2 s for 1, 2, 4 rows, then .5 s a row */
    ck_assert_int_eq(cost_rows_within(&c, 2, 2.5, 1), 1);
    ck_assert_int_eq(cost_rows_within(&c, 4, 2, 512), 4);
    ck_assert_int_eq(cost_rows_efficient(&c, 1.05, 512), 2);
    ck_assert_int_eq(cost_rows_efficient(&c, 3, 512), 1);
    for (int i = 0; i < 400; i++) {                        /* in truth 4 rows cost five times one */
        cost_observe(&c, 1, 3.0);
        cost_observe(&c, 4, 15.0);
    }
    ck_assert_double_eq_tol(cost_step(&c, 4) / cost_step(&c, 1), 5, 0.2);
    ck_assert_double_eq_tol(cost_step(&c, 1), 3, 0.6);
}
END_TEST

/* ---- The text stays what it is ---- */

enum { N_PROMPT = 20, N_OUT = 60, N_ROUND = 60, BANNED = 101 };

enum { RIGHT, FLAWED, NONSENSE, ENDING, FORBIDDEN, N_PREDICTED };

/* What the client predicts: the truth, or mistakes in it, nothing but them, ends of text, a token that the request bans.
 */
static int32_t predict(struct rnd *r, const int32_t *truth, int32_t n, int kind, int32_t *out)
{
    int32_t m = 0, n_eog, eog = tok_eog(eng->model.tok, &n_eog)[0];
    for (int32_t i = 0; i < n; i++) {
        int mistake = kind == FLAWED ? rnd_int(r, 0, 12) : kind == NONSENSE ? 0 : 9;
        if (kind >= ENDING && rnd_int(r, 0, 3) == 0)
            out[m++] = kind == ENDING ? eog : BANNED;
        if (mistake != 1) /* 1: left out */
            out[m++] = mistake == 0 ? rnd_int(r, 0, 255) : truth[i];
        if (mistake == 2)
            out[m++] = rnd_int(r, 0, 255);
    }
    return m;
}

static struct gen_params some_params(struct rnd *r, int round)
{
    static const char *const stop[] = {"e", "th"};
    static const struct logit_bias ban = {BANNED, -100};
    struct gen_params p = params(N_OUT);
    p.bias = &ban;
    p.n_bias = round % 2;
    p.has_seed = true;
    p.seed = (uint64_t)round;
    p.temperature = round % 3 ? 0.9f : 0;
    p.top_k = round % 4 ? 0 : 8;
    p.frequency_penalty = round % 5 ? 0 : 0.4f;
    p.repetition_penalty = round % 7 ? 1 : 1.3f;
    p.min_tokens = round % 6 ? 0 : rnd_int(r, 0, 30);
    p.ignore_eos = round % 2;
    p.n_logprobs = round % 3 == 1 ? 2 : 0;
    p.stop = stop;
    p.n_stop = round % 8 ? 0 : 2;
    return p;
}

static void ask_plain(const int32_t (*prompt)[N_PROMPT], const struct gen_params *all, struct heard **h)
{
    open_engine(512, 256, 64, 8);
    for (int i = 0; i < N_ROUND; i++) {
        struct gen_params p = all[i];
        p.decoding.strategy = DECODE_OFF;
        h[i] = ask(prompt[i], N_PROMPT, &p);
        finish(h[i]);
        ck_assert_int_eq(request_decoding(h[i]->r)->n_drafted, 0);
    }
    close_engine();
}

/* With right, half-right and wrong predictions, by themselves and in company, on small pools and batches. */
START_TEST(no_draft_changes_the_text)
{
    /* Draft models: none, the target itself, nearly the target, so that its second and third choices come true as well,
     * and one that knows nothing. On the fake all models are one. */
    static const struct {
        const char *backend;
        uint64_t draft_seed;
        float flaw;
        bool exits;
    } on[] = {{NULL, 0, 0, false}, {NULL, 1, 0, true},     {"ref", 0, 0, false}, {"ref", 1, .05f, false},
              {"ref", 2, 0, true}, {"cpu", 1, .05f, true}, {"cpu", 1, 0, false}, {"cpu", 2, 0, false},
              {NULL, 0, 0, true},  {"cpu", 0, 0, true}};
    struct rnd r = rnd_begin("no_draft_changes_the_text", 33);
    static int32_t prompt[N_ROUND][N_PROMPT], predicted[N_ROUND][2 * N_OUT];
    static struct gen_params all[N_ROUND];
    struct heard *plain[N_ROUND], *h[N_ROUND];
    if (on[_i].backend) /* each test has a process of its own */
        rig_ops = backend_find(on[_i].backend, NULL);
    if (on[_i].exits)
        rig_add_exit();
    if (on[_i].draft_seed)
        rig_add_draft(on[_i].draft_seed, on[_i].flaw);
    for (int i = 0; i < N_ROUND; i++) {
        all[i] = some_params(&r, i);
        random_prompt(&r, prompt[i], N_PROMPT);
    }
    ask_plain(prompt, all, plain);
    uint64_t n_moved = 0;
    static const struct {
        int32_t n_block, batch, seqs;
    } engine[] = {{256, 128, 1}, {256, 512, 32}, {20, 64, 16}, {256, 9, 8}};
    for (size_t k = 0; k < sizeof engine / sizeof *engine; k++) {
        open_engine(320, engine[k].n_block, engine[k].batch, engine[k].seqs);
        int64_t n_drafted = 0, n_accepted = 0;
        for (int i = 0; i < N_ROUND; i++) {
            struct gen_params p = all[i];
            p.prediction = predicted[i];
            p.n_prediction = predict(&r, plain[i]->tok[0], plain[i]->n_tok[0], i % N_PREDICTED, predicted[i]);
            p.decoding.strategy = i % 4 ? DECODE_SPECULATIVE : DECODE_AUTO;
            p.decoding.max_draft = i % 5 ? 0 : rnd_int(&r, 1, DRAFT_MAX);
            p.decoding.source = on[_i].draft_seed && i % 2   ? DRAFT_SOURCE_MODEL
                                : on[_i].exits && i % 4 != 0 ? DRAFT_SOURCE_EXIT
                                                             : DRAFT_SOURCE_AUTO;
            if (i % 7 == 3) {
                p.decoding.source = DRAFT_SOURCE_TRIGRAM;
                p.decoding.scope = i % 2 ? DRAFT_SCOPE_TENANT : DRAFT_SCOPE_REQUEST;
                p.cache_salt = i % 3 ? "one" : "two";
            } else if (i % 4 && i % 5 == 2) {
                p.decoding.source = DRAFT_SOURCE_COPY;
                p.decoding.fallback = on[_i].draft_seed ? DRAFT_SOURCE_MODEL
                                      : on[_i].exits    ? DRAFT_SOURCE_EXIT
                                                        : DRAFT_SOURCE_AUTO;
            } else if (p.decoding.source != DRAFT_SOURCE_AUTO && i % 3) {
                p.decoding.tree.nodes = rnd_int(&r, 1, DRAFT_MAX);
                p.decoding.tree.width = rnd_int(&r, 1, 8);
                p.decoding.tree.depth = rnd_int(&r, 1, 8);
            }
            h[i] = ask(prompt[i], N_PROMPT, &p);
        }
        for (int i = 0; i < N_ROUND; i++) {
            finish(h[i]);
            expect_same(plain[i], h[i]);
            const struct request_decoding *d = request_decoding(h[i]->r);
            ck_assert_int_le(d->n_accepted, d->n_drafted);
            n_drafted += d->n_drafted;
            n_accepted += d->n_accepted;
            forget(h[i]);
        }
        if (!on[_i].exits)                    /* random first layers know nothing, and the fake's are always wrong */
            ck_assert_int_gt(n_accepted, 30); /* the last engine has a row to spare now and then */
        ck_assert_int_gt(n_drafted, n_accepted);
        n_moved += eng->metrics.now.n_moved;
        close_engine();
    }
    if (on[_i].flaw > 0)
        ck_assert_uint_gt(n_moved, 100); /* branches came true */
    for (int i = 0; i < N_ROUND; i++)
        forget(plain[i]);
}
END_TEST

/* ---- Trigrams: whose text they know ---- */

static struct heard *ask_tenant(const int32_t *prompt, const struct gen_params *like, enum draft_scope scope,
                                const char *salt)
{
    struct gen_params p = *like;
    p.decoding =
        (struct decoding_params){.strategy = DECODE_SPECULATIVE, .source = DRAFT_SOURCE_TRIGRAM, .scope = scope};
    p.cache_salt = salt;
    return ask(prompt, N_PROMPT, &p);
}

/* A tenant's second round knows the first one's answers, and the text is what it was. */
START_TEST(what_a_tenant_learnt_does_not_change_the_text)
{
    static const char *const backend[] = {NULL, "ref", "cpu"};
    struct rnd r = rnd_begin("what_a_tenant_learnt_does_not_change_the_text", 37);
    static int32_t prompt[N_ROUND][N_PROMPT];
    static struct gen_params all[N_ROUND];
    struct heard *plain[N_ROUND], *h[N_ROUND];
    if (backend[_i])
        rig_ops = backend_find(backend[_i], NULL);
    for (int i = 0; i < N_ROUND; i++) {
        all[i] = some_params(&r, i);
        random_prompt(&r, prompt[i], N_PROMPT);
    }
    ask_plain(prompt, all, plain);
    open_engine(320, 128, 256, 12);
    uint64_t accepted[2];
    for (int again = 0; again < 2; again++) {
        accepted[again] = eng->metrics.now.n_accepted_by[DRAFT_SOURCE_TRIGRAM];
        for (int i = 0; i < N_ROUND; i++)
            h[i] = ask_tenant(prompt[i], &all[i], DRAFT_SCOPE_TENANT, i % 2 ? "one" : "two");
        for (int i = 0; i < N_ROUND; i++) {
            finish(h[i]);
            expect_same(plain[i], h[i]);
            forget(h[i]);
        }
        accepted[again] = eng->metrics.now.n_accepted_by[DRAFT_SOURCE_TRIGRAM] - accepted[again];
    }
    ck_assert_uint_gt(accepted[1], N_ROUND * N_OUT / 4);
    ck_assert_uint_gt(accepted[1], 2 * accepted[0]);
    ck_assert_uint_eq(eng->metrics.now.n_accepted_by[DRAFT_SOURCE_COPY], 0);
    close_engine();
    for (int i = 0; i < N_ROUND; i++)
        forget(plain[i]);
}
END_TEST

static int64_t accepted_of(const int32_t *prompt, enum draft_scope scope, const char *salt)
{
    struct gen_params p = params(N_OUT);
    struct heard *h = ask_tenant(prompt, &p, scope, salt);
    finish(h);
    int64_t n = request_decoding(h->r)->n_accepted;
    forget(h);
    return n;
}

/* The same question again: only those with its salt, who asked to share, draft what was answered. */
START_TEST(a_table_is_its_tenants_alone)
{
    enum { N_TABLE = 8, MANY = N_OUT / 2, FEW = N_OUT / 4 };
    struct rnd r = rnd_begin("a_table_is_its_tenants_alone", 38);
    int32_t prompt[N_PROMPT];
    random_prompt(&r, prompt, N_PROMPT);
    open_engine(512, 64, 512, 8);
    ck_assert_int_lt(accepted_of(prompt, DRAFT_SCOPE_TENANT, "tenant 0"), FEW);
    ck_assert_int_gt(accepted_of(prompt, DRAFT_SCOPE_TENANT, "tenant 0"), MANY);
    ck_assert_int_lt(accepted_of(prompt, DRAFT_SCOPE_REQUEST, "tenant 0"), FEW);
    ck_assert_int_lt(accepted_of(prompt, DRAFT_SCOPE_REQUEST, NULL), FEW);
    for (int i = 1; i <= N_TABLE; i++) { /* the last finds no table free, and learns for each request alone */
        char salt[16];
        snprintf(salt, sizeof salt, "tenant %d", i);
        ck_assert_int_lt(accepted_of(prompt, DRAFT_SCOPE_TENANT, salt), FEW);
        ck_assert(i == N_TABLE ? accepted_of(prompt, DRAFT_SCOPE_TENANT, salt) < FEW
                               : accepted_of(prompt, DRAFT_SCOPE_TENANT, salt) > MANY);
    }
    ck_assert_int_gt(accepted_of(prompt, DRAFT_SCOPE_TENANT, "tenant 0"), MANY);
    struct request *refused;
    struct err e = {0};
    struct gen_params p = params(N_OUT);
    p.decoding.scope = DRAFT_SCOPE_TENANT;
    ck_assert_int_eq(request_create(eng, prompt, N_PROMPT, &p, &rig_sink, NULL, &refused, &e), -ERR_INVALID);
    ck_assert_str_eq(e.field, "decoding.draft.scope");
    close_engine();
}
END_TEST

/* Where every row costs what a step costs, no guess pays for its row, and nobody searches unless asked by name. */
START_TEST(auto_does_not_search_where_it_cannot_pay)
{
    struct rnd r = rnd_begin("auto_does_not_search_where_it_cannot_pay", 39);
    int32_t prompt[N_PROMPT];
    random_prompt(&r, prompt, N_PROMPT);
    open_engine(512, 64, 512, 8);
    cost_init(&eng->target.cost);
    for (int32_t n = 1; n <= 64; n *= 2)
        cost_set(&eng->target.cost, n, n);
    struct gen_params p = params(N_OUT);
    struct heard *h = ask(prompt, N_PROMPT, &p);
    finish(h);
    ck_assert_uint_le(eng->metrics.now.n_trigram_search, 1); /* beside the prompt's rows one more is cheap */
    forget(h);
    h = ask_tenant(prompt, &p, DRAFT_SCOPE_REQUEST, NULL);
    finish(h);
    ck_assert_uint_gt(eng->metrics.now.n_trigram_search, N_OUT / 2);
    forget(h);
    close_engine();
}
END_TEST

/* A right prediction makes an answer of 60 tokens in a few steps. */
START_TEST(a_right_prediction_saves_steps)
{
    struct rnd r = rnd_begin("a_right_prediction_saves_steps", 34);
    int32_t prompt[N_PROMPT];
    random_prompt(&r, prompt, N_PROMPT);
    open_engine(512, 64, 512, 8);
    struct gen_params p = params(N_OUT);
    p.decoding.strategy = DECODE_OFF;
    struct heard *plain = ask(prompt, N_PROMPT, &p);
    finish(plain);
    p.decoding = (struct decoding_params){.strategy = DECODE_SPECULATIVE, .max_draft = 19};
    p.prediction = plain->tok[0];
    p.n_prediction = N_OUT;
    struct heard *h = ask(prompt, N_PROMPT, &p);
    finish(h);
    expect_same(plain, h);
    ck_assert_int_eq(request_decoding(plain->r)->n_step, N_OUT);
    ck_assert_int_le(request_decoding(h->r)->n_step, N_OUT / 20 + 1);
    struct request_usage u;
    request_usage(h->r, &u);
    ck_assert_int_eq(u.n_predicted_true, request_decoding(h->r)->n_accepted);
    forget(plain);
    forget(h);
    close_engine();
}
END_TEST

/* A draft model that knows what the target knows: six tokens a step, and none of its blocks are left behind. */
START_TEST(a_perfect_draft_model_saves_steps)
{
    struct rnd r = rnd_begin("a_perfect_draft_model_saves_steps", 35);
    int32_t prompt[N_PROMPT];
    random_prompt(&r, prompt, N_PROMPT);
    rig_add_draft(1, 0);
    open_engine(512, 64, 512, 8);
    for (int sampled = 0; sampled < 2; sampled++) {
        struct gen_params p = params(N_OUT);
        p.temperature = (float)sampled;
        p.has_seed = true;
        p.decoding.strategy = DECODE_OFF;
        struct heard *plain = ask(prompt, N_PROMPT, &p);
        finish(plain);
        p.decoding = (struct decoding_params){.strategy = DECODE_SPECULATIVE, .source = DRAFT_SOURCE_MODEL};
        struct heard *h = ask(prompt, N_PROMPT, &p);
        finish(h);
        expect_same(plain, h);
        ck_assert_int_eq(request_decoding(h->r)->n_step, N_OUT / 6);
        ck_assert_int_eq(request_decoding(h->r)->n_accepted, request_decoding(h->r)->n_drafted);
        forget(plain);
        forget(h);
    }
    close_engine();
}
END_TEST

/* ---- Verifiers by name keep the law ---- */

enum { N_FIRST = 3, SUPPORT = 3 };

static int n_draw(void)
{
    return suite_all_or(1000, 300);
}


/* How often each text of three tokens comes, over n_draw() seeds; a token is known by its place among `support`. */
static void count_texts(const int32_t *prompt, struct gen_params p, uint64_t seed0, int32_t *support, int32_t *count)
{
    memset(count, 0, sizeof *count * SUPPORT * SUPPORT * SUPPORT);
    for (int i = 0; i < n_draw(); i++) {
        p.seed = seed0 + (uint64_t)i;
        struct heard *h = ask(prompt, N_PROMPT, &p);
        finish(h);
        int32_t cell = 0;
        for (int k = 0; k < N_FIRST; k++) {
            int32_t c = 0, *known = support + cell * SUPPORT + k * SUPPORT * SUPPORT * SUPPORT;
            while (c < SUPPORT - 1 && known[c] >= 0 && known[c] != h->tok[0][k])
                c++;
            known[c] = h->tok[0][k];
            cell = cell * SUPPORT + c;
        }
        count[cell]++;
        forget(h);
    }
}

/* Two samples of one law: sum of (a - b)^2 / (a + b) is chi-square with a degree of freedom less than there are cells.
 */
static double chi_square(const int32_t *a, const int32_t *b, int32_t n, int32_t *n_cell)
{
    double sum = 0;
    *n_cell = 0;
    for (int32_t i = 0; i < n; i++)
        if (a[i] + b[i] > 0) {
            sum += (double)(a[i] - b[i]) * (a[i] - b[i]) / (a[i] + b[i]);
            (*n_cell)++;
        }
    return sum;
}

/* Above this with probability 1e-4 at most, for 8 to 26 degrees of freedom (Wilson and Hilferty). */
static double limit(int32_t df)
{
    double t = 2.0 / (9.0 * df);
    return df * pow(1 - t + 3.719 * sqrt(t), 3);
}

static const struct {
    enum decode_verify verify;
    int32_t nodes, width;
    enum decode_sampling sampling;
    float threshold;
} verified[] = {{DECODE_VERIFY_NAIVE, 0, 0, 0},
                {DECODE_VERIFY_BLOCK, 0, 0, 0},
                {DECODE_VERIFY_RRS, 12, 3, DECODE_SAMPLING_WOR},
                {DECODE_VERIFY_RRS, 12, 3, DECODE_SAMPLING_IID},
                {DECODE_VERIFY_KSEQ, 12, 3, DECODE_SAMPLING_IID},
                {DECODE_VERIFY_GREEDY, 12, 2, DECODE_SAMPLING_GREEDY},
                {DECODE_VERIFY_TRAVERSAL, 12, 3, DECODE_SAMPLING_AUTO},
                {DECODE_VERIFY_RRS, 12, 3, DECODE_SAMPLING_SBS},
                {DECODE_VERIFY_TRAVERSAL, 9, 2, DECODE_SAMPLING_SBS},
                {DECODE_VERIFY_RRS, 12, 0, DECODE_SAMPLING_DYSPEC},
                {DECODE_VERIFY_TRAVERSAL, 6, 0, DECODE_SAMPLING_DYSPEC},
                {DECODE_VERIFY_RRS, 12, 0, DECODE_SAMPLING_DYSPEC, .08f},
                {DECODE_VERIFY_TRAVERSAL, 6, 0, DECODE_SAMPLING_DYSPEC, .2f}};

/* What a verifier says of its tokens' probabilities is what reading the same text says, bit for bit. */
static void check_logprobs(const int32_t *prompt, struct gen_params p)
{
    struct gen_params score = params(0);
    int32_t text[N_PROMPT + N_OUT];
    p.max_tokens = N_OUT;
    p.n_logprobs = 2;
    score.n_prompt_logprobs = 0;
    struct heard *h = ask(prompt, N_PROMPT, &p);
    finish(h);
    ck_assert_int_eq(h->n_tok[0], N_OUT);
    ck_assert_int_gt(request_decoding(h->r)->n_accepted, 0);
    memcpy(text, prompt, sizeof *text * N_PROMPT);
    memcpy(text + N_PROMPT, h->tok[0], sizeof *text * N_OUT);
    struct heard *scored = ask(text, N_PROMPT + N_OUT, &score);
    finish(scored);
    for (int32_t i = 0; i < N_OUT; i++) {
        float logprob;
        int32_t rank, n_top;
        const struct top_logprob *top;
        request_prompt_logprob(scored->r, N_PROMPT + i, &logprob, &rank, &n_top, &top);
        ck_assert_msg(logprob == h->logprob[0][i], "token %d: %g, read %g", i, (double)h->logprob[0][i],
                      (double)logprob);
    }
    forget(scored);
    forget(h);
}

START_TEST(named_verifiers_keep_the_law)
{
    struct rnd r = rnd_begin("named_verifiers_keep_the_law", 36);
    static int32_t support[N_FIRST * SUPPORT * SUPPORT * SUPPORT], plain[SUPPORT * SUPPORT * SUPPORT],
        got[SUPPORT * SUPPORT * SUPPORT];
    int32_t prompt[N_PROMPT], n_cell;
    random_prompt(&r, prompt, N_PROMPT);
    rig_ops = backend_find("cpu", NULL);
    rig_add_draft(1, .3f);
    open_engine(512, 64, 512, 8);
    memset(support, 0xff, sizeof support);
    struct gen_params p = params(N_FIRST);
    p.temperature = 1.5f;
    p.top_k = SUPPORT;
    p.has_seed = true;
    p.decoding.strategy = DECODE_OFF;
    count_texts(prompt, p, 0, support, plain);
    count_texts(prompt, p, n_draw(), support, got);
    ck_assert_double_lt(chi_square(plain, got, SUPPORT * SUPPORT * SUPPORT, &n_cell), limit(n_cell - 1));
    ck_assert_int_ge(n_cell, 9);

    p.decoding = (struct decoding_params){.strategy = DECODE_SPECULATIVE, .source = DRAFT_SOURCE_MODEL};
    p.decoding.verify = verified[_i].verify;
    p.decoding.tree.nodes = verified[_i].nodes;
    p.decoding.tree.width = verified[_i].width;
    p.decoding.tree.sampling = verified[_i].sampling;
    p.decoding.tree.threshold = verified[_i].threshold;
    count_texts(prompt, p, 2 * n_draw(), support, got);
    double chi = chi_square(plain, got, SUPPORT * SUPPORT * SUPPORT, &n_cell);
    ck_assert_msg(chi < limit(n_cell - 1), "chi-square %g over %d cells, limit %g", chi, n_cell, limit(n_cell - 1));
    ck_assert_uint_gt(eng->metrics.now.n_accepted_tokens, n_draw() / 8);

    check_logprobs(prompt, p);

    p.temperature = .7f; /* a law that is a little different is told apart */
    p.decoding.verify = DECODE_VERIFY_AUTO;
    p.decoding.tree.sampling = DECODE_SAMPLING_AUTO;
    count_texts(prompt, p, 3 * n_draw(), support, got);
    ck_assert_double_gt(chi_square(plain, got, SUPPORT * SUPPORT * SUPPORT, &n_cell), limit(n_cell - 1));
    close_engine();
}
END_TEST

/* Two requests bring as many draws; the one whose draft model is sure of itself spends most of both. */
START_TEST(dyspec_trees_share_a_budget)
{
    enum { NODES = 6 };
    struct rnd r = rnd_begin("dyspec_trees_share_a_budget", 37);
    int32_t prompt[N_PROMPT];
    struct heard *h[2];
    random_prompt(&r, prompt, N_PROMPT);
    rig_ops = backend_find("cpu", NULL);
    rig_add_draft(1, 0);
    open_engine(512, 64, 512, 8);
    struct gen_params p = params(N_OUT);
    p.decoding = (struct decoding_params){
        .strategy = DECODE_SPECULATIVE, .source = DRAFT_SOURCE_MODEL, .verify = DECODE_VERIFY_RRS};
    p.decoding.tree.nodes = NODES;
    p.decoding.tree.depth = 16;
    p.decoding.tree.sampling = DECODE_SAMPLING_DYSPEC;
    for (int i = 0; i < 2; i++) {
        p.temperature = i ? .01f : 5; /* of the tiny model's flat logits */
        h[i] = ask(prompt, N_PROMPT, &p);
    }
    int64_t drafted = 0;
    bool both = true;
    while (both) {
        step();
        int64_t now = request_decoding(h[0]->r)->n_drafted + request_decoding(h[1]->r)->n_drafted;
        ck_assert_int_le(now - drafted, 2 * NODES);
        drafted = now;
        both = !h[0]->done && !h[1]->done;
    }
    double sure = (double)request_decoding(h[1]->r)->n_drafted / (double)request_decoding(h[1]->r)->n_step,
           unsure = (double)request_decoding(h[0]->r)->n_drafted / (double)request_decoding(h[0]->r)->n_step;
    ck_assert_msg(sure > NODES + 1 && unsure < NODES - 1, "%g nodes a step where sure, %g where not", sure, unsure);
    finish(h[0]);
    finish(h[1]);
    forget(h[0]);
    forget(h[1]);
    close_engine();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("drafts");
    tcase_add_checked_fixture(tc, rig_setup, rig_teardown);
    tcase_add_test(tc, finds_the_longest_and_most_recent);
    tcase_add_test(tc, the_papers_example);
    tcase_add_test(tc, an_edited_prediction_is_followed);
    tcase_add_test(tc, rows_go_where_they_are_worth_most);
    tcase_add_test(tc, the_cost_curve_follows_what_is_measured);
    tcase_add_loop_test(tc, no_draft_changes_the_text, 0, suite_all_or(10, 4));
    tcase_add_loop_test(tc, what_a_tenant_learnt_does_not_change_the_text, 0, 3);
    tcase_add_test(tc, a_table_is_its_tenants_alone);
    tcase_add_test(tc, auto_does_not_search_where_it_cannot_pay);
    tcase_add_test(tc, a_right_prediction_saves_steps);
    tcase_add_loop_test(tc, named_verifiers_keep_the_law, 0, (int)(sizeof verified / sizeof *verified));
    tcase_add_test(tc, dyspec_trees_share_a_budget);
    tcase_add_test(tc, a_perfect_draft_model_saves_steps);
    return suite_run(tc);
}
