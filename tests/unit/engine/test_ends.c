/* How a request ends, over the fake back end stepped by hand: by itself, cancelled, too late, refused, with the device.
 */
#include <check.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "engine_rig.h"
#include "fake.h"
#include "mem.h"
#include "../suite.h"

START_TEST(every_way_to_end)
{
    struct rnd r = rnd_begin("every_way_to_end", 5);
    int32_t prompt[20];
    random_prompt(&r, prompt, 20);
    open_engine(512, 64, 64, 8);
    struct gen_params p = params(60);
    p.temperature = 1;
    p.has_seed = true;
    struct heard *whole = ask(prompt, 20, &p);
    finish(whole);

    p.stop_ids = &whole->tok[0][7];
    p.n_stop_ids = 1;
    struct heard *h = ask(prompt, 20, &p);
    finish(h);
    int at = 0;
    while (whole->tok[0][at] != whole->tok[0][7])
        at++;
    ck_assert_int_eq(h->n_tok[0], at + 1);
    ck_assert_int_eq(h->finish[0], FINISH_STOP);
    forget(h);
    p.min_tokens = at + 1; /* banned until then: another text, but not shorter */
    h = ask(prompt, 20, &p);
    finish(h);
    ck_assert_int_gt(h->n_tok[0], at + 1);
    ck_assert_int_ne(h->tok[0][at], whole->tok[0][7]);
    forget(h);
    p.n_stop_ids = p.min_tokens = 0;

    char stop[16] = {0};
    memcpy(stop, whole->text[0] + whole->n_text[0] / 2, 3);
    const char *stops[] = {stop};
    p.stop = stops;
    p.n_stop = (int32_t)(strlen(stop) > 0 && !(stop[0] & 0x80));
    if (p.n_stop) {
        h = ask(prompt, 20, &p);
        finish(h);
        const char *first_hit = memmem(whole->text[0], (size_t)whole->n_text[0], stop, strlen(stop));
        ck_assert_int_eq(h->n_text[0], (int)(first_hit - whole->text[0]));
        ck_assert_mem_eq(h->text[0], whole->text[0], (size_t)h->n_text[0]);
        ck_assert_int_eq(h->finish[0], FINISH_STOP);
        ck_assert_str_eq(h->stop_text, stop);
        forget(h);
    }
    p.n_stop = 0;

    p.max_tokens = 0;
    p.n_prompt_logprobs = 2;
    h = ask(prompt, 20, &p);
    finish(h);
    ck_assert_int_eq(h->n_tok[0], 0);
    ck_assert_int_eq(h->finish[0], FINISH_LENGTH);
    for (int i = 1; i < 20; i++) {
        float lp;
        int32_t rank, n_top;
        const struct top_logprob *top;
        request_prompt_logprob(h->r, i, &lp, &rank, &n_top, &top);
        ck_assert(lp < 0 && isfinite(lp) && n_top == 2 && top[0].logprob >= top[1].logprob);
        ck_assert(rank > 0 ? top[0].logprob >= lp : top[0].logprob == lp);
    }
    forget(h);
    forget(whole);
    close_engine();
}
END_TEST

START_TEST(canceled_anywhere_leaves_nothing_behind)
{
    struct rnd r = rnd_begin("canceled_anywhere_leaves_nothing_behind", 6);
    int32_t prompt[200];
    for (int round = 0; round < 60; round++) {
        struct heard *h[6];
        open_engine(512, 40, 32, 3);
        for (int i = 0; i < 6; i++) {
            struct gen_params p = params(rnd_int(&r, 1, 100));
            p.n = rnd_int(&r, 1, 3);
            int32_t n = rnd_int(&r, 1, 200);
            random_prompt(&r, prompt, n);
            h[i] = ask(prompt, n, &p);
        }
        for (int i = 0, n = rnd_int(&r, 0, 30); i < n; i++)
            step();
        for (int i = 0; i < 6; i++)
            if (!h[i]->done)
                engine_cancel(eng, h[i]->r);
        step(); /* within one step */
        for (int i = 0; i < 6; i++) {
            ck_assert(h[i]->done);
            forget(h[i]);
        }
        ck_assert_int_eq(engine_n_pending(eng), 0);
        ck_assert_int_eq(atomic_load(&eng->n_queued), 0);
        close_engine();
    }
}
END_TEST

START_TEST(deadlines_queue_limit_and_drain)
{
    int32_t prompt[4] = {1, 2, 3, 4};
    struct err e;
    open_engine(512, 64, 64, 2);
    eng->opt.max_queue = 3;
    struct gen_params p = params(400);
    p.timeout_ns = 20000000;
    struct heard *h[3];
    for (int i = 0; i < 3; i++)
        h[i] = ask(prompt, 4, &p);
    struct request *r;
    ck_assert(!request_create(eng, prompt, 4, &p, &rig_sink, NULL, &r, &e));
    ck_assert_int_eq(engine_submit(eng, r, &e), -ERR_BUSY);
    usleep(30000);
    step();
    for (int i = 0; i < 3; i++) {
        ck_assert(h[i]->done);
        ck_assert_int_eq(h[i]->finish[0], FINISH_DEADLINE);
        forget(h[i]);
    }
    engine_drain(eng);
    ck_assert_int_eq(engine_submit(eng, r, &e), -ERR_BUSY);
    request_free(r);
    close_engine();
}
END_TEST

START_TEST(bad_requests_are_refused_by_name)
{
    int32_t prompt[600] = {0};
    open_engine(512, 64, 64, 8);
    struct gen_params good = params(10), p;
    struct request *r;
    struct err e;
#define REFUSED(change, code, field)                                                                                   \
    p = good;                                                                                                          \
    change;                                                                                                            \
    ck_assert_int_eq(request_create(eng, prompt, 4, &p, &rig_sink, NULL, &r, &e), -(code));                            \
    ck_assert_msg(strstr(e.msg, field) != NULL, "%s", e.msg);
    REFUSED(p.temperature = -1, ERR_INVALID, "temperature")
    REFUSED(p.temperature = NAN, ERR_INVALID, "temperature")
    REFUSED(p.top_p = 0, ERR_INVALID, "top_p")
    REFUSED(p.n = 9, ERR_INVALID, "n must")
    REFUSED(p.n = 0, ERR_INVALID, "n must")
    REFUSED(p.max_tokens = 600, ERR_TOOLONG, "max_tokens")
    REFUSED(p.min_tokens = 11, ERR_INVALID, "min_tokens")
    REFUSED(p.n_logprobs = 21, ERR_INVALID, "logprobs")
    REFUSED(p.presence_penalty = 3, ERR_INVALID, "presence_penalty")
    const char *empty[] = {""};
    REFUSED((p.stop = empty, p.n_stop = 1), ERR_INVALID, "stop")
    struct logit_bias bias = {.tok = 9999};
    REFUSED((p.bias = &bias, p.n_bias = 1), ERR_INVALID, "logit_bias")
    prompt[2] = -1;
    REFUSED((void)0, ERR_INVALID, "prompt")
    prompt[2] = 0;
    ck_assert_int_eq(request_create(eng, prompt, 0, &good, &rig_sink, NULL, &r, &e), -ERR_INVALID);
    ck_assert_int_eq(request_create(eng, prompt, 512, &good, &rig_sink, NULL, &r, &e), -ERR_TOOLONG);
    for (long nth = 1; nth < 40; nth++) { /* out of memory anywhere in creation: refused, nothing leaks */
        mem_fail_nth(nth);
        int rc = request_create(eng, prompt, 40, &good, &rig_sink, NULL, &r, &e);
        mem_fail_nth(0);
        ck_assert(rc == 0 || rc == -ERR_NOMEM);
        request_free(r);
    }
    close_engine();
}
END_TEST

START_TEST(a_broken_device_fails_everyone_once)
{
    int32_t prompt[4] = {1, 2, 3, 4};
    open_engine(512, 64, 64, 8);
    struct gen_params p = params(100);
    struct heard *h[4];
    for (int i = 0; i < 4; i++)
        h[i] = ask(prompt, 4, &p);
    fake_fail_wait(5);
    for (int i = 0; i < 8; i++)
        step();
    for (int i = 0; i < 4; i++) {
        ck_assert(h[i]->done);
        ck_assert_int_eq(h[i]->finish[0], FINISH_ERROR);
        ck_assert_ptr_nonnull(strstr(request_error(h[i]->r), "fake device"));
        forget(h[i]);
    }
    ck_assert(engine_failed(eng));
    close_engine();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ends");
    tcase_add_checked_fixture(tc, rig_setup, rig_teardown);
    tcase_add_test(tc, every_way_to_end);
    tcase_add_test(tc, canceled_anywhere_leaves_nothing_behind);
    tcase_add_test(tc, deadlines_queue_limit_and_drain);
    tcase_add_test(tc, bad_requests_are_refused_by_name);
    tcase_add_test(tc, a_broken_device_fails_everyone_once);
    return suite_run(tc);
}
