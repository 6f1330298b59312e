/* The engine over the fake back end, stepped by hand: what a request says must not depend on who else is there, how the
 * prompt was cut, or how often it was preempted; and nothing may leak or allocate. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine_rig.h"
#include "fake.h"
#include "mem.h"
#include "random_plan.h"
#include "tiny_gguf.h"
#include "../suite.h"

/* The answer computed without the engine: each token from a fresh plan over everything before it. */
static void oracle(const int32_t *prompt, int32_t n_prompt, const struct law *law, int32_t n_out, int32_t *out)
{
    struct tiny_model t = {.d = fake_model_desc(TINY_VOCAB, 2048)};
    t.d.n_layer = 2;
    struct rig g;
    struct kv_config kv = {.block_len = 16, .n_block = 64};
    rig_open(&g, &backend_fake, &t, &kv, 1);
    int32_t tok[1024], bt[64];
    memcpy(tok, prompt, sizeof *tok * (size_t)n_prompt);
    for (int i = 0; i < 64; i++)
        bt[i] = i;
    for (int32_t i = 0; i < n_out; i++) {
        int32_t n = n_prompt + i;
        plan_reset(&g.plan);
        plan_law(&g.plan, law, NULL, 0, NULL, 0);
        rig_chain(&g, 0, 0, tok, n, bt, 64);
        plan_readout(&g.plan, &(struct readout){.kind = READ_SAMPLE, .row = n - 1, .bank = -1}, NULL);
        rig_step(&g);
        tok[n] = out[i] = g.out.i[0];
    }
    rig_close(&g);
}

START_TEST(equals_the_oracle_greedy_and_sampled)
{
    struct rnd r = rnd_begin("equals_the_oracle_greedy_and_sampled", 1);
    open_engine(512, 64, 64, 8);
    for (int round = 0; round < 10; round++) {
        int32_t prompt[100], n = rnd_int(&r, 1, 100), want[40];
        random_prompt(&r, prompt, n);
        struct gen_params p = params(40);
        p.has_seed = true;
        p.seed = (uint64_t)round;
        p.temperature = round % 2 ? 0.8f : 0;
        p.top_k = round % 3 ? 0 : 5;
        struct heard *h = ask(prompt, n, &p);
        struct law law = neutral_law();
        law.temperature = p.temperature;
        law.top_k = p.top_k;
        law.noise_key = h->r->seq[0].noise_key;
        finish(h);
        oracle(prompt, n, &law, 40, want);
        ck_assert_int_eq(h->n_tok[0], 40);
        ck_assert_mem_eq(h->tok[0], want, sizeof want);
        ck_assert_int_eq(h->finish[0], FINISH_LENGTH);
        forget(h);
    }
    close_engine();
}
END_TEST

enum { N_REQ = 24 };
static int32_t prompts[N_REQ][200], n_prompts[N_REQ];
static struct heard *first[N_REQ];

static struct gen_params params_of(int i)
{
    struct gen_params p = params(10 + 3 * i);
    p.temperature = i % 2 ? 1 : 0;
    p.has_seed = true;
    p.seed = (uint64_t)i;
    p.n = i % 5 == 4 ? 3 : 1;
    p.frequency_penalty = i % 3 ? 0 : 0.5f;
    p.repetition_penalty = i % 4 ? 1 : 1.2f;
    p.priority = i % 3;
    p.n_logprobs = 0;
    return p;
}

static void ask_each_alone(struct rnd *r)
{
    open_engine(1024, 1024, 4096, 32);
    for (int i = 0; i < N_REQ; i++) {
        n_prompts[i] = rnd_int(r, 1, 200);
        random_prompt(r, prompts[i], n_prompts[i]);
        if (i > 0 && i % 4 == 0) /* shared prefixes */
            memcpy(prompts[i], prompts[i - 1],
                   sizeof(int32_t) * (size_t)(n_prompts[i] < n_prompts[i - 1] ? n_prompts[i] : n_prompts[i - 1]));
        struct gen_params p = params_of(i);
        p.no_cache = true;
        p.decoding.strategy = DECODE_OFF;
        first[i] = ask(prompts[i], n_prompts[i], &p);
        finish(first[i]);
    }
    close_engine();
}

/* All at once, on ever tighter engines: small batches cut the prompts, few blocks preempt, few places queue. */
START_TEST(company_changes_nothing)
{
    static const char *const backend[] = {NULL, "ref", "cpu"}; /* the real ones: the same tokens from the same logits */
    struct rnd r = rnd_begin("company_changes_nothing", 2);
    if (backend[_i]) {
        rig_ops = backend_find(backend[_i], NULL);
        ck_assert_ptr_nonnull(rig_ops);
    }
    ask_each_alone(&r);
    static const struct {
        int32_t n_block, batch, seqs;
    } tight[] = {{1024, 512, 32}, {1024, 7, 32}, {40, 64, 32}, {24, 64, 32}, {1024, 64, 4}, {24, 5, 3}};
    for (size_t k = 0; k < sizeof tight / sizeof *tight; k++) {
        struct heard *h[N_REQ];
        open_engine(320, tight[k].n_block, tight[k].batch, tight[k].seqs);
        for (int i = 0; i < N_REQ; i++) {
            struct gen_params p = params_of(i);
            h[i] = ask(prompts[i], n_prompts[i], &p);
            if (rnd_int(&r, 0, 2) == 0)
                step();
        }
        for (int i = 0; i < N_REQ; i++) {
            finish(h[i]);
            expect_same(first[i], h[i]);
        }
        if (tight[k].n_block < 100)
            ck_assert_uint_gt(eng->metrics.now.n_preempted, 0);
        for (int i = 0; i < N_REQ; i++)
            forget(h[i]);
        close_engine();
    }
    for (int i = 0; i < N_REQ; i++)
        forget(first[i]);
}
END_TEST

START_TEST(a_second_turn_finds_the_first_in_the_cache)
{
    struct rnd r = rnd_begin("a_second_turn_finds_the_first_in_the_cache", 3);
    int32_t prompt[300], n = 70;
    open_engine(512, 64, 64, 8);
    random_prompt(&r, prompt, n);
    struct gen_params p = params(50);
    struct heard *a = ask(prompt, n, &p);
    finish(a);
    memcpy(prompt + n, a->tok[0], sizeof(int32_t) * 50);
    struct heard *b = ask(prompt, n + 50, &p);
    finish(b);
    struct request_usage u;
    request_usage(b->r, &u);
    ck_assert_int_eq(u.n_cached, (n + 50 - 1) / 16 * 16); /* generated blocks are in it too */
    p.cache_salt = "mine";
    struct heard *c = ask(prompt, n + 50, &p);
    finish(c);
    request_usage(c->r, &u);
    ck_assert_int_eq(u.n_cached, 0);
    expect_same(b, c);
    forget(a), forget(b), forget(c);
    close_engine();
}
END_TEST

START_TEST(choice_0_of_many_is_the_only_choice_of_one)
{
    struct rnd r = rnd_begin("choice_0_of_many_is_the_only_choice_of_one", 4);
    for (int32_t n = 1; n < 36; n += 2) {
        int32_t prompt[40];
        open_engine(512, 256, 64, 8);
        random_prompt(&r, prompt, n);
        struct gen_params p = params(20);
        p.temperature = 1;
        p.has_seed = true;
        p.seed = 99;
        struct heard *one = ask(prompt, n, &p);
        finish(one);
        p.n = 5;
        p.no_cache = true;
        struct heard *many = ask(prompt, n, &p);
        finish(many);
        ck_assert_mem_eq(one->tok[0], many->tok[0], sizeof(int32_t) * 20);
        ck_assert_mem_ne(many->tok[0], many->tok[1], sizeof(int32_t) * 20);
        forget(one), forget(many);
        close_engine();
    }
}
END_TEST

/* Several requests can share the draws of one: what the choices say does not depend on how they were spread. */
START_TEST(choices_are_numbered_across_requests)
{
    struct rnd r = rnd_begin("choices_are_numbered_across_requests", 6);
    int32_t prompt[20];
    random_prompt(&r, prompt, 20);
    open_engine(512, 256, 64, 8);
    struct gen_params p = params(20);
    p.temperature = 1;
    p.has_seed = true;
    p.n = 5;
    struct heard *many = ask(prompt, 20, &p);
    finish(many);
    for (p.choice0 = 0; p.choice0 < 5; p.choice0 += 2) {
        p.n = p.choice0 == 4 ? 1 : 2;
        struct heard *some = ask(prompt, 20, &p);
        finish(some);
        for (int32_t i = 0; i < p.n; i++)
            ck_assert_mem_eq(some->tok[i], many->tok[p.choice0 + i], sizeof(int32_t) * 20);
        forget(some);
    }
    forget(many);
    close_engine();
}
END_TEST

/* As many as a plan can rank, for all sequences of a step at once. */
START_TEST(one_token_requests_are_told_a_long_ranking)
{
    struct rnd r = rnd_begin("one_token_requests_are_told_a_long_ranking", 7);
    int32_t prompt[20], n_top = 0;
    struct request *req[8];
    random_prompt(&r, prompt, 20);
    open_engine(512, 256, 16, 8);
    struct gen_params p = params(1);
    p.n_logprobs = MAX_RANKED;
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(request_create(eng, prompt, 20 - i, &p, &rig_sink, NULL, &req[i], NULL), 0);
        ck_assert_int_eq(engine_submit(eng, req[i], NULL), 0);
    }
    for (int i = 0; i < 60; i++)
        engine_step(eng);
    struct request *done;
    bool is_done;
    while (sink_next(&rig_sink, &done, &is_done))
        ;
    for (int i = 0; i < 8; i++) {
        struct gen_event ev;
        ck_assert(request_next_event(req[i], &ev) && ev.tok >= 0);
        n_top = ev.n_top;
        ck_assert_int_gt(n_top, 20);
        ck_assert_int_eq(ev.top[0].tok, ev.tok); /* greedy */
        for (int32_t k = 1; k < n_top; k++)
            ck_assert(ev.top[k].logprob <= ev.top[k - 1].logprob && ev.top[k].tok != ev.top[k - 1].tok);
        request_free(req[i]);
    }
    close_engine();
}
END_TEST

/* A step's cost as on a processor: reading the weights, then so much a row. */
static void know_costs(struct engine *e)
{
    cost_init(&e->target.cost);
    for (int32_t n = 1; n <= 512; n *= 2)
        cost_set(&e->target.cost, n, .040 + .003 * n);
}

/* While a long prompt is taken in, a stream's steps stay within the bound, and a short prompt behind it is soon told.
 */
START_TEST(long_prompts_delay_nobody_much)
{
    enum { LONG = 2000, SHORT = 24 };
    struct rnd r = rnd_begin("long_prompts_delay_nobody_much", 14);
    static int32_t prompt[LONG];
    random_prompt(&r, prompt, LONG);
    open_engine(4096, 1024, 512, 8);
    struct gen_params p = params(400);
    p.decoding.strategy = DECODE_OFF;
    struct heard *stream = ask(prompt, SHORT, &p);
    step();
    p.max_tokens = 2;
    struct heard *slow = ask(prompt, LONG, &p);
    int n_step = 0, told = 0;
    for (; !slow->done; n_step++) {
        know_costs(eng); /* what the fake's steps really take is nobody's business */
        step();
        ck_assert_double_le(cost_step(&eng->target.cost, eng->target.plan.n.n_row),
                            3 * cost_step(&eng->target.cost, 1));
    }
    ck_assert_int_ge(stream->n_tok[0], n_step);
    ck_assert_int_le(n_step, LONG / 16 + 8);
    forget(slow);
    prompt[0] ^= 1; /* not from the prefix cache */
    engine_cancel(eng, stream->r);
    finish(stream);
    forget(stream);

    slow = ask(prompt, LONG, &p);
    prompt[0] ^= 2;
    struct heard *quick = ask(prompt, SHORT, &p);
    for (; !quick->n_tok[0]; told++) {
        know_costs(eng);
        step();
    }
    ck_assert_int_le(told, 2);
    ck_assert_int_eq(slow->n_tok[0], 0);
    finish(slow);
    finish(quick);
    forget(slow);
    forget(quick);
    close_engine();
}
END_TEST

START_TEST(a_slow_reader_pauses_only_itself)
{
    int32_t prompt[4] = {1, 2, 3, 4};
    open_engine(2048, 256, 64, 8);
    struct gen_params p = params(1500);
    struct heard *slow = ask(prompt, 4, &p);
    p.max_tokens = 300;
    struct heard *quick = ask(prompt, 4, &p);
    for (int i = 0; i < 4000; i++) { /* only the quick one's events are read */
        engine_step(eng);
        hear(quick);
    }
    ck_assert_int_eq(quick->n_tok[0], 300);
    int32_t paused_at = slow->r->seq[0].n_out;
    ck_assert_int_lt(paused_at, 1500);
    finish(slow);
    ck_assert_int_eq(slow->n_tok[0], 1500);
    ck_assert_int_eq(slow->finish[0], FINISH_LENGTH);
    forget(slow), forget(quick);
    close_engine();
}
END_TEST

START_TEST(steps_allocate_nothing)
{
    struct rnd r = rnd_begin("steps_allocate_nothing", 7);
    struct heard *h[N_REQ];
    int32_t prompt[200];
    open_engine(512, 40, 32, 6);
    for (int i = 0; i < N_REQ; i++) {
        struct gen_params p = params_of(i);
        p.n_logprobs = i % 4;
        int32_t n = rnd_int(&r, 1, 200);
        random_prompt(&r, prompt, n);
        h[i] = ask(prompt, n, &p);
    }
    unsigned long before = mem_thread_count();
    for (int i = 0; i < N_REQ; i++)
        finish(h[i]);
    ck_assert_uint_eq(mem_thread_count(), before);
    for (int i = 0; i < N_REQ; i++)
        forget(h[i]);
    close_engine();
}
END_TEST

START_TEST(real_thread_serves_and_stops)
{
    int32_t prompt[4] = {1, 2, 3, 4};
    open_engine(512, 64, 64, 8);
    ck_assert(!engine_start(eng, NULL));
    struct gen_params p = params(50);
    struct heard *h[4];
    for (int i = 0; i < 4; i++)
        h[i] = ask(prompt, 4, &p);
    for (int i = 0; i < 4; i++)
        for (int wait = 0; !h[i]->done; wait++) {
            usleep(1000);
            listen_all();
            ck_assert_int_lt(wait, 20000);
        }
    p.max_tokens = 400;
    struct heard *last = ask(prompt, 4, &p);
    engine_stop(eng);
    listen_all();
    ck_assert(last->done);
    for (int i = 0; i < 4; i++)
        forget(h[i]);
    forget(last);
    close_engine();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("engine");
    tcase_add_checked_fixture(tc, rig_setup, rig_teardown);
    tcase_add_test(tc, equals_the_oracle_greedy_and_sampled);
    tcase_add_loop_test(tc, company_changes_nothing, 0, 3);
    tcase_add_test(tc, a_second_turn_finds_the_first_in_the_cache);
    tcase_add_test(tc, choice_0_of_many_is_the_only_choice_of_one);
    tcase_add_test(tc, choices_are_numbered_across_requests);
    tcase_add_test(tc, one_token_requests_are_told_a_long_ranking);
    tcase_add_test(tc, long_prompts_delay_nobody_much);
    tcase_add_test(tc, a_slow_reader_pauses_only_itself);
    tcase_add_test(tc, steps_allocate_nothing);
    tcase_add_test(tc, real_thread_serves_and_stops);
    return suite_run(tc);
}
