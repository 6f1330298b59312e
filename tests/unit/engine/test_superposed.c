/* Superposed Decoding over the engine: exact scores, resets, preemption. What it has in common with the other ways is
 * in test_ways.c, its formulas in tests/unit/ngram. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "engine_rig.h"
#include "../suite.h"

enum { N_PROMPT = 20, N_STRETCHED = 60, N_ENDS = 40 };

/* Superposed drafts are ranked by what the model says of each alone: bit for bit what scoring them as prompts gives. */
START_TEST(drafts_are_scored_exactly)
{
    struct rnd r = rnd_begin("drafts_are_scored_exactly", 68);
    int32_t text[N_PROMPT + N_STRETCHED], ends[N_ENDS], n_early = 0;
    if (_i)
        rig_ops = backend_find(rig_backend[_i], NULL);
    open_engine(256, 128, 256, 40);
    for (int round = 0; round < 12; round++) {
        random_prompt(&r, text, N_PROMPT);
        struct gen_params p = params_of_way(DECODE_SUPERPOSED, rnd_int(&r, 1, SUPERPOSED_MAX_TOKENS)),
                          score = params(0);
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
        struct heard *h = ask_and_finish(text, N_PROMPT, &p);
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
    struct gen_params p = params_of_way(DECODE_SUPERPOSED, max_tokens);
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
        rig_ops = backend_find(rig_backend[_i], NULL);
    open_engine(256, 128, 64, 16);
    for (int round = 0; round < 8; round++) {
        int32_t every = rnd_int(&r, 1, 12), n = 0;
        struct gen_params p = superposed(rnd_int(&r, 2 * every, N_STRETCHED), every), one = superposed(every, 0);
        p.seed = (uint64_t)round;
        p.n = one.n = rnd_int(&r, 2, 5);
        p.decoding.superposed.n_draft = one.decoding.superposed.n_draft = p.n;
        p.n_logprobs = one.n_logprobs = 0;
        random_prompt(&r, text, N_PROMPT);
        struct heard *h = ask_and_finish(text, N_PROMPT, &p);
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
        struct heard *never = ask_and_finish(prompt, N_PROMPT, &p);
        p.decoding.superposed.reset_every = rnd_int(&r, p.max_tokens, SUPERPOSED_MAX_TOKENS);
        struct heard *late = ask_and_finish(prompt, N_PROMPT, &p);
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
    struct heard *draft = ask_and_finish(prompt, N_PROMPT, &p);
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
        struct heard *h = ask_and_finish(prompt, N_PROMPT, &p),
                     *again = i % 100 ? NULL : ask_and_finish(prompt, N_PROMPT, &p);
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
    struct heard *alone = ask_and_finish(prompt, N_PROMPT, &p), *h = NULL;
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

int main(void)
{
    TCase *tc = tcase_create("superposed");
    tcase_add_checked_fixture(tc, rig_setup, rig_teardown);
    tcase_add_loop_test(tc, drafts_are_scored_exactly, 0, 3);
    tcase_add_loop_test(tc, stretches_are_requests_of_their_own, 0, 3);
    tcase_add_test(tc, a_reset_behind_the_end_changes_nothing);
    tcase_add_test(tc, a_reset_draws_by_the_scores);
    tcase_add_loop_test(tc, a_stretch_begins_again, 0, 2);
    return suite_run(tc);
}
