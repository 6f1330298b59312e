/* The ways of decoding that change the text: the methods against what they say by hand and against a plain
 * implementation, and that nothing but the request decides what comes out - no company, no preemption, no batch. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine_rig.h"
#include "random_plan.h"
#include "strategy/beam_select.h"
#include "strategy/cautious.h"
#include "strategy/contrastive.h"
#include "../suite.h"

enum { N_PROMPT = 20, N_OUT = 24, N_STRETCHED = 60, N_ENDS = 40 };

static struct gen_params way(enum decode_strategy strategy, int32_t max_tokens)
{
    struct gen_params p = params(max_tokens);
    p.decoding.strategy = strategy;
    return p;
}

/* ---- Methods by hand ---- */

/* autoregressive.md, section 3, test 4. */
START_TEST(trials_follow_the_formulas)
{
    struct cautious_params code = {.h_min = 0.01f, .h_max = 1.5f}, paper = code;
    paper.by_paper = true;
    ck_assert_int_eq(cautious_trials(&paper, 0.15, 10), 1);
    ck_assert_int_eq(cautious_trials(&paper, 0.75, 10), 4);
    ck_assert_int_eq(cautious_trials(&code, 0.75, 10), 5);
    ck_assert_int_eq(cautious_trials(&code, 0, 10), 1);
    ck_assert_int_eq(cautious_trials(&code, 3, 10), 10);
    ck_assert_int_eq(cautious_trials(&paper, 3, 10), 10);
    ck_assert_int_eq(cautious_trials(&code, 9, 1), 1);
}
END_TEST

START_TEST(the_least_perplexed_trial_is_kept)
{
    const struct trial t[] = {{.n = 4, .sum_lnp = -4}, {.n = 2, .sum_lnp = -1}, {.n = 8, .sum_lnp = -4}, {.n = 0}};
    ck_assert_int_eq(cautious_choose(t, 4), 1); /* -0.5 a token, and the first of those that have it */
    ck_assert_int_eq(cautious_choose(t, 1), 0);
}
END_TEST

/* autoregressive.md, section 10 (d). */
START_TEST(likely_and_unlike)
{
    const struct candidate c[] = {{.tok = 7, .p = .5f}, {.tok = 8, .p = .4f}, {.tok = 9, .p = .4f}};
    const float similarity[] = {1, 0, 0};
    ck_assert_int_eq(contrastive_choose(c, similarity, 2, .6f), 1);
    ck_assert_int_eq(contrastive_choose(c, similarity, 3, .6f), 1); /* the likelier of equals stands first */
    ck_assert_int_eq(contrastive_choose(c, similarity, 3, 0), 0);
}
END_TEST

/* autoregressive.md, section 11 (d): all tokens equal, so groups differ by the penalty alone. */
START_TEST(groups_pick_different_tokens)
{
    const int32_t tok[] = {0, 1, 2};
    const float logprob[] = {-1.0986f, -1.0986f, -1.0986f};
    const struct beam_list root = {.n = 3, .tok = tok, .logprob = logprob};
    int32_t used[3], n_used = 0;
    for (int32_t g = 0; g < 3; g++) {
        struct beam_pick pick[2];
        ck_assert_int_eq(beam_best(&root, 1, used, n_used, .5, 2, pick), 2);
        ck_assert_int_eq(pick[0].tok, g);
        used[n_used++] = pick[0].tok;
    }
}
END_TEST

static int compare_picks(const void *a, const void *b)
{
    const struct beam_pick *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->beam != y->beam ? x->beam - y->beam : x->tok - y->tok;
}

START_TEST(the_best_are_found_in_order)
{
    struct rnd r = rnd_begin("the_best_are_found_in_order", 61);
    for (int round = 0; round < 500; round++) {
        enum { BEAMS = 4, LIST = 8 };
        int32_t tok[BEAMS][LIST], used[6], n_used = rnd_int(&r, 0, 6), n = 0, n_want = rnd_int(&r, 1, 8);
        float logprob[BEAMS][LIST];
        struct beam_list list[BEAMS];
        struct beam_pick all[BEAMS * LIST], got[8];
        double diversity = rnd_int(&r, 0, 4) * .25;
        for (int i = 0; i < n_used; i++)
            used[i] = rnd_int(&r, 0, 9);
        for (int b = 0; b < BEAMS; b++) {
            list[b] = (struct beam_list){
                .score = -rnd_int(&r, 0, 8) * .5, .n = rnd_int(&r, 0, LIST), .tok = tok[b], .logprob = logprob[b]};
            for (int i = 0; i < list[b].n; i++) {
                tok[b][i] = (i * 3 + b) % 10;
                logprob[b][i] = (float)-rnd_int(&r, 0, 6) * .5f;
                double cost = 0;
                for (int u = 0; u < n_used; u++)
                    cost += used[u] == tok[b][i] ? diversity : 0;
                all[n++] =
                    (struct beam_pick){.beam = b, .tok = tok[b][i], .score = list[b].score + logprob[b][i] - cost};
            }
        }
        qsort(all, (size_t)n, sizeof *all, compare_picks);
        int32_t n_got = beam_best(list, BEAMS, used, n_used, diversity, n_want, got);
        ck_assert_int_eq(n_got, n < n_want ? n : n_want);
        for (int i = 0; i < n_got; i++) {
            ck_assert_int_eq(got[i].tok, all[i].tok);
            ck_assert_int_eq(got[i].beam, all[i].beam);
        }
    }
}
END_TEST

/* ---- Where they are plain decoding ---- */

static struct heard *run(const int32_t *prompt, const struct gen_params *p)
{
    struct heard *h = ask(prompt, N_PROMPT, p);
    finish(h);
    return h;
}

static void expect_plain(const int32_t *prompt, struct gen_params p)
{
    struct gen_params off = p;
    off.decoding.strategy = DECODE_OFF;
    struct heard *plain = run(prompt, &off), *h = run(prompt, &p);
    expect_same(plain, h);
    forget(plain);
    forget(h);
}

static const char *const backends[] = {"fake", "ref", "cpu"};

START_TEST(the_simplest_case_is_plain)
{
    struct rnd r = rnd_begin("the_simplest_case_is_plain", 62);
    int32_t prompt[N_PROMPT];
    if (_i)
        rig_ops = backend_find(backends[_i], NULL);
    open_engine(256, 128, 64, 40);
    for (int round = 0; round < 6; round++) {
        random_prompt(&r, prompt, N_PROMPT);
        struct gen_params p = way(DECODE_CAUTIOUS, N_OUT);
        p.temperature = 0.9f;
        p.has_seed = true;
        p.seed = (uint64_t)round;
        p.n = 2;
        p.n_logprobs = 2;
        p.frequency_penalty = round % 2 ? .5f : 0;
        p.decoding.cautious.h_min = 50;
        p.decoding.cautious.h_max = 51;
        expect_plain(prompt, p); /* no law is so uncertain */
        p.decoding.cautious.h_min = 0;
        p.decoding.cautious.max_trials = 1;
        expect_plain(prompt, p);
        p = way(DECODE_CONTRASTIVE, N_OUT);
        p.n_logprobs = round % 3;
        p.decoding.contrastive.k = 1;
        expect_plain(prompt, p);
        p.decoding.contrastive.k = 4;
        p.decoding.contrastive.alpha = 0;
        expect_plain(prompt, p);
        p = way(DECODE_BEAM, N_OUT);
        p.decoding.beam.width = 1;
        expect_plain(prompt, p);
        p = way(DECODE_SUPERPOSED, SUPERPOSED_MAX_TOKENS);
        p.decoding.superposed.n_draft = 1;
        p.decoding.superposed.alpha = 0;
        expect_plain(prompt, p);
        p.max_tokens = 60;
        p.decoding.superposed.reset_every = rnd_int(&r, 1, SUPERPOSED_MAX_TOKENS);
        p.n_logprobs = round % 2 ? 0 : -1; /* those of decided tokens as well */
        p.decoding.superposed.rescore = round % 3 || round % 2;
        expect_plain(prompt, p);
    }
    close_engine();
}
END_TEST

/* A server that runs one sequence at once has no place for a trial or a beam: cautious is plain, beams are refused. */
START_TEST(one_place)
{
    struct rnd r = rnd_begin("one_place", 69);
    int32_t prompt[N_PROMPT];
    random_prompt(&r, prompt, N_PROMPT);
    open_engine(256, 64, 64, 1);
    struct gen_params p = way(DECODE_CAUTIOUS, N_OUT);
    p.temperature = 1;
    p.has_seed = true;
    expect_plain(prompt, p);
    struct err e = {0};
    struct request *req;
    p = way(DECODE_BEAM, 4);
    ck_assert_int_eq(request_create(eng, prompt, N_PROMPT, &p, &rig_sink, NULL, &req, &e), -ERR_INVALID);
    close_engine();
}
END_TEST

/* ---- Against a plain implementation ---- */

enum { V_TOP = 20 };

/* The likeliest tokens behind a text: a request of its own. */
static void likeliest(const int32_t *prompt, const int32_t *out, int32_t n_out, int32_t *tok, float *logprob)
{
    int32_t text[N_PROMPT + N_OUT];
    struct gen_params p = params(1);
    struct gen_event ev;
    p.n_logprobs = V_TOP;
    p.decoding.strategy = DECODE_OFF;
    memcpy(text, prompt, sizeof *prompt * N_PROMPT);
    if (n_out)
        memcpy(text + N_PROMPT, out, sizeof *out * (size_t)n_out);
    struct heard h = {0};
    struct err e = {0};
    ck_assert(!request_create(eng, text, N_PROMPT + n_out, &p, &rig_sink, &h, &h.r, &e));
    ck_assert(!engine_submit(eng, h.r, &e));
    while (request_decoding(h.r)->n_step == 0)
        engine_step(eng);
    ck_assert(request_next_event(h.r, &ev));
    ck_assert_int_eq(ev.n_top, V_TOP);
    for (int i = 0; i < V_TOP; i++) {
        tok[i] = ev.top[i].tok;
        logprob[i] = ev.top[i].logprob;
    }
    while (!h.done)
        step();
    request_free(h.r);
}

struct text {
    int32_t tok[N_OUT];
    double score, logprob;
};

/* Groups one after the other, every continuation of every beam weighed, and nothing shared between beams. */
static void search_plainly(const int32_t *prompt, int32_t n_out, const struct beam_params *b, struct text *beam)
{
    int32_t width = b->width / b->n_group;
    for (int32_t t = 0; t < n_out; t++) {
        int32_t used[64], n_used = 0;
        struct text next[BEAM_MAX];
        for (int32_t g = 0; g < b->n_group; g++) {
            struct beam_pick all[BEAM_MAX * V_TOP];
            int32_t n = 0, from = t == 0 ? 1 : width;
            for (int32_t i = 0; i < from; i++) {
                int32_t tok[V_TOP];
                float logprob[V_TOP];
                const struct text *at = &beam[g * width + i];
                likeliest(prompt, at->tok, t, tok, logprob);
                for (int32_t v = 0; v < V_TOP; v++) {
                    double score = (t == 0 ? 0 : at->score) + logprob[v];
                    for (int32_t u = 0; u < n_used; u++)
                        score -= used[u] == tok[v] ? (double)b->diversity : 0;
                    all[n++] = (struct beam_pick){.beam = i, .tok = tok[v], .score = score, .logprob = logprob[v]};
                }
            }
            qsort(all, (size_t)n, sizeof *all, compare_picks);
            for (int32_t i = 0; i < width; i++) {
                struct text *to = &next[g * width + i];
                *to = beam[g * width + all[i].beam];
                if (t == 0)
                    to->logprob = 0;
                to->tok[t] = all[i].tok;
                to->score = all[i].score;
                to->logprob += all[i].logprob;
                used[n_used++] = all[i].tok;
            }
        }
        memcpy(beam, next, sizeof *next * (size_t)b->width);
    }
}

START_TEST(beams_are_those_of_a_plain_search)
{
    struct rnd r = rnd_begin("beams_are_those_of_a_plain_search", 63);
    static const struct {
        int32_t width, n_group;
        float diversity;
    } shape[] = {{3, 1, 0}, {4, 2, 0}, {4, 4, .7f}, {6, 2, .3f}, {6, 3, 2}};
    enum { LEN = 10 };
    if (_i)
        rig_ops = backend_find(backends[_i], NULL);
    open_engine(256, 256, 128, 40);
    for (size_t k = 0; k < sizeof shape / sizeof *shape; k++) {
        struct text text[BEAM_MAX] = {0};
        int32_t prompt[N_PROMPT], width = shape[k].width / shape[k].n_group;
        random_prompt(&r, prompt, N_PROMPT);
        struct gen_params p = way(DECODE_BEAM, LEN);
        p.n = shape[k].width;
        p.decoding.beam.width = shape[k].width;
        p.decoding.beam.n_group = shape[k].n_group;
        p.decoding.beam.diversity = shape[k].diversity;
        struct heard *h = run(prompt, &p);
        search_plainly(prompt, LEN, &p.decoding.beam, text);
        for (int32_t c = 0; c < p.n; c++) { /* groups take turns */
            const struct text *t = &text[c % shape[k].n_group * width + c / shape[k].n_group];
            double score, logprob;
            ck_assert_int_eq(h->n_tok[c], LEN);
            ck_assert_mem_eq(h->tok[c], t->tok, sizeof(int32_t) * LEN);
            ck_assert(request_score(h->r, c, &score, &logprob));
            ck_assert_double_eq_tol(score, t->score / LEN, 1e-5);
            ck_assert_double_eq_tol(logprob, t->logprob, 1e-4);
        }
        forget(h);
    }
    close_engine();
}
END_TEST

/* Superposed drafts are ranked by what the model says of each alone: bit for bit what scoring them as prompts gives. */
START_TEST(drafts_are_scored_exactly)
{
    struct rnd r = rnd_begin("drafts_are_scored_exactly", 68);
    int32_t text[N_PROMPT + N_STRETCHED], ends[N_ENDS], n_early = 0;
    if (_i)
        rig_ops = backend_find(backends[_i], NULL);
    open_engine(256, 128, 256, 40);
    for (int round = 0; round < 12; round++) {
        random_prompt(&r, text, N_PROMPT);
        struct gen_params p = way(DECODE_SUPERPOSED, rnd_int(&r, 1, SUPERPOSED_MAX_TOKENS)), score = params(0);
        if (round >= 6) { /* with resets, and many ends */
            p.max_tokens = rnd_int(&r, SUPERPOSED_MAX_TOKENS, N_STRETCHED);
            p.decoding.superposed.reset_every = rnd_int(&r, 1, 12);
            random_prompt(&r, ends, N_ENDS);
            p.stop_ids = ends;
            p.n_stop_ids = N_ENDS;
            p.temperature = 1;
            p.has_seed = true;
        }
        p.ignore_eos = round % 2;
        p.n = round % 3 ? 3 : 10;
        p.n_logprobs = 0;
        p.decoding.superposed.alpha = 0;
        p.decoding.superposed.tau = round % 2 ? 1 : .06f;
        struct heard *h = run(text, &p);
        double before = 0;
        for (int32_t c = 0; c < p.n; c++) {
            double sum = 0, method, logprob;
            memcpy(text + N_PROMPT, h->tok[c], sizeof *text * (size_t)h->n_tok[c]);
            n_early +=
                p.decoding.superposed.reset_every && h->n_tok[c] + p.decoding.superposed.reset_every < p.max_tokens;
            score.n_prompt_logprobs = 0;
            struct heard *scored = ask(text, N_PROMPT + h->n_tok[c], &score);
            finish(scored);
            for (int32_t i = 0; i < h->n_tok[c]; i++) {
                float lp;
                int32_t rank, n_top;
                const struct top_logprob *top;
                request_prompt_logprob(scored->r, N_PROMPT + i, &lp, &rank, &n_top, &top);
                ck_assert_mem_eq(&lp, &h->logprob[c][i], sizeof lp);
                sum += lp;
            }
            ck_assert(request_score(h->r, c, &method, &logprob));
            ck_assert_double_eq_tol(logprob, sum, 1e-4);
            ck_assert(c == 0 || sum / h->n_tok[c] <= before + 1e-6);
            before = sum / h->n_tok[c];
            forget(scored);
        }
        forget(h);
    }
    ck_assert_int_gt(n_early, 3); /* texts that ended before the last stretch */
    close_engine();
}
END_TEST

/* ---- Superposed Decoding with resets ---- */

static struct gen_params superposed(int32_t max_tokens, int32_t reset_every)
{
    struct gen_params p = way(DECODE_SUPERPOSED, max_tokens);
    p.temperature = 1;
    p.has_seed = true;
    p.decoding.superposed.alpha = 0;
    p.decoding.superposed.tau = 1;
    p.decoding.superposed.reset_every = reset_every;
    return p;
}

static bool begins_with(const struct heard *h, int32_t choice, const int32_t *tok, int32_t n)
{
    return h->n_tok[choice] >= n && !memcmp(h->tok[choice], tok, sizeof *tok * (size_t)n);
}

/* Every stretch is what a request says whose prompt is the text before it, and what goes on is one of its drafts. */
START_TEST(stretches_are_requests_of_their_own)
{
    struct rnd r = rnd_begin("stretches_are_requests_of_their_own", 71);
    int32_t text[N_PROMPT + N_STRETCHED];
    if (_i)
        rig_ops = backend_find(backends[_i], NULL);
    open_engine(256, 128, 64, 16);
    for (int round = 0; round < 8; round++) {
        int32_t every = rnd_int(&r, 1, 12), n = 0;
        struct gen_params p = superposed(rnd_int(&r, 2 * every, N_STRETCHED), every), one = superposed(every, 0);
        p.seed = (uint64_t)round;
        p.n = one.n = rnd_int(&r, 2, 5);
        p.decoding.superposed.n_draft = one.decoding.superposed.n_draft = p.n;
        p.n_logprobs = one.n_logprobs = 0;
        random_prompt(&r, text, N_PROMPT);
        struct heard *h = run(text, &p);
        for (; n < p.max_tokens; n += every) {
            bool last = n + every >= p.max_tokens;
            int32_t n_same = 0, least = last ? p.n : 1;
            one.max_tokens = last ? p.max_tokens - n : every;
            memcpy(text + N_PROMPT, h->tok[0], sizeof *text * (size_t)n);
            struct heard *alone = ask(text, N_PROMPT + n, &one);
            finish(alone);
            for (int32_t c = 0; c < p.n; c++) { /* the last: in the same order */
                const int32_t *said = h->tok[c] + n;
                for (int32_t k = last ? c : 0; k < (last ? c + 1 : p.n); k++)
                    if (begins_with(alone, k, said, one.max_tokens)) {
                        ck_assert_mem_eq(alone->logprob[k], h->logprob[c] + n, sizeof(float) * (size_t)one.max_tokens);
                        n_same++;
                    }
            }
            ck_assert_int_ge(n_same, least);
            forget(alone);
        }
        for (int32_t c = 1; c < p.n; c++) /* all that was decided they share */
            ck_assert(begins_with(h, c, h->tok[0], (p.max_tokens - 1) / every * every));
        forget(h);
    }
    close_engine();
}
END_TEST

START_TEST(a_reset_behind_the_end_changes_nothing)
{
    struct rnd r = rnd_begin("a_reset_behind_the_end_changes_nothing", 72);
    int32_t prompt[N_PROMPT];
    open_engine(256, 128, 64, 16);
    for (int round = 0; round < 20; round++) {
        struct gen_params p = superposed(rnd_int(&r, 1, SUPERPOSED_MAX_TOKENS), 0);
        p.n = rnd_int(&r, 1, 5);
        p.n_logprobs = round % 2 - 1;
        p.ignore_eos = round % 3;
        random_prompt(&r, prompt, N_PROMPT);
        struct heard *never = run(prompt, &p);
        p.decoding.superposed.reset_every = rnd_int(&r, p.max_tokens, SUPERPOSED_MAX_TOKENS);
        struct heard *late = run(prompt, &p);
        expect_same(never, late);
        forget(never);
        forget(late);
    }
    close_engine();
}
END_TEST

/* A reset draws from the softmax of the drafts' scores; at temperature 0 it takes the best. */
START_TEST(a_reset_draws_by_the_scores)
{
    struct rnd r = rnd_begin("a_reset_draws_by_the_scores", 73);
    enum { DRAWS = 3000, DRAFTS = 4, EVERY = 3 };
    int32_t prompt[N_PROMPT], n_drawn[DRAFTS] = {0};
    double share[DRAFTS], sum = 0, score, logprob, chi = 0, chi_flat = 0;
    rig_ops = backend_find("cpu", NULL);
    open_engine(256, 64, 64, 8);
    random_prompt(&r, prompt, N_PROMPT);
    struct gen_params p = superposed(EVERY, 0);
    p.n = p.decoding.superposed.n_draft = DRAFTS;
    p.decoding.superposed.rescore = false;
    p.decoding.superposed.tau = .4f; /* so that all of them are drawn, and not equally */
    struct heard *draft = run(prompt, &p);
    for (int i = 0; i < DRAFTS; i++) {
        ck_assert(request_score(draft->r, i, &score, &logprob));
        sum += share[i] = exp(score);
    }
    p.max_tokens = EVERY + 1;
    p.decoding.superposed.reset_every = EVERY;
    for (int i = -1; i < DRAWS; i++) {
        int32_t k = 0;
        p.seed = (uint64_t)i;
        p.temperature = i < 0 ? 0 : 1;
        struct heard *h = run(prompt, &p), *again = i % 100 ? NULL : run(prompt, &p);
        while (k < DRAFTS && !begins_with(h, 0, draft->tok[k], EVERY))
            k++;
        ck_assert_int_lt(k, i < 0 ? 1 : DRAFTS); /* they stand in order of score */
        n_drawn[k] += i >= 0;
        if (again) {
            expect_same(h, again);
            forget(again);
        }
        forget(h);
    }
    for (int i = 0; i < DRAFTS; i++) {
        double expected = DRAWS * share[i] / sum, flat = DRAWS / (double)DRAFTS;
        chi += (n_drawn[i] - expected) * (n_drawn[i] - expected) / expected;
        chi_flat += (n_drawn[i] - flat) * (n_drawn[i] - flat) / flat;
    }
    ck_assert_msg(chi < 16.3, "chi-square %g", chi); /* 3 degrees of freedom, p = 0.001 */
    ck_assert_msg(chi_flat > 100, "chi-square %g of equal shares", chi_flat);
    forget(draft);
    close_engine();
}
END_TEST

/* As the scheduler does it when blocks run out. */
static void preempt_all(void)
{
    for (struct seq *s; (s = eng->running.tail) != NULL;) {
        sched_remove(eng, s);
        seq_release(eng, s);
        sched_add(eng, s);
    }
}

/* Preempted after any number of steps - in the prompt, in a stretch, in its scoring - the text is the same. */
START_TEST(a_stretch_begins_again)
{
    struct rnd r = rnd_begin("a_stretch_begins_again", 74);
    int32_t prompt[N_PROMPT], ends[N_ENDS], n_step = 1;
    random_prompt(&r, prompt, N_PROMPT);
    random_prompt(&r, ends, N_ENDS);
    open_engine(128, 64, 64, 8);
    struct gen_params p = superposed(30, 7);
    p.n = 4;
    p.n_logprobs = 0;
    p.stop_ids = ends;
    p.n_stop_ids = N_ENDS;
    p.no_cache = _i;
    struct heard *alone = run(prompt, &p), *h = NULL;
    for (bool done = false; !done; n_step++) {
        h = ask(prompt, N_PROMPT, &p);
        for (int32_t i = 0; i < n_step && !h->done; i++)
            step();
        done = h->done;
        preempt_all();
        finish(h);
        expect_same(alone, h);
        forget(h);
    }
    ck_assert_int_gt(n_step, 30);
    forget(alone);
    close_engine();
}
END_TEST

/* autoregressive.md, section 3, test 3: with segments of one token and a law of two, the likelier one is kept unless
 * all N trials draw the other. */
START_TEST(the_order_statistic)
{
    struct rnd r = rnd_begin("the_order_statistic", 64);
    enum { DRAWS = 1500, TRIALS = 3 };
    int32_t prompt[N_PROMPT], tok[V_TOP], n_likelier = 0;
    float logprob[V_TOP];
    rig_ops = backend_find("cpu", NULL);
    open_engine(256, 64, 64, 8);
    random_prompt(&r, prompt, N_PROMPT);
    likeliest(prompt, NULL, 0, tok, logprob);
    double odds = exp((double)logprob[1] - logprob[0]), a = 1 / (1 + odds), right = 1 - pow(1 - a, TRIALS);
    struct gen_params p = way(DECODE_CAUTIOUS, 1);
    p.temperature = 1;
    p.top_k = 2;
    p.has_seed = true;
    p.decoding.cautious = (struct cautious_params){.h_min = 0, .h_max = 1e-6f, .max_trials = TRIALS, .max_segment = 1};
    for (int i = 0; i < DRAWS; i++) {
        p.seed = (uint64_t)i;
        struct heard *h = run(prompt, &p);
        n_likelier += h->tok[0][0] == tok[0];
        ck_assert_int_eq(request_decoding(h->r)->n_drafted, TRIALS);
        forget(h);
    }
    double sigma = sqrt(right * (1 - right) / DRAWS);
    ck_assert_msg(fabs((double)n_likelier / DRAWS - right) < 4 * sigma, "%d of %d, expected %g", n_likelier, DRAWS,
                  right);
    ck_assert_double_gt(right - a, 8 * sigma); /* one trial alone would be told apart */
    close_engine();
}
END_TEST

/* ---- Nothing but the request decides ---- */

enum { N_ROUND = 40 };

static struct gen_params some_way(struct rnd *r, int round)
{
    static const char *const stop[] = {"e", "th"};
    static const enum decode_strategy kind[] = {DECODE_CAUTIOUS, DECODE_CONTRASTIVE, DECODE_BEAM, DECODE_SUPERPOSED,
                                                DECODE_AUTO};
    struct gen_params p = way(kind[round % 5], rnd_int(r, 1, SUPERPOSED_MAX_TOKENS));
    p.has_seed = true;
    p.seed = (uint64_t)round;
    p.temperature = round % 3 ? 1.1f : 0;
    p.top_p = round % 5 ? 1 : .9f;
    p.frequency_penalty = round % 5 == 1 ? .4f : 0;
    p.min_tokens = round % 6 ? 0 : p.max_tokens / 2;
    p.ignore_eos = round % 2;
    p.n_logprobs = round % 3 == 1 ? 2 : -1;
    p.stop = stop;
    p.n_stop = round % 7 ? 0 : 2;
    p.n = round % 9 ? 1 : 2;
    if (p.decoding.strategy == DECODE_SUPERPOSED) {
        p.frequency_penalty = 0;
        p.n_logprobs = p.n_logprobs < 0 ? -1 : 0;
        p.decoding.superposed.alpha = 0;
        p.decoding.superposed.tau = .5f;
        p.decoding.superposed.n_draft = rnd_int(r, 2, 6);
        if (round % 2) {
            p.decoding.superposed.reset_every = rnd_int(r, 1, 8);
            p.max_tokens += SUPERPOSED_MAX_TOKENS;
        }
    }
    p.decoding.cautious.max_trials = rnd_int(r, 2, 5);
    p.decoding.cautious.max_segment = rnd_int(r, 1, 12);
    p.decoding.cautious.h_max = .5f;
    p.decoding.contrastive.k = rnd_int(r, 1, 6);
    p.decoding.beam.width = 2 * rnd_int(r, 1, 2);
    p.decoding.beam.n_group = round % 8 ? 1 : 2;
    p.decoding.beam.early_stopping = round % 16 == 2;
    return p;
}

START_TEST(company_and_preemption_change_nothing)
{
    struct rnd r = rnd_begin("company_and_preemption_change_nothing", 65);
    static int32_t prompt[N_ROUND][N_PROMPT];
    static struct gen_params all[N_ROUND];
    struct heard *alone[N_ROUND], *h[N_ROUND];
    static const struct {
        int32_t n_block, batch, seqs;
    } engine[] = {{256, 128, 40}, {18, 64, 40}, {18, 20, 10}};
    uint64_t n_preempted = 0;
    if (_i)
        rig_ops = backend_find(backends[_i], NULL);
    open_engine(128, 256, 64, 12);
    for (int i = 0; i < N_ROUND; i++) {
        all[i] = some_way(&r, i);
        random_prompt(&r, prompt[i], N_PROMPT);
        alone[i] = run(prompt[i], &all[i]);
        ck_assert_int_ne(alone[i]->finish[0], FINISH_ERROR);
    }
    close_engine();
    for (size_t k = 0; k < sizeof engine / sizeof *engine; k++) {
        open_engine(64, engine[k].n_block, engine[k].batch, engine[k].seqs);
        for (int i = 0; i < N_ROUND; i++)
            h[i] = ask(prompt[i], N_PROMPT, &all[i]);
        for (int i = 0; i < N_ROUND; i++) {
            finish(h[i]);
            expect_same(alone[i], h[i]);
            forget(h[i]);
        }
        n_preempted += eng->metrics.now.n_preempted;
        close_engine();
    }
    ck_assert_uint_gt(n_preempted, 10);
    for (int i = 0; i < N_ROUND; i++)
        forget(alone[i]);
}
END_TEST

/* Clients that leave in the middle, and at every step of it: nothing stays behind (close_engine looks). */
START_TEST(clients_leave)
{
    struct rnd r = rnd_begin("clients_leave", 66);
    int32_t prompt[N_PROMPT];
    random_prompt(&r, prompt, N_PROMPT);
    for (int round = 0; round < N_ROUND; round++) {
        open_engine(64, 40, 32, 16);
        struct gen_params p = some_way(&r, round);
        struct heard *other = ask(prompt, N_PROMPT, &p), *h = ask(prompt, N_PROMPT, &p);
        for (int i = 0; i < round && !h->done; i++)
            step();
        engine_cancel(eng, h->r);
        finish(h);
        finish(other);
        forget(h);
        forget(other);
        close_engine();
    }
}
END_TEST

/* A client that does not read: beams and segments come out as it does. */
START_TEST(clients_that_read_slowly)
{
    struct rnd r = rnd_begin("clients_that_read_slowly", 67);
    static const enum decode_strategy kind[] = {DECODE_CAUTIOUS, DECODE_BEAM, DECODE_SUPERPOSED};
    int32_t prompt[N_PROMPT];
    random_prompt(&r, prompt, N_PROMPT);
    open_engine(512, 256, 64, 16);
    for (int i = 0; i < 3; i++) {
        struct gen_params p = kind[i] == DECODE_SUPERPOSED ? superposed(300, 20) : way(kind[i], 300);
        p.temperature = 1;
        p.has_seed = true;
        p.n_logprobs = kind[i] == DECODE_SUPERPOSED ? 0 : 5;
        struct heard *read = run(prompt, &p), *h = ask(prompt, N_PROMPT, &p);
        for (int n = 0; n < 4000; n++)
            engine_step(eng);
        ck_assert(!h->done);
        finish(h);
        expect_same(read, h);
        forget(read);
        forget(h);
    }
    close_engine();
}
END_TEST

/* ---- Bad requests ---- */

static void refused(struct gen_params p, const char *field)
{
    struct err e = {0};
    struct request *r;
    int32_t prompt[] = {1, 2, 3};
    ck_assert_int_eq(request_create(eng, prompt, 3, &p, &rig_sink, NULL, &r, &e), -ERR_INVALID);
    ck_assert_str_eq(e.field, field);
}

START_TEST(bad_requests_are_refused)
{
    open_engine(64, 16, 32, 8);
    struct gen_params p = way(DECODE_CAUTIOUS, 4);
    p.decoding.cautious.h_max = p.decoding.cautious.h_min;
    refused(p, "decoding.h_max");
    p = way(DECODE_CAUTIOUS, 4);
    p.decoding.cautious.max_trials = 33;
    refused(p, "decoding.max_trials");
    p = way(DECODE_CAUTIOUS, 4);
    p.decoding.max_draft = 3;
    refused(p, "decoding.draft");
    p = way(DECODE_CONTRASTIVE, 4);
    p.decoding.contrastive.alpha = NAN;
    refused(p, "decoding.penalty_alpha");
    p = way(DECODE_BEAM, 4);
    p.decoding.beam.n_group = 3;
    refused(p, "decoding.num_beam_groups");
    p = way(DECODE_SUPERPOSED, 4);
    refused(p, "decoding.alpha"); /* there is no store */
    p.decoding.superposed.alpha = 0;
    p.frequency_penalty = 1;
    refused(p, "decoding.strategy");
    p = way(DECODE_SUPERPOSED, 21);
    refused(p, "max_tokens");
    p.decoding.superposed.alpha = 0;
    p.decoding.superposed.reset_every = 21;
    refused(p, "decoding.reset_every");
    p.decoding.superposed.reset_every = -1;
    refused(p, "decoding.reset_every");
    p = way(DECODE_BEAM, 4);
    p.n = 5;
    refused(p, "n");
    struct err e = {0};
    struct request *r;
    int32_t prompt[] = {1, 2, 3};
    p = way(DECODE_BEAM, 60); /* its beams could never stand side by side */
    ck_assert_int_eq(request_create(eng, prompt, 3, &p, &rig_sink, NULL, &r, &e), -ERR_TOOLONG);
    p = way(DECODE_BEAM, 4); /* more beams than run at once: fewer, and the answer says so */
    p.decoding.beam.width = 20;
    p.decoding.beam.n_group = 2;
    p.n = 6;
    ck_assert_int_eq(request_create(eng, prompt, 3, &p, &rig_sink, NULL, &r, &e), 0);
    ck_assert_int_eq(request_decoding(r)->width, 6);
    request_free(r);
    close_engine();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ways");
    tcase_add_checked_fixture(tc, rig_setup, rig_teardown);
    tcase_add_test(tc, trials_follow_the_formulas);
    tcase_add_test(tc, the_least_perplexed_trial_is_kept);
    tcase_add_test(tc, likely_and_unlike);
    tcase_add_test(tc, groups_pick_different_tokens);
    tcase_add_test(tc, the_best_are_found_in_order);
    tcase_add_loop_test(tc, the_simplest_case_is_plain, 0, 3);
    tcase_add_test(tc, one_place);
    tcase_add_loop_test(tc, beams_are_those_of_a_plain_search, 0, 3);
    tcase_add_loop_test(tc, drafts_are_scored_exactly, 0, 3);
    tcase_add_loop_test(tc, stretches_are_requests_of_their_own, 0, 3);
    tcase_add_test(tc, a_reset_behind_the_end_changes_nothing);
    tcase_add_test(tc, a_reset_draws_by_the_scores);
    tcase_add_loop_test(tc, a_stretch_begins_again, 0, 2);
    tcase_add_test(tc, the_order_statistic);
    tcase_add_loop_test(tc, company_and_preemption_change_nothing, 0, 3);
    tcase_add_test(tc, clients_leave);
    tcase_add_test(tc, clients_that_read_slowly);
    tcase_add_test(tc, bad_requests_are_refused);
    return suite_run(tc);
}
