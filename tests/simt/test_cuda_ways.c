/* The engine over the cuda back end on the fake runtime: every way of decoding gives ref's tokens wherever rounding
 * cannot have decided between two of them, and in the batch-invariant mode no draft and no company changes a bit. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit/engine/engine_rig.h"
#include "../unit/engine/tiny_gguf.h"
#include "../unit/suite.h"
#include "fake_comm.h"
#include "fake_runtime.h"

extern const struct backend_ops backend_ref;

enum { N_PROMPT = 20, N_OUT = 16, N_ASKED = 2, DIM = 64 };

/* Nats by which a log-probability may be off ref's: 2 % of the largest (test_cuda.c), which with these weights lie
 * below -8. Tokens that are closer than twice that may change places. */
#define TOLERANCE 0.15

static char *target, *draft;
static int32_t prompt[N_ASKED][N_PROMPT];

static void setup(void)
{
    struct rnd r = rnd_begin("cuda_ways", 71);
    tiny_head_dim = DIM;
    target = tiny_gguf_write("llama", 2048, 1, 0);
    draft = tiny_gguf_write("llama", 2048, 1, .05f);
    for (int i = 0; i < N_ASKED; i++)
        random_prompt(&r, prompt[i], N_PROMPT);
    fake_runtime_reset();
    fake_comm_reset();
    fake_faults.n_device = 2;
}

static void teardown(void)
{
    unlink(target), unlink(draft);
    free(target), free(draft);
    ck_assert_int_eq(fake_runtime_live(), 0);
}

static void on_wake(struct sink *s)
{
    (void)s;
}

static void open_on(const struct backend_ops *ops, int32_t n_rank, bool deterministic)
{
    struct err e = {0};
    struct engine_options opt = {.model_path = target,
                                 .draft_path = draft,
                                 .ops = ops,
                                 .n_ctx = 128,
                                 .max_batch_tokens = 48,
                                 .max_seqs = 12,
                                 .kv_type = "bf16",
                                 .tensor_parallel = n_rank,
                                 .deterministic = deterministic};
    ck_assert_msg(!engine_open(&opt, &eng, &e), "%s", e.msg);
    rig_sink = (struct sink){.wake = on_wake};
}

/* ---- Ways ---- */

enum { PLAIN, COPIED, DRAFTED, TREE, AUTO, N_LOSSLESS, CONTRASTIVE = N_LOSSLESS, BEAM, N_WAY };

static struct heard *ask_way(int i, int way, const int32_t *predicted)
{
    struct gen_params p = params(N_OUT);
    p.n_logprobs = 2;
    p.decoding.strategy = way == PLAIN         ? DECODE_OFF
                          : way == AUTO        ? DECODE_AUTO
                          : way == CONTRASTIVE ? DECODE_CONTRASTIVE
                          : way == BEAM        ? DECODE_BEAM
                                               : DECODE_SPECULATIVE;
    if (way == COPIED)
        p.decoding.source = DRAFT_SOURCE_COPY;
    if (way == DRAFTED || way == TREE)
        p.decoding.source = DRAFT_SOURCE_MODEL;
    if (way == TREE)
        p.decoding.tree.nodes = 12;
    if (way == BEAM)
        p.decoding.beam.width = 3;
    if (predicted && (way == COPIED || way == AUTO)) {
        p.prediction = predicted;
        p.n_prediction = N_OUT;
    }
    return ask(prompt[i], N_PROMPT, &p);
}

/* Up to the first place where they differ, which must be one of those that may; returns how many were the same. */
static int check_near(const struct heard *got, const struct heard *want)
{
    for (int t = 0; t < want->n_tok[0]; t++) {
        if (got->tok[0][t] != want->tok[0][t]) {
            ck_assert_msg(want->gap[0][t] <= 2 * TOLERANCE, "token %d: %d, not %d, which is %g nats likelier", t,
                          got->tok[0][t], want->tok[0][t], (double)want->gap[0][t]);
            return t;
        }
        ck_assert_msg(fabs(got->logprob[0][t] - want->logprob[0][t]) <= TOLERANCE, "token %d: %g, not %g", t,
                      (double)got->logprob[0][t], (double)want->logprob[0][t]);
    }
    return want->n_tok[0];
}

static void ask_all(struct heard *h[N_ASKED][N_WAY], int first, int end, struct heard *const *predicted)
{
    for (int i = 0; i < N_ASKED; i++) {
        for (int way = first; way < end; way++)
            h[i][way] = ask_way(i, way, predicted ? predicted[i]->tok[0] : NULL);
        for (int way = first; way < end; way++)
            finish(h[i][way]);
    }
}

static void forget_all(struct heard *h[N_ASKED][N_WAY], int first, int end)
{
    for (int i = 0; i < N_ASKED; i++)
        for (int way = first; way < end; way++)
            forget(h[i][way]);
}

/* ---- The tests ---- */

START_TEST(ways_say_what_ref_says)
{
    int n_rank = _i + 1, n_near = 0, n_same = 0;
    struct heard *want[N_ASKED][N_WAY], *got[N_ASKED][N_WAY], *predicted[N_ASKED];
    open_on(&backend_ref, 0, false);
    ask_all(want, PLAIN, PLAIN + 1, NULL);
    ask_all(want, CONTRASTIVE, N_WAY, NULL);
    engine_close(eng);
    for (int i = 0; i < N_ASKED; i++)
        predicted[i] = want[i][PLAIN];
    open_on(cuda_backend(&fake_runtime, &fake_comm, NULL), n_rank, false);
    ask_all(got, PLAIN, N_WAY, predicted);
    engine_close(eng);
    for (int i = 0; i < N_ASKED; i++) {
        for (int way = PLAIN; way < N_LOSSLESS; way++)
            n_near += check_near(got[i][way], want[i][PLAIN]);
        for (int way = CONTRASTIVE; way < N_WAY; way++) /* what decides them is no gap: most of them agree */
            n_same += !memcmp(got[i][way]->tok[0], want[i][way]->tok[0], N_OUT * sizeof(int32_t));
    }
    printf("%d of %d tokens the same, %d of %d texts the same\n", n_near, N_ASKED * N_LOSSLESS * N_OUT, n_same,
           N_ASKED * 2);
    ck_assert_int_ge(n_near, N_ASKED * N_LOSSLESS * N_OUT / 2);
    ck_assert_int_ge(n_same, N_ASKED);
    forget_all(got, PLAIN, N_WAY);
    forget_all(want, PLAIN, PLAIN + 1);
    forget_all(want, CONTRASTIVE, N_WAY);
}
END_TEST

START_TEST(no_draft_changes_a_bit_in_the_deterministic_mode)
{
    struct heard *h[N_ASKED][N_WAY], *alone[N_ASKED][N_WAY], *predicted[N_ASKED];
    open_on(cuda_backend(&fake_runtime, &fake_comm, NULL), 1, true);
    for (int i = 0; i < N_ASKED; i++) {
        alone[i][PLAIN] = predicted[i] = ask_way(i, PLAIN, NULL);
        finish(alone[i][PLAIN]);
    }
    ask_all(h, PLAIN, N_LOSSLESS, predicted);
    int64_t n_accepted = 0;
    for (int i = 0; i < N_ASKED; i++)
        for (int way = PLAIN; way < N_LOSSLESS; way++) {
            expect_same(alone[i][PLAIN], h[i][way]);
            n_accepted += request_decoding(h[i][way]->r)->n_accepted;
        }
    ck_assert_int_gt(n_accepted, N_ASKED * N_OUT);
    forget_all(h, PLAIN, N_LOSSLESS);
    forget_all(alone, PLAIN, PLAIN + 1);
    engine_close(eng);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("cuda_ways");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, ways_say_what_ref_says, 0, 2);
    tcase_add_test(tc, no_draft_changes_a_bit_in_the_deterministic_mode);
    return suite_run(tc);
}
