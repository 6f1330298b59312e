/* Verifiers asked for by name keep the law of the text, whatever tree they verify; and what DySpec's trees may spend. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "engine_rig.h"
#include "random_plan.h"
#include "../suite.h"

enum { N_PROMPT = 20, N_OUT = 60, N_FIRST = 3, SUPPORT = 3 };

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
    TCase *tc = tcase_create("draft law");
    tcase_add_checked_fixture(tc, rig_setup, rig_teardown);
    tcase_add_loop_test(tc, named_verifiers_keep_the_law, 0, (int)(sizeof verified / sizeof *verified));
    tcase_add_test(tc, dyspec_trees_share_a_budget);
    return suite_run(tc);
}
