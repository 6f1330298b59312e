/* A chain from several early exits (S2D, autoregressive.md section 13): where a shallow exit is unsure the next is
 * asked, and what it needs of the rows that left before is there. Its tests (d), token by token, and that no text
 * changes. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "engine_rig.h"
#include "random_plan.h"
#include "../suite.h"

enum { N_PROMPT = 20, N_OUT = 50, MAX_DRAFTED = 6 * N_OUT, N_EXIT = 3 };
static const int32_t exit_layer[N_EXIT] = {1, 2, 4};

static void open_with_exits(int backend)
{
    if (backend)
        rig_ops = backend_find(rig_backend[backend], NULL);
    rig_add_exits(5, exit_layer, N_EXIT);
    open_engine(256, 128, 64, 8);
}

static struct decoding_params from_exits(int32_t n, const int32_t *layer, const float *threshold)
{
    struct decoding_params d = {.strategy = DECODE_SPECULATIVE, .source = DRAFT_SOURCE_EXIT, .exits = {.n = n}};
    for (int32_t i = 0; i < n; i++) {
        d.exits.layer[i] = layer[i];
        d.exits.threshold[i] = threshold ? threshold[i] : 0;
    }
    return d;
}

struct drafted { /* what a request said, and every token that was drafted for it */
    struct heard *h;
    int32_t tok[MAX_DRAFTED], n, said[N_OUT], n_step; /* n_step: with drafts; said[]: tokens said before each */
    int32_t n_drafted[N_OUT];
};

static void draft(const int32_t *prompt, const struct gen_params *p, struct drafted *d)
{
    *d = (struct drafted){.h = ask(prompt, N_PROMPT, p)};
    const struct seq *s = &d->h->r->seq[0];
    for (int32_t n_text = 0; !d->h->done; step()) {
        const struct draft *now = &s->modelled;
        if (now->n == 0 || now->n_text == n_text)
            continue;
        n_text = now->n_text;
        ck_assert_int_le(d->n + now->n, MAX_DRAFTED);
        memcpy(d->tok + d->n, now->tok, sizeof *now->tok * (size_t)now->n);
        d->said[d->n_step] = now->n_text - N_PROMPT;
        d->n_drafted[d->n_step++] = now->n;
        d->n += now->n;
    }
}

static bool are_equal(const struct drafted *a, const struct drafted *b)
{
    return a->n == b->n && a->n_step == b->n_step && !memcmp(a->tok, b->tok, sizeof *a->tok * (size_t)a->n);
}

static struct gen_params some_params(int round)
{
    struct gen_params p = params(N_OUT);
    p.has_seed = true;
    p.seed = (uint64_t)round;
    p.temperature = round % 3 ? .8f : 0;
    p.frequency_penalty = round % 2 ? .5f : 0;
    p.n_logprobs = 0;
    return p;
}

/* Section 13 (d): thresholds (0, ., .) are the shallowest exit alone, (1, 1, 0) the deepest, (1, 0, .) the one between.
 */
START_TEST(thresholds_choose_the_exit)
{
    static const float threshold[N_EXIT][N_EXIT] = {{0, .3f, .3f}, {1, 0, .3f}, {1, 1, 0}};
    struct rnd r = rnd_begin("thresholds_choose_the_exit", 81);
    int32_t prompt[N_PROMPT];
    static struct drafted one[N_EXIT], of_all;
    open_with_exits(_i);
    for (int round = 0; round < 6; round++) {
        random_prompt(&r, prompt, N_PROMPT);
        struct gen_params p = some_params(round);
        p.decoding.strategy = DECODE_OFF;
        struct heard *plain = ask(prompt, N_PROMPT, &p);
        finish(plain);
        for (int i = 0; i < N_EXIT; i++) {
            p.decoding = from_exits(1, &exit_layer[i], NULL);
            draft(prompt, &p, &one[i]);
            p.decoding = from_exits(N_EXIT, exit_layer, threshold[i]);
            draft(prompt, &p, &of_all);
            ck_assert(are_equal(&one[i], &of_all));
            ck_assert_int_gt(of_all.n, N_OUT);
            expect_same(plain, one[i].h);
            expect_same(plain, of_all.h);
            ck_assert(i == 0 || !are_equal(&one[i - 1], &one[i]));
            forget(of_all.h);
        }
        for (int i = 0; i < N_EXIT; i++)
            forget(one[i].h);
        forget(plain);
    }
    close_engine();
}
END_TEST

struct place { /* of a drafted token: the text before it, and what the exits say there */
    int32_t text[N_PROMPT + 2 * N_OUT], n, tok, said[N_EXIT];
    double p[N_EXIT]; /* of said[] */
};

/* Every so many steps' drafted tokens. */
static int32_t places_of(const int32_t *prompt, const struct drafted *d, struct place *place)
{
    int32_t n = 0;
    for (int32_t i = 0, at = 0; i < d->n_step; at += d->n_drafted[i++])
        for (int32_t k = 0; k < d->n_drafted[i] && i % 4 == 0; k++) {
            struct place *to = &place[n++];
            to->n = N_PROMPT + d->said[i] + k;
            to->tok = d->tok[at + k];
            memcpy(to->text, prompt, sizeof *prompt * N_PROMPT);
            memcpy(to->text + N_PROMPT, d->h->tok[0], sizeof *prompt * (size_t)d->said[i]);
            if (k)
                memcpy(to->text + to->n - k, d->tok + at, sizeof *prompt * (size_t)k);
        }
    return n;
}

/* A model of the first layers alone, which has the same weights, says what leaving after them says. */
static void ask_first_layers(int e, struct place *place, int32_t n)
{
    struct gen_params p = params(1);
    p.n_logprobs = 0;
    rig_add_exits(exit_layer[e], NULL, 0);
    open_engine(256, 128, 64, 8);
    for (int32_t i = 0; i < n; i++) {
        struct heard *h = ask(place[i].text, place[i].n, &p);
        finish(h);
        place[i].said[e] = h->tok[0][0];
        place[i].p[e] = exp((double)h->logprob[0][0]);
        forget(h);
    }
    close_engine();
}

/* Between those: every drafted token is that of the first exit that is sure behind the text and the drafts before it,
 * else of the last; and each is asked and used. */
START_TEST(each_token_is_of_the_first_exit_that_is_sure)
{
    enum { N_ROUND = 4 };
    static const float threshold[N_EXIT] = {.12f, .2f, 0};
    struct rnd r = rnd_begin("each_token_is_of_the_first_exit_that_is_sure", 82);
    int32_t prompt[N_PROMPT], n = 0, n_of[N_EXIT] = {0};
    static struct drafted d;
    static struct place place[N_ROUND * MAX_DRAFTED];
    open_with_exits(_i);
    for (int round = 0; round < N_ROUND; round++) {
        random_prompt(&r, prompt, N_PROMPT);
        struct gen_params p = params(N_OUT);
        p.decoding = from_exits(N_EXIT, exit_layer, threshold);
        draft(prompt, &p, &d);
        n += places_of(prompt, &d, place + n);
        forget(d.h);
    }
    close_engine();
    for (int e = 0; e < N_EXIT; e++)
        ask_first_layers(e, place, n);
    for (int32_t i = 0; i < n; i++) {
        int e = 0;
        while (e + 1 < N_EXIT && place[i].p[e] <= (double)threshold[e])
            e++;
        ck_assert_int_eq(place[i].tok, place[i].said[e]);
        n_of[e]++;
    }
    for (int e = 0; e < N_EXIT; e++)
        ck_assert_msg(n_of[e] > 5, "%d from exit %d of %d", n_of[e], e, n);
}
END_TEST

/* The last exit's threshold ends the chain; at 1 no exit is ever sure, and nothing is drafted. */
START_TEST(an_unsure_last_exit_ends_the_chain)
{
    struct rnd r = rnd_begin("an_unsure_last_exit_ends_the_chain", 83);
    int32_t prompt[N_PROMPT];
    int64_t before = INT64_MAX;
    open_with_exits(_i);
    random_prompt(&r, prompt, N_PROMPT);
    for (int i = 0; i < 3; i++) {
        const float last[] = {0, .1f, 1}, threshold[N_EXIT] = {1, 1, last[i]};
        struct gen_params p = some_params(0);
        p.decoding = from_exits(N_EXIT, exit_layer, threshold);
        struct heard *h = ask(prompt, N_PROMPT, &p);
        finish(h);
        ck_assert_int_lt(request_decoding(h->r)->n_drafted, before);
        before = request_decoding(h->r)->n_drafted;
        forget(h);
    }
    ck_assert_int_eq(before, 0);
    close_engine();
}
END_TEST

/* All kinds of thresholds, and some named verifiers, in one batch, preempted as well. */
START_TEST(no_exit_changes_the_text)
{
    enum { N_ROUND = 36 };
    static const struct {
        int32_t n_block, batch, seqs;
    } engine[] = {{256, 128, 16}, {18, 40, 16}, {64, 9, 8}};
    struct rnd r = rnd_begin("no_exit_changes_the_text", 84);
    static int32_t prompt[N_ROUND][N_PROMPT];
    struct heard *plain[N_ROUND], *h[N_ROUND];
    uint64_t n_preempted = 0;
    open_with_exits(_i);
    for (int i = 0; i < N_ROUND; i++) {
        struct gen_params p = some_params(i);
        p.decoding.strategy = DECODE_OFF;
        random_prompt(&r, prompt[i], N_PROMPT);
        plain[i] = ask(prompt[i], N_PROMPT, &p);
        finish(plain[i]);
    }
    close_engine();
    for (size_t k = 0; k < sizeof engine / sizeof *engine; k++) {
        open_engine(128, engine[k].n_block, engine[k].batch, engine[k].seqs);
        for (int i = 0; i < N_ROUND; i++) {
            struct gen_params p = some_params(i);
            int32_t from = rnd_int(&r, 0, N_EXIT - 1);
            float threshold[N_EXIT];
            for (int e = 0; e < N_EXIT; e++)
                threshold[e] = (float)rnd_int(&r, 0, 6) * .05f;
            p.decoding = from_exits(N_EXIT - from, exit_layer + from, threshold);
            p.decoding.max_draft = i % 3 ? 0 : rnd_int(&r, 1, 12);
            if (i % 5 == 0) { /* its own text depends on its drafts */
                p.decoding.verify = DECODE_VERIFY_BLOCK;
                p.temperature = 1;
            }
            h[i] = ask(prompt[i], N_PROMPT, &p);
        }
        for (int i = 0; i < N_ROUND; i++) {
            finish(h[i]);
            if (i % 5)
                expect_same(plain[i], h[i]);
            forget(h[i]);
        }
        n_preempted += eng->metrics.now.n_preempted;
        close_engine();
    }
    ck_assert_uint_gt(n_preempted, 5);
    for (int i = 0; i < N_ROUND; i++)
        forget(plain[i]);
}
END_TEST

static void refused(const struct decoding_params *d, const char *field)
{
    struct err e = {0};
    struct request *r;
    struct gen_params p = params(N_OUT);
    p.decoding = *d;
    ck_assert_int_eq(request_create(eng, exit_layer, N_EXIT, &p, &rig_sink, NULL, &r, &e), -ERR_INVALID);
    ck_assert_str_eq(e.field, field);
}

START_TEST(bad_exits_are_refused)
{
    const int32_t unnamed[] = {1, 3}, falling[] = {4, 2};
    const float high[] = {.5f, 1.5f};
    open_with_exits(0);
    struct decoding_params d = from_exits(2, unnamed, NULL);
    refused(&d, "decoding.draft.exits");
    d = from_exits(2, falling, NULL);
    refused(&d, "decoding.draft.exits");
    d = from_exits(2, exit_layer, high);
    refused(&d, "decoding.draft.thresholds");
    d = from_exits(2, exit_layer, NULL);
    d.tree.nodes = 8;
    refused(&d, "decoding.draft.exits");
    d.tree.nodes = 0;
    d.source = DRAFT_SOURCE_COPY;
    refused(&d, "decoding.draft.exits");
    d.strategy = DECODE_AUTO;
    d.source = DRAFT_SOURCE_EXIT;
    refused(&d, "decoding.draft.exits");
    close_engine();
}
END_TEST

/* Files that name exits which are none. */
START_TEST(bad_layers_are_refused)
{
    static const int32_t layer[][2] = {{0, 1}, {2, 2}, {3, 1}, {1, 5}, {-1, 2}};
    for (size_t i = 0; i < sizeof layer / sizeof *layer; i++) {
        struct err e = {0};
        rig_add_exits(5, layer[i], 2);
        ck_assert_int_eq(rig_open_error(&e), -ERR_FORMAT);
        ck_assert(strstr(e.msg, "galley.early_exit_layers"));
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("exits");
    tcase_add_checked_fixture(tc, rig_setup, rig_teardown);
    tcase_add_loop_test(tc, thresholds_choose_the_exit, 0, 3);
    tcase_add_loop_test(tc, each_token_is_of_the_first_exit_that_is_sure, 1, 3); /* the fake has no layers */
    tcase_add_loop_test(tc, an_unsure_last_exit_ends_the_chain, 1, 3);
    tcase_add_loop_test(tc, no_exit_changes_the_text, 0, 3);
    tcase_add_test(tc, bad_exits_are_refused);
    tcase_add_test(tc, bad_layers_are_refused);
    return suite_run(tc);
}
