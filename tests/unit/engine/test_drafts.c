/* Above all: no draft, good or bad, changes what a request says. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine_rig.h"
#include "random_plan.h"
#include "../suite.h"

enum { N_PROMPT = 20, N_OUT = 60, N_ROUND = 60, BANNED = 101 };

enum { RIGHT, FLAWED, NONSENSE, ENDING, FORBIDDEN, N_PREDICTED };

/* What the client predicts: the truth, or mistakes in it, nothing but them, ends of text, a token that the request
 * bans.
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
    static const float threshold[] = {0, .01f, .1f, .5f, 1};
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
            bool is_chain = p.decoding.source == DRAFT_SOURCE_MODEL || p.decoding.source == DRAFT_SOURCE_EXIT ||
                            p.decoding.fallback != DRAFT_SOURCE_AUTO;
            if (p.decoding.strategy == DECODE_SPECULATIVE && is_chain && p.decoding.tree.nodes == 0)
                p.decoding.threshold = threshold[rnd_int(&r, 0, 4)];
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
    ck_assert_uint_eq(eng->metrics.now.n_trigram_search, 0);
    forget(h);
    h = ask_tenant(prompt, &p, DRAFT_SCOPE_REQUEST, NULL);
    finish(h);
    ck_assert_uint_gt(eng->metrics.now.n_trigram_search, N_OUT / 2);
    forget(h);
    close_engine();
}
END_TEST

/* ---- What `auto` can afford ---- */

/* A step's rows cost `row` steps each beside the first, and asking the draft model next to nothing, whatever the fake
 * took. */
static void set_costs(double row)
{
    cost_init(&eng->target.cost);
    cost_init(&eng->draft.cost);
    for (int32_t n = 1; n <= 64; n *= 2) {
        cost_set(&eng->target.cost, n, 1 + row * (n - 1));
        cost_set(&eng->draft.cost, n, 1e-3);
    }
}

static const enum draft_source any_source[] = {DRAFT_SOURCE_COPY, DRAFT_SOURCE_MODEL, DRAFT_SOURCE_EXIT,
                                               DRAFT_SOURCE_TRIGRAM};

static void set_credit(double steps)
{
    for (size_t i = 0; i < sizeof any_source / sizeof *any_source; i++)
        eng->ledger.credit[any_source[i]] = steps;
}

/* Drafted tokens of an answer; each step has costs as set_costs, and accounts that hold `credit`, 0: what is left. */
static int64_t drafted_at(const int32_t *prompt, const struct gen_params *p, double row, double credit)
{
    struct heard *h = ask(prompt, N_PROMPT, p);
    while (!h->done) {
        set_costs(row);
        if (credit != 0)
            set_credit(credit);
        step();
    }
    int64_t n = request_decoding(h->r)->n_drafted;
    forget(h);
    return n;
}

/* Nothing is asked that cannot be afforded, unless it is named; and the text is the same. */
START_TEST(who_is_overdrawn_is_not_asked)
{
    struct rnd r = rnd_begin("who_is_overdrawn_is_not_asked", 72);
    int32_t prompt[N_PROMPT];
    random_prompt(&r, prompt, N_PROMPT);
    rig_add_draft(1, 0);
    open_engine(512, 64, 512, 8);
    struct gen_params p = params(N_OUT);
    ck_assert_int_gt(drafted_at(prompt, &p, .01, 100), N_OUT / 2);
    struct engine_metrics before = eng->metrics.now;
    ck_assert_int_eq(drafted_at(prompt, &p, .01, -1), 0);
    ck_assert_uint_eq(eng->metrics.now.n_trigram_search, before.n_trigram_search);
    for (size_t i = 0; i < sizeof any_source / sizeof *any_source; i++)
        ck_assert_double_eq(eng->metrics.now.auto_asking_s[any_source[i]], before.auto_asking_s[any_source[i]]);
    p.decoding = (struct decoding_params){.strategy = DECODE_SPECULATIVE, .source = DRAFT_SOURCE_MODEL};
    ck_assert_int_gt(drafted_at(prompt, &p, .01, -1), N_OUT / 2);
    ck_assert_double_eq(eng->metrics.now.auto_asking_s[DRAFT_SOURCE_MODEL],
                        before.auto_asking_s[DRAFT_SOURCE_MODEL]); /* what is named is not on the account */
    close_engine();
}
END_TEST

/* A draft model that was never right, and is from now on: it is tried again, and then used. Where it cannot be afforded
 * it is not. */
START_TEST(a_model_that_begins_to_pay_is_noticed)
{
    struct rnd r = rnd_begin("a_model_that_begins_to_pay_is_noticed", 73);
    enum { N_ANSWER = 20 };
    int32_t prompt[N_PROMPT];
    rig_add_draft(1, 0);
    for (int poor = 0; poor < 2; poor++) {
        open_engine(512, 64, 512, 8);
        struct gen_params p = params(N_OUT);
        int64_t first = 0, last = 0;
        for (int32_t c = 0; c < N_GUESS_CLASS; c++)
            eng->drafter[DRAFTER_MODEL].rates.first.seen[c] = 60;
        for (int32_t i = 0; i < N_ANSWER; i++) {
            random_prompt(&r, prompt, N_PROMPT);
            uint64_t before = eng->metrics.now.n_drafted_by[DRAFT_SOURCE_MODEL];
            drafted_at(prompt, &p, .3, poor ? -1 : 0);
            int64_t n = (int64_t)(eng->metrics.now.n_drafted_by[DRAFT_SOURCE_MODEL] - before);
            first += i < 2 ? n : 0;
            last = n;
        }
        ck_assert_int_eq(first, 0);
        ck_assert(poor ? last == 0 : last > N_OUT / 4);
        close_engine();
    }
}
END_TEST

/* Where drafts pay in every step, what a step without them takes would never be seen again. */
START_TEST(now_and_then_a_step_is_plain)
{
    struct rnd r = rnd_begin("now_and_then_a_step_is_plain", 74);
    enum { N_ANSWER = 20, NEVER = 1 << 20 };
    int32_t prompt[N_PROMPT];
    uint64_t n_plain[2];
    rig_add_draft(1, 0);
    for (int never = 0; never < 2; never++) {
        open_engine(512, 64, 512, 8);
        struct gen_params p = params(N_OUT);
        if (never)
            eng->plain_every = NEVER;
        for (int32_t i = 0; i < N_ANSWER; i++) {
            random_prompt(&r, prompt, N_PROMPT);
            drafted_at(prompt, &p, .3, 100);
            eng->n_since_plain += never ? 0 : N_OUT; /* an answer's last step may well have no draft */
        }
        n_plain[never] = eng->metrics.now.n_auto_step[DRAFT_SOURCE_AUTO];
        close_engine();
    }
    ck_assert_uint_ge(n_plain[0], n_plain[1] + N_ANSWER / 4);
}
END_TEST

/* The curve says that no row can pay, however sure its token is, and it is wrong: a row is bought to see, and what it
 * took is seen. Where tokens are unlikely none is. */
START_TEST(rows_that_seem_too_dear_are_tried)
{
    struct rnd r = rnd_begin("rows_that_seem_too_dear_are_tried", 75);
    enum { N_ANSWER = 8 };
    int32_t prompt[N_PROMPT];
    random_prompt(&r, prompt, N_PROMPT);
    for (int likely = 0; likely < 2; likely++) {
        open_engine(512, 64, 512, 8);
        struct gen_params p = params(N_OUT);
        struct heard *h = ask_and_finish(prompt, N_PROMPT, &p);
        int32_t other[N_OUT];
        random_prompt(&r, other, N_OUT);
        p.prediction = likely ? h->tok[0] : other;
        p.n_prediction = N_OUT;
        int64_t n = 0;
        eng->ledger.n_passed[DRAFT_SOURCE_AUTO] = 0;
        for (int32_t i = 0; i < N_ANSWER; i++)
            n += drafted_at(prompt, &p, 2, 0);
        ck_assert(likely ? n >= 1 && n <= 7 * (N_ANSWER * N_OUT / LEDGER_TRY + 1) : n == 0);
        forget(h);
        close_engine();
    }
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

/* The drafted tokens that a drafter which knows what the target knows is sure of, at most `max` a step, and the steps.
 */
static int64_t sure_drafts(const struct heard *plain, float threshold, int32_t max, int64_t *n_step)
{
    int64_t n_drafted = 0;
    *n_step = 0;
    for (int32_t at = 0; at < N_OUT; at++, ++*n_step) /* the last token of a step is the target's */
        for (int32_t n = 0; n < max && at < N_OUT - 1 && exp((double)plain->logprob[0][at]) >= threshold; n++, at++)
            n_drafted++;
    return n_drafted;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* A chain has exactly the tokens before the first that its drafter gives less than the threshold. */
START_TEST(a_chain_ends_where_its_drafter_is_unsure)
{
    struct rnd r = rnd_begin("a_chain_ends_where_its_drafter_is_unsure", 40);
    enum { N_THRESHOLD = 5, MAX = 5 };
    int32_t prompt[N_PROMPT];
    float sorted[N_OUT];
    random_prompt(&r, prompt, N_PROMPT);
    rig_ops = backend_find("cpu", NULL);
    rig_add_draft(1, 0);
    open_engine(512, 64, 512, 8);
    for (int sampled = 0; sampled < 2; sampled++) {
        struct gen_params p = params(N_OUT);
        p.temperature = (float)sampled;
        p.has_seed = true;
        p.n_logprobs = 0;
        p.decoding.strategy = DECODE_OFF;
        struct heard *plain = ask(prompt, N_PROMPT, &p);
        finish(plain);
        memcpy(sorted, plain->logprob[0], sizeof sorted);
        qsort(sorted, N_OUT, sizeof *sorted, by_value);
        int64_t before = -1;
        for (int i = 0; i < N_THRESHOLD; i++) { /* between two probabilities that occur; 0; 1 */
            int32_t k = i * N_OUT / (N_THRESHOLD - 1);
            float threshold = i == 0                 ? 0
                              : i == N_THRESHOLD - 1 ? 1
                                                     : (float)(exp((double)sorted[k - 1]) + exp((double)sorted[k])) / 2;
            int64_t n_step, n_drafted = sure_drafts(plain, threshold, MAX, &n_step);
            p.decoding = (struct decoding_params){
                .strategy = DECODE_SPECULATIVE, .source = DRAFT_SOURCE_MODEL, .threshold = threshold};
            struct heard *h = ask(prompt, N_PROMPT, &p);
            finish(h);
            expect_same(plain, h);
            if (!sampled) { /* what is sampled may not be among the likeliest that a drafter ranks */
                ck_assert_int_eq(request_decoding(h->r)->n_drafted, n_drafted);
                ck_assert_int_eq(request_decoding(h->r)->n_accepted, n_drafted);
                ck_assert_int_eq(request_decoding(h->r)->n_step, n_step);
            }
            n_drafted = request_decoding(h->r)->n_drafted;
            ck_assert(before < 0 || n_drafted < before + sampled);
            before = n_drafted;
            forget(h);
        }
        ck_assert_int_eq(before, 0); /* of nothing was the drafter certain */
        forget(plain);
    }
    close_engine();
}
END_TEST

/* Where the law leaves one token, the drafter is certain of it: a threshold of 1 drafts what none does. */
START_TEST(a_threshold_of_one_drafts_what_is_certain)
{
    struct rnd r = rnd_begin("a_threshold_of_one_drafts_what_is_certain", 41);
    static const char *const backend[] = {NULL, "ref", "cpu"};
    int32_t prompt[N_PROMPT];
    random_prompt(&r, prompt, N_PROMPT);
    if (backend[_i])
        rig_ops = backend_find(backend[_i], NULL);
    rig_add_draft(1, 0);
    open_engine(512, 64, 512, 8);
    struct gen_params p = params(N_OUT);
    p.temperature = .7f;
    p.top_k = 1;
    p.decoding = (struct decoding_params){.strategy = DECODE_SPECULATIVE, .source = DRAFT_SOURCE_MODEL, .threshold = 1};
    struct heard *h = ask(prompt, N_PROMPT, &p);
    finish(h);
    ck_assert_int_eq(request_decoding(h->r)->n_step, N_OUT / 6);
    forget(h);
    p.top_k = 2;
    h = ask(prompt, N_PROMPT, &p);
    finish(h);
    ck_assert_int_eq(request_decoding(h->r)->n_drafted, 0);
    forget(h);
    close_engine();
}
END_TEST

static void refused(const struct decoding_params *d, float temperature)
{
    struct err e = {0};
    struct request *r;
    struct gen_params p = params(N_OUT);
    p.decoding = *d;
    p.temperature = temperature;
    ck_assert_int_eq(request_create(eng, (int32_t[]){1, 2}, 2, &p, &rig_sink, NULL, &r, &e), -ERR_INVALID);
    ck_assert_str_eq(e.field, "decoding.draft.threshold");
}

START_TEST(thresholds_of_what_is_no_chain_are_refused)
{
    rig_add_draft(1, 0);
    open_engine(64, 16, 32, 8);
    struct decoding_params d = {.strategy = DECODE_SPECULATIVE, .source = DRAFT_SOURCE_MODEL, .threshold = 1.5f};
    refused(&d, 0);
    d.threshold = -1;
    refused(&d, 0);
    d.threshold = .5f;
    d.verify = DECODE_VERIFY_BLOCK;
    refused(&d, 1);
    d.verify = DECODE_VERIFY_AUTO;
    d.tree.nodes = 8;
    refused(&d, 0);
    d.tree.nodes = 0;
    d.source = DRAFT_SOURCE_COPY;
    refused(&d, 0);
    d.source = DRAFT_SOURCE_TRIGRAM;
    refused(&d, 0);
    d.source = DRAFT_SOURCE_AUTO;
    d.strategy = DECODE_AUTO;
    refused(&d, 0);
    close_engine();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("drafts");
    tcase_add_checked_fixture(tc, rig_setup, rig_teardown);
    tcase_add_loop_test(tc, no_draft_changes_the_text, 0, suite_all_or(10, 4));
    tcase_add_loop_test(tc, what_a_tenant_learnt_does_not_change_the_text, 0, 3);
    tcase_add_test(tc, a_table_is_its_tenants_alone);
    tcase_add_test(tc, auto_does_not_search_where_it_cannot_pay);
    tcase_add_test(tc, who_is_overdrawn_is_not_asked);
    tcase_add_test(tc, a_model_that_begins_to_pay_is_noticed);
    tcase_add_test(tc, now_and_then_a_step_is_plain);
    tcase_add_test(tc, rows_that_seem_too_dear_are_tried);
    tcase_add_test(tc, a_right_prediction_saves_steps);
    tcase_add_test(tc, a_perfect_draft_model_saves_steps);
    tcase_add_test(tc, a_chain_ends_where_its_drafter_is_unsure);
    tcase_add_loop_test(tc, a_threshold_of_one_drafts_what_is_certain, 0, 3);
    tcase_add_test(tc, thresholds_of_what_is_no_chain_are_refused);
    return suite_run(tc);
}
