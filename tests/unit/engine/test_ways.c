/* The ways of decoding that change the text: against plain decoding where they are that, against a plain
 * implementation, and that nothing but the request decides what comes out - no company, no preemption, no batch. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine_rig.h"
#include "random_plan.h"
#include "strategy/beam_select.h"
#include "../suite.h"

enum { N_PROMPT = 20, N_OUT = 24 };

/* ---- Where they are plain decoding ---- */

static void expect_plain(const int32_t *prompt, struct gen_params p)
{
    struct gen_params off = p;
    off.decoding.strategy = DECODE_OFF;
    struct heard *plain = ask_and_finish(prompt, N_PROMPT, &off), *h = ask_and_finish(prompt, N_PROMPT, &p);
    expect_same(plain, h);
    forget(plain);
    forget(h);
}

START_TEST(the_simplest_case_is_plain)
{
    struct rnd r = rnd_begin("the_simplest_case_is_plain", 62);
    int32_t prompt[N_PROMPT];
    if (_i)
        rig_ops = backend_find(rig_backend[_i], NULL);
    open_engine(256, 128, 64, 40);
    for (int round = 0; round < 6; round++) {
        random_prompt(&r, prompt, N_PROMPT);
        struct gen_params p = params_of_way(DECODE_CAUTIOUS, N_OUT);
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
        p = params_of_way(DECODE_CONTRASTIVE, N_OUT);
        p.n_logprobs = round % 3;
        p.decoding.contrastive.k = 1;
        expect_plain(prompt, p);
        p.decoding.contrastive.k = 4;
        p.decoding.contrastive.alpha = 0;
        expect_plain(prompt, p);
        p = params_of_way(DECODE_BEAM, N_OUT);
        p.decoding.beam.width = 1;
        expect_plain(prompt, p);
        p = params_of_way(DECODE_SUPERPOSED, SUPERPOSED_MAX_TOKENS);
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
    struct gen_params p = params_of_way(DECODE_CAUTIOUS, N_OUT);
    p.temperature = 1;
    p.has_seed = true;
    expect_plain(prompt, p);
    struct err e = {0};
    struct request *req;
    p = params_of_way(DECODE_BEAM, 4);
    ck_assert_int_eq(request_create(eng, prompt, N_PROMPT, &p, &rig_sink, NULL, &req, &e), -ERR_INVALID);
    close_engine();
}
END_TEST

/* ---- Against a plain implementation ---- */

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
        rig_ops = backend_find(rig_backend[_i], NULL);
    open_engine(256, 256, 128, 40);
    for (size_t k = 0; k < sizeof shape / sizeof *shape; k++) {
        struct text text[BEAM_MAX] = {0};
        int32_t prompt[N_PROMPT], width = shape[k].width / shape[k].n_group;
        random_prompt(&r, prompt, N_PROMPT);
        struct gen_params p = params_of_way(DECODE_BEAM, LEN);
        p.n = shape[k].width;
        p.decoding.beam.width = shape[k].width;
        p.decoding.beam.n_group = shape[k].n_group;
        p.decoding.beam.diversity = shape[k].diversity;
        struct heard *h = ask_and_finish(prompt, N_PROMPT, &p);
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
    struct gen_params p = params_of_way(DECODE_CAUTIOUS, 1);
    p.temperature = 1;
    p.top_k = 2;
    p.has_seed = true;
    p.decoding.cautious = (struct cautious_params){.h_min = 0, .h_max = 1e-6f, .max_trials = TRIALS, .max_segment = 1};
    for (int i = 0; i < DRAWS; i++) {
        p.seed = (uint64_t)i;
        struct heard *h = ask_and_finish(prompt, N_PROMPT, &p);
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
    struct gen_params p = params_of_way(kind[round % 5], rnd_int(r, 1, SUPERPOSED_MAX_TOKENS));
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
        rig_ops = backend_find(rig_backend[_i], NULL);
    open_engine(128, 256, 64, 12);
    for (int i = 0; i < N_ROUND; i++) {
        all[i] = some_way(&r, i);
        random_prompt(&r, prompt[i], N_PROMPT);
        alone[i] = ask_and_finish(prompt[i], N_PROMPT, &all[i]);
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
        struct gen_params p = params_of_way(kind[i], 300);
        p.decoding.superposed.alpha = 0;
        p.decoding.superposed.reset_every = 20;
        p.temperature = 1;
        p.has_seed = true;
        p.n_logprobs = kind[i] == DECODE_SUPERPOSED ? 0 : 5;
        struct heard *read = ask_and_finish(prompt, N_PROMPT, &p), *h = ask(prompt, N_PROMPT, &p);
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
    struct gen_params p = params_of_way(DECODE_CAUTIOUS, 4);
    p.decoding.cautious.h_max = p.decoding.cautious.h_min;
    refused(p, "decoding.h_max");
    p = params_of_way(DECODE_CAUTIOUS, 4);
    p.decoding.cautious.max_trials = 33;
    refused(p, "decoding.max_trials");
    p = params_of_way(DECODE_CAUTIOUS, 4);
    p.decoding.max_draft = 3;
    refused(p, "decoding.draft");
    p = params_of_way(DECODE_CONTRASTIVE, 4);
    p.decoding.contrastive.alpha = NAN;
    refused(p, "decoding.penalty_alpha");
    p = params_of_way(DECODE_BEAM, 4);
    p.decoding.beam.n_group = 3;
    refused(p, "decoding.num_beam_groups");
    p = params_of_way(DECODE_SUPERPOSED, 4);
    refused(p, "decoding.alpha"); /* there is no store */
    p.decoding.superposed.alpha = 0;
    p.frequency_penalty = 1;
    refused(p, "decoding.strategy");
    p = params_of_way(DECODE_SUPERPOSED, 21);
    refused(p, "max_tokens");
    p.decoding.superposed.alpha = 0;
    p.decoding.superposed.reset_every = 21;
    refused(p, "decoding.reset_every");
    p.decoding.superposed.reset_every = -1;
    refused(p, "decoding.reset_every");
    p = params_of_way(DECODE_BEAM, 4);
    p.n = 5;
    refused(p, "n");
    struct err e = {0};
    struct request *r;
    int32_t prompt[] = {1, 2, 3};
    p = params_of_way(DECODE_BEAM, 60); /* its beams could never stand side by side */
    ck_assert_int_eq(request_create(eng, prompt, 3, &p, &rig_sink, NULL, &r, &e), -ERR_TOOLONG);
    p = params_of_way(DECODE_BEAM, 4); /* more beams than run at once: fewer, and the answer says so */
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
    tcase_add_loop_test(tc, the_simplest_case_is_plain, 0, 3);
    tcase_add_test(tc, one_place);
    tcase_add_test(tc, the_best_are_found_in_order);
    tcase_add_loop_test(tc, beams_are_those_of_a_plain_search, 0, 3);
    tcase_add_test(tc, the_order_statistic);
    tcase_add_loop_test(tc, company_and_preemption_change_nothing, 0, 3);
    tcase_add_test(tc, clients_leave);
    tcase_add_test(tc, clients_that_read_slowly);
    tcase_add_test(tc, bad_requests_are_refused);
    return suite_run(tc);
}
