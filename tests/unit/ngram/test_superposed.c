/* engine/ngram/superposed.c against the section's hand check and a plain enumeration of all candidates. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ngram/superposed.h"
#include "ngram_rig.h"
#include "../suite.h"

static char path[256];

static void setup(void)
{
    rig_path(path, "superposed");
}

static void teardown(void)
{
    unlink(path);
}

static struct ngram *store_of(const struct text *t, int32_t n_vocab, int32_t max_n, uint32_t min_count)
{
    struct ngram_write_options o = {.n_vocab = n_vocab, .max_n = max_n, .min_count = min_count};
    struct ngram_header h;
    struct ngram *g;
    struct err e = {0};
    ck_assert_msg(!rig_write(path, t, &o, 1 << 20, &h, &e), "%s", e.msg);
    ck_assert_msg(!ngram_open(&g, path, NULL, &e), "%s", e.msg);
    return g;
}

/* ---- by hand ---- */

/* 7 is followed by 1 and by 2, once each; 9 by 1 alone. */
static struct ngram *small_store(void)
{
    struct text t = {0};
    text_add(&t, (const int32_t[]){7, 1}, 2);
    text_add(&t, (const int32_t[]){7, 2}, 2);
    text_add(&t, (const int32_t[]){9, 1}, 2);
    struct ngram *g = store_of(&t, 10, 2, 1);
    text_free(&t);
    return g;
}

START_TEST(the_hand_check_of_the_section)
{
    struct ngram *g = small_store();
    struct superposed_params p = {.n_draft = 2, .alpha = .5, .tau = 1, .lambda = {1}, .penalty = 200};
    struct superposed_top top = {
        .n = 2, .tok = (const int32_t[]){1, 2}, .logprob = (const float[]){logf(.7f), logf(.3f)}};
    struct superposed_draft prompt = {.tok = (const int32_t[]){7}, .n = 1};
    struct superposed_step s;
    superposed_step(&p, g, &top, &prompt, 1, &s);
    ck_assert_int_eq(s.n_alive, 2);
    ck_assert_int_eq(s.n_finished, 0);
    ck_assert_double_eq_tol(s.alive[0].score, .5 * log(.35), 1e-7);
    ck_assert_double_eq_tol(s.alive[1].score, .5 * log(.15), 1e-7);
    ck_assert(s.alive[0].tok == 1 && s.alive[1].tok == 2 && s.alive[1].at == 1);
    ck_assert_double_eq_tol(s.weight[0], sqrt(.35) / (sqrt(.35) + sqrt(.15)), 1e-7);
    ck_assert_double_eq_tol(s.weight[0] + s.weight[1], 1, 1e-15);
    ngram_close(g);
}
END_TEST

START_TEST(what_no_ngram_foresees)
{
    struct ngram *g = small_store();
    struct superposed_params p = {.n_draft = 3, .alpha = .5, .tau = 1, .lambda = {1}, .penalty = 200};
    struct superposed_top top = {
        .n = 3, .tok = (const int32_t[]){3, 1, 2}, .logprob = (const float[]){logf(.5f), logf(.3f), logf(.2f)}};
    struct superposed_draft nine = {.tok = (const int32_t[]){7, 9}, .n = 2},
                            unknown = {.tok = (const int32_t[]){4}, .n = 1, .score = -1};
    struct superposed_step s;
    /* Only 1 follows 9; the others make up the number, behind it, likeliest first. */
    superposed_step(&p, g, &top, &nine, 1, &s);
    ck_assert_int_eq(s.n_alive, 3);
    ck_assert(s.alive[0].tok == 1 && s.alive[1].tok == 3 && s.alive[2].tok == 2);
    ck_assert_double_eq_tol(s.alive[0].score, .5 * log(.3), 1e-7);
    ck_assert_double_eq_tol(s.alive[1].score, .5 * log(.5) - 200, 1e-6);
    /* They end nothing, though what is foreseen does. */
    top.is_end = (const bool[]){true, false, false};
    superposed_step(&p, g, &top, &nine, 1, &s);
    ck_assert(s.n_alive == 2 && s.n_finished == 0);
    top.is_end = (const bool[]){false, true, false};
    superposed_step(&p, g, &top, &nine, 1, &s);
    ck_assert(s.n_alive == 2 && s.n_finished == 1 && s.finished[0].tok == 1);
    /* Where nothing is foreseen, all of it counts as finite. */
    top.is_end = (const bool[]){true, false, false};
    superposed_step(&p, g, &top, &unknown, 1, &s);
    ck_assert(s.n_alive == 2 && s.n_finished == 1 && s.finished[0].tok == 3);
    ck_assert_double_eq_tol(s.finished[0].score, -1 + .5 * log(.5) - 200, 1e-6);
    superposed_step(&p, NULL, &top, &unknown, 1, &s); /* no store: the same */
    ck_assert(s.n_alive == 2 && s.alive[0].tok == 1);
    ck_assert_double_eq_tol(s.alive[0].score, -1 + .5 * log(.3) - 200, 1e-6);
    /* Everything ends. */
    top.is_end = (const bool[]){true, true, true};
    superposed_step(&p, NULL, &top, &unknown, 1, &s);
    ck_assert(s.n_alive == 0 && s.n_finished == 3);
    ngram_close(g);
}
END_TEST

START_TEST(impossible_tokens_are_never_chosen)
{
    struct superposed_params p;
    superposed_params_init(&p);
    p.alpha = 0;
    p.n_draft = 4;
    struct superposed_top top = {
        .n = 4, .tok = (const int32_t[]){5, 6, 7, 8}, .logprob = (const float[]){-INFINITY, -2, NAN, -3}};
    struct superposed_draft prompt = {0};
    struct superposed_step s;
    superposed_step(&p, NULL, &top, &prompt, 1, &s);
    ck_assert_int_eq(s.n_alive, 2);
    ck_assert(s.alive[0].tok == 6 && s.alive[1].tok == 8);
    /* The differences are what tau sharpens; a common constant is nothing. */
    ck_assert_double_eq_tol(s.alive[0].score - s.alive[1].score, 1 / .06, 1e-9);
    ck_assert_double_eq_tol(s.alive[0].score, -log1p(exp(-1 / .06)), 1e-12);
    top.logprob = (const float[]){-INFINITY, NAN, NAN, INFINITY};
    superposed_step(&p, NULL, &top, &prompt, 1, &s);
    ck_assert(s.n_alive == 0 && s.n_finished == 0);
}
END_TEST

START_TEST(ties_go_to_the_lower_draft_then_place)
{
    struct superposed_params p = {.n_draft = 3, .alpha = 0, .tau = 1, .penalty = 200};
    struct superposed_top top = {
        .n = 4, .tok = (const int32_t[]){40, 30, 20, 10}, .logprob = (const float[]){-1, -1, -1, -1}};
    struct superposed_draft from[3] = {{.score = -2}, {.score = -1}, {.score = -1}};
    struct superposed_step s;
    superposed_step(&p, NULL, &top, from, 3, &s);
    for (int32_t i = 0; i < 3; i++)
        ck_assert(s.alive[i].parent == 1 && s.alive[i].at == i && s.alive[i].tok == 40 - 10 * i);
    for (int32_t i = 0; i < 3; i++)
        ck_assert_double_eq_tol(s.weight[i], 1. / 3, 1e-15);
    p.n_draft = 6;
    superposed_step(&p, NULL, &top, from, 3, &s);
    ck_assert(s.alive[3].parent == 1 && s.alive[3].at == 3);
    ck_assert(s.alive[4].parent == 2 && s.alive[4].at == 0);
}
END_TEST

START_TEST(one_draft_without_ngrams_is_greedy)
{
    struct rnd r = rnd_begin("one_draft_without_ngrams_is_greedy", 7);
    struct superposed_params p;
    superposed_params_init(&p);
    p.alpha = 0;
    p.n_draft = 1;
    double score = 0;
    for (int step = 0; step < 1000; step++) {
        int32_t tok[9], best = 0;
        float logprob[9];
        for (int32_t v = 0; v < 9; v++) {
            tok[v] = rnd_int(&r, 0, 1000);
            logprob[v] = rnd_int(&r, 0, 3) ? rnd_normal(&r) : -.5f;
            best = logprob[v] > logprob[best] ? v : best;
        }
        struct superposed_top top = {.n = 9, .tok = tok, .logprob = logprob};
        struct superposed_draft from = {.score = score};
        struct superposed_step s;
        superposed_step(&p, NULL, &top, &from, 1, &s);
        ck_assert(s.n_alive == 1 && s.alive[0].at == best && s.alive[0].tok == tok[best] && s.weight[0] == 1);
        score = s.alive[0].score;
    }
    ck_assert_double_le(score, 0);
}
END_TEST

/* ---- every candidate, plainly ---- */

struct plain {
    int flat, parent, at;
    double score;
    bool finite;
};

/* The two ways of adding up round differently. Ties are exact in the inputs that have any: shares of n-grams that come
 * in another order in two drafts would make ties that rounding decides, so those drafts differ in probability too. */
static int plain_cmp(const void *a, const void *b)
{
    const struct plain *x = a, *y = b;
    if (x->finite != y->finite)
        return x->finite ? -1 : 1;
    if (fabs(x->score - y->score) > 1e-9)
        return x->score > y->score ? -1 : 1;
    return x->flat < y->flat ? -1 : x->flat > y->flat;
}

static double plain_g(const struct text *t, const double *lambda, int32_t max_n, const struct superposed_draft *d,
                      int32_t tok)
{
    double g = 0;
    for (int32_t n = 2; n <= max_n && n - 1 <= d->n; n++) {
        int32_t gram[NGRAM_MAX];
        memcpy(gram, d->tok + d->n - (n - 1), (size_t)(n - 1) * sizeof *gram);
        gram[n - 1] = tok;
        uint32_t total = text_count(t, gram, n - 1);
        if (total)
            g += lambda[n - 2] * text_count(t, gram, n) / total;
    }
    return g;
}

static void check_step(const struct superposed_params *p, const struct text *t, int32_t max_n,
                       const struct superposed_top *top, const struct superposed_draft *from, int32_t n_from,
                       const struct superposed_step *s)
{
    struct plain c[SUPERPOSED_MAX_DRAFT * SUPERPOSED_MAX_TOP];
    int n = 0, n_alive = 0, n_finished = 0;
    double z = 0, w = 0;
    for (int32_t v = 0; v < top->n; v++)
        z += exp(((double)top->logprob[v] - top->logprob[0]) / p->tau);
    for (int32_t i = 0; i < n_from; i++) {
        bool any = false;
        for (int32_t v = 0; v < top->n; v++)
            any |= plain_g(t, p->lambda, max_n, &from[i], top->tok[v]) > 0;
        for (int32_t v = 0; v < top->n; v++) {
            double g = p->alpha > 0 ? plain_g(t, p->lambda, max_n, &from[i], top->tok[v]) : 1;
            double lp = ((double)top->logprob[v] - top->logprob[0]) / p->tau - log(z);
            double l = (1 - p->alpha) * lp + (g > 0 ? p->alpha * log(g) : -p->penalty);
            c[n++] = (struct plain){i * top->n + v, i, v, from[i].score + l, g > 0 || !any};
        }
    }
    qsort(c, (size_t)n, sizeof *c, plain_cmp);
    for (int i = 0; i < n; i++) {
        const struct superposed_pick *got = NULL;
        if (top->is_end[c[i].at])
            got = i < 2 * p->n_draft && c[i].finite ? &s->finished[n_finished++] : NULL;
        else if (n_alive < p->n_draft)
            got = &s->alive[n_alive++];
        if (!got)
            continue;
        ck_assert_int_eq(got->parent, c[i].parent);
        ck_assert_int_eq(got->at, c[i].at);
        ck_assert_int_eq(got->tok, top->tok[c[i].at]);
        ck_assert_double_eq_tol(got->score, c[i].score, 1e-9);
    }
    ck_assert_int_eq(s->n_alive, n_alive);
    ck_assert_int_eq(s->n_finished, n_finished);
    double top_score = -INFINITY; /* not always the first's: what is foreseen comes first, however unlikely */
    for (int32_t i = 0; i < n_alive; i++)
        top_score = fmax(top_score, s->alive[i].score);
    z = 0;
    for (int32_t i = 0; i < n_alive; i++)
        z += exp(s->alive[i].score - top_score);
    for (int32_t i = 0; i < n_alive; i++) {
        ck_assert_double_eq_tol(s->weight[i], exp(s->alive[i].score - top_score) / z, 1e-9);
        w += s->weight[i];
    }
    ck_assert(!n_alive || fabs(w - 1) < 1e-12);
}

enum { VOCAB = 20 };

/* Distinct tokens, likeliest first, with `ties` some of equal probability. */
static void random_top(struct rnd *r, int32_t n, int32_t *tok, float *logprob, bool *is_end, int end_percent, bool ties)
{
    for (int32_t v = 0; v < VOCAB; v++) {
        int32_t at = rnd_int(r, 0, v);
        tok[v] = tok[at];
        tok[at] = v;
    }
    float lp = -.1f;
    for (int32_t v = 0; v < n; v++) {
        logprob[v] = lp;
        is_end[v] = rnd_int(r, 0, 99) < end_percent;
        lp -= !ties || rnd_int(r, 0, 2) ? .25f * fabsf(rnd_normal(r)) : 0;
    }
}

START_TEST(steps_are_as_enumerated)
{
    struct rnd r = rnd_begin("steps_are_as_enumerated", 8);
    for (int round = 0; round < 300; round++) {
        struct text t = text_random(&r, VOCAB, (size_t)rnd_int(&r, 10, 400), 30);
        int32_t max_n = rnd_int(&r, 2, NGRAM_MAX);
        struct ngram *g = store_of(&t, VOCAB, max_n, 1);
        struct superposed_params p;
        superposed_params_init(&p);
        p.n_draft = rnd_int(&r, 1, SUPERPOSED_MAX_DRAFT);
        p.alpha = (const double[]){.54, 0, 1, .3}[round % 4];
        p.tau = round % 2 ? .06 : 1;
        int32_t tok[VOCAB], draft[SUPERPOSED_MAX_DRAFT][64], next[SUPERPOSED_MAX_DRAFT][64], n_from = 1;
        float logprob[VOCAB];
        bool is_end[VOCAB];
        struct superposed_draft from[SUPERPOSED_MAX_DRAFT] = {{.tok = draft[0], .n = rnd_int(&r, 0, 8)}};
        for (int32_t i = 0; i < 8; i++)
            draft[0][i] = rnd_int(&r, 0, VOCAB - 1);
        struct superposed_top top = {.tok = tok, .logprob = logprob, .is_end = is_end};
        for (int step = 0; step < (p.alpha == 1 ? 1 : 12) && n_from > 0; step++) {
            struct superposed_step s;
            top.n = rnd_int(&r, 1, VOCAB);
            random_top(&r, top.n, tok, logprob, is_end, round % 3 ? 10 : 60, p.alpha == 0);
            superposed_step(&p, g, &top, from, n_from, &s);
            check_step(&p, &t, max_n, &top, from, n_from, &s);
            for (int32_t i = 0; i < s.n_alive; i++) {
                memcpy(next[i], draft[s.alive[i].parent], sizeof *next);
                next[i][from[s.alive[i].parent].n] = s.alive[i].tok;
            }
            int32_t n = from[0].n + 1; /* all drafts are equally long */
            memcpy(draft, next, sizeof draft);
            for (n_from = 0; n_from < s.n_alive; n_from++)
                from[n_from] = (struct superposed_draft){.tok = draft[n_from], .n = n, .score = s.alive[n_from].score};
        }
        ngram_close(g);
        text_free(&t);
    }
}
END_TEST

/* A store that left rare n-grams out has contexts whose continuations are gone: they add nothing. */
START_TEST(pruned_continuations_count_as_none)
{
    struct text t = {0};
    text_add(&t, (const int32_t[]){1, 2, 1, 3, 1, 4}, 6);
    struct ngram *g;
    text_add(&t, (const int32_t[]){5, 6}, 2);
    text_add(&t, (const int32_t[]){5, 6}, 2);
    g = store_of(&t, 8, 3, 2);
    struct superposed_params p;
    superposed_params_init(&p);
    p.n_draft = 1;
    struct superposed_top top = {.n = 2, .tok = (const int32_t[]){2, 3}, .logprob = (const float[]){-1, -1}};
    struct superposed_draft from = {.tok = (const int32_t[]){1}, .n = 1};
    struct superposed_step s;
    superposed_step(&p, g, &top, &from, 1, &s);
    ck_assert_double_eq_tol(s.alive[0].score, .46 * log(.5) - 200, 1e-9);
    ngram_close(g);
    text_free(&t);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("superposed");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_hand_check_of_the_section);
    tcase_add_test(tc, what_no_ngram_foresees);
    tcase_add_test(tc, impossible_tokens_are_never_chosen);
    tcase_add_test(tc, ties_go_to_the_lower_draft_then_place);
    tcase_add_test(tc, one_draft_without_ngrams_is_greedy);
    tcase_add_test(tc, steps_are_as_enumerated);
    tcase_add_test(tc, pruned_continuations_count_as_none);
    return suite_run(tc);
}
