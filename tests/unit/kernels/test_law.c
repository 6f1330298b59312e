/* The processed distribution against slow, separately written rules, and its draws against the law. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "law.h"
#include "random_plan.h"
#include "readout.h"
#include "rng.h"
#include "../suite.h"

enum { V = 60 };
static struct step_plan p;
static struct law_ws ws;

static void setup(void)
{
    struct plan_limits cap = test_limits(V);
    ck_assert(!plan_create(&p, &cap, NULL));
    ck_assert(!law_ws_create(&ws, V, 100, NULL));
}

static void teardown(void)
{
    plan_free(&p);
    law_ws_free(&ws);
}

/* One row at position 9 after a context, under `law`. */
static struct law_dist apply(const struct law *law, const struct law_tok *tok, int n_tok, const int32_t *ban, int n_ban,
                             const float *logits)
{
    struct law_dist d;
    plan_reset(&p);
    int l = plan_law(&p, law, tok, n_tok, ban, n_ban);
    plan_span(&p, &(struct span){.ctx_len = 9, .n_chain = 1, .n_counted = 1, .law = l, .layer1 = 1});
    plan_row(&p, 0, 9, -1, 0);
    law_apply(&p, &p.span[0], 0, logits, &ws, &d);
    return d;
}

static void softmax(const float *x, double t, double *out)
{
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < V; i++)
        top = fmax(top, x[i]);
    for (int i = 0; i < V; i++)
        sum += out[i] = exp((x[i] - top) / t);
    for (int i = 0; i < V; i++)
        out[i] /= sum;
}

/* Keeps the n likeliest (lowest id among equals) and renormalises. */
static void keep_top(double *q, int n)
{
    char kept[V] = {0};
    double sum = 0;
    for (int k = 0; k < n; k++) {
        int best = -1;
        for (int i = 0; i < V; i++)
            if (!kept[i] && (best < 0 || q[i] > q[best]))
                best = i;
        kept[best] = 1;
        sum += q[best];
    }
    for (int i = 0; i < V; i++)
        q[i] = kept[i] ? q[i] / sum : 0;
}

static int prefix_for_mass(const double *q, double need)
{
    for (int n = 1; n <= V; n++) {
        double copy[V], sum = 0;
        memcpy(copy, q, sizeof copy);
        keep_top(copy, n);
        for (int i = 0; i < V; i++)
            sum += copy[i] > 0 ? q[i] : 0;
        if (sum >= need)
            return n;
    }
    return V;
}

static void expect(const struct law_dist *d, const double *q)
{
    for (int i = 0; i < V; i++)
        ck_assert_msg(fabs(d->p[i] - q[i]) < 1e-5, "token %d: %g, expected %g", i, (double)d->p[i], q[i]);
}

START_TEST(top_k_then_top_p_then_min_p)
{
    struct rnd r = rnd_begin("top_k_then_top_p_then_min_p", 11);
    for (int round = 0; round < 200; round++) {
        float x[V];
        double q[V];
        for (int i = 0; i < V; i++)
            x[i] = 2 * rnd_normal(&r);
        struct law l = neutral_law();
        l.temperature = 0.3f + 0.1f * (float)rnd_int(&r, 0, 20);
        l.top_k = rnd_int(&r, 0, 1) ? rnd_int(&r, 1, V) : 0;
        l.top_p = rnd_int(&r, 0, 1) ? 0.05f * (float)rnd_int(&r, 1, 19) : 1;
        l.min_p = rnd_int(&r, 0, 1) ? 0.02f * (float)rnd_int(&r, 1, 40) : 0;
        softmax(x, l.temperature, q);
        if (l.top_k)
            keep_top(q, l.top_k);
        if (l.top_p < 1)
            keep_top(q, prefix_for_mass(q, l.top_p));
        double top = 0, sum = 0;
        for (int i = 0; i < V; i++)
            top = fmax(top, q[i]);
        for (int i = 0; i < V; i++)
            sum += q[i] = q[i] >= l.min_p * top ? q[i] : 0;
        for (int i = 0; i < V; i++)
            q[i] /= sum;
        struct law_dist d = apply(&l, NULL, 0, NULL, 0, x);
        expect(&d, q);
    }
}
END_TEST

START_TEST(top_h_both_rules)
{
    /* papers/autoregressive.md section 9: sizes kept by the paper's rule and by the released code. */
    static const struct {
        double p[5];
        float alpha;
        int entropy, partial;
    } row[] = {
        {{.9, .05, .03, .02}, .8f, 3, 2}, {{.4, .3, .15, .1, .05}, .5f, 2, 1}, {{.4, .3, .15, .1, .05}, .8f, 3, 3}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        for (int mode = 0; mode < 2; mode++) {
            float x[V];
            for (int t = 0; t < V; t++)
                x[t] = t < 5 && row[i].p[t] > 0 ? (float)log(row[i].p[t]) : -INFINITY;
            struct law l = neutral_law();
            l.top_h = row[i].alpha;
            l.top_h_mode = (uint8_t)mode;
            struct law_dist d = apply(&l, NULL, 0, NULL, 0, x);
            ck_assert_int_eq(d.n, mode == TOP_H_ENTROPY ? row[i].entropy : row[i].partial);
        }
    float flat[V];
    for (int t = 0; t < V; t++)
        flat[t] = 0;
    struct law l = neutral_law();
    l.top_h = 1;
    ck_assert_int_eq(apply(&l, NULL, 0, NULL, 0, flat).n, V);
    l.top_h = 0.5f;
    l.top_h_mode = TOP_H_ENTROPY;
    ck_assert_int_eq(apply(&l, NULL, 0, NULL, 0, flat).n, (int)sqrt(V)); /* uniform over n keeps n^alpha */
}
END_TEST

START_TEST(typical_keeps_what_is_nearest_the_entropy)
{
    float x[V];
    for (int t = 0; t < V; t++)
        x[t] = -INFINITY;
    double q[4] = {.55, .25, .15, .05}, h = 0;
    for (int t = 0; t < 4; t++) {
        x[t] = (float)log(q[t]);
        h -= q[t] * log(q[t]);
    }
    struct law l = neutral_law();
    l.typical_p = 0.2f; /* surprises .60 1.39 1.90 3.0 against H = 1.11: token 1 is nearest and suffices */
    struct law_dist d = apply(&l, NULL, 0, NULL, 0, x);
    ck_assert_int_eq(d.n, 1);
    ck_assert(d.p[1] == 1);
    l.typical_p = 0.5f;
    d = apply(&l, NULL, 0, NULL, 0, x);
    ck_assert_int_eq(d.n, 2);
    ck_assert(d.p[0] > 0 && d.p[1] > 0);
}
END_TEST

START_TEST(penalties_bias_and_bans)
{
    float x[V] = {2, 1, -1, 4, 0.5f};
    for (int t = 5; t < V; t++)
        x[t] = -3;
    struct law l = neutral_law();
    l.repetition = 2;
    l.frequency = 0.25f;
    l.presence = 0.5f;
    struct law_tok tok[] = {{.tok = 0, .n_prompt = 3}, {.tok = 1, .bias = 2}, {.tok = 2, .n_output = 2}};
    int32_t ban[] = {3};
    struct law_dist d = apply(&l, tok, 3, ban, 1, x);
    float y[V];
    memcpy(y, x, sizeof y);
    y[0] = 1; /* 2 / 2; the prompt does not count for frequency */
    y[1] = 3; /* bias only */
    y[2] = -1 * 2 - 2 * 0.25f - 0.5f;
    y[3] = -INFINITY;
    double q[V];
    softmax(y, 1, q);
    expect(&d, q);
}
END_TEST

START_TEST(tree_rows_count_their_own_path)
{
    float x[V];
    struct law_dist d;
    for (int t = 0; t < V; t++)
        x[t] = 0;
    struct law l = neutral_law();
    l.frequency = 1;
    plan_reset(&p);
    struct law_tok tok[] = {{.tok = 5, .n_output = 1}};
    int at = plan_law(&p, &l, tok, 1, NULL, 0);
    plan_span(&p, &(struct span){.ctx_len = 2, .n_chain = 2, .n_counted = 1, .law = at, .layer1 = 1});
    plan_row(&p, 5, 2, -1, 0); /* counted already */
    plan_row(&p, 6, 3, 0, 0);  /* a draft */
    plan_row(&p, 6, 4, 1, 1);  /* tree: 6 again */
    plan_row(&p, 7, 4, 1, 2);  /* its sibling */
    plan_row(&p, 8, 5, 2, 1 | 4);
    double q[V];
    float y[V] = {0};
    y[5] = -1, y[6] = -2, y[8] = -1; /* the path of the last row is 5 6 6 8; 7 is not on it */
    softmax(y, 1, q);
    law_apply(&p, &p.span[0], 4, x, &ws, &d);
    expect(&d, q);
    y[6] = -1, y[8] = 0, y[7] = -1;
    softmax(y, 1, q);
    law_apply(&p, &p.span[0], 3, x, &ws, &d);
    expect(&d, q);
}
END_TEST

START_TEST(masks_leave_nothing_else)
{
    float x[V] = {0};
    struct law_dist d;
    struct law l = neutral_law();
    plan_reset(&p);
    int at = plan_law(&p, &l, NULL, 0, NULL, 0);
    uint32_t mask[2] = {1u << 4, 1u << 20};
    plan_span(&p, &(struct span){.ctx_len = 2, .n_chain = 1, .n_counted = 1, .law = at, .layer1 = 1});
    plan_row(&p, 5, 2, -1, 0);
    p.row_mask[0] = plan_mask(&p, mask);
    law_apply(&p, &p.span[0], 0, x, &ws, &d);
    ck_assert_int_eq(d.n, 2);
    ck_assert(d.p[4] == 0.5f && d.p[52] == 0.5f);
    uint32_t none[2] = {0, 0};
    p.row_mask[0] = plan_mask(&p, none);
    law_apply(&p, &p.span[0], 0, x, &ws, &d);
    ck_assert_int_eq(d.n, 0);
    ck_assert_int_eq(law_draw(&d, &l, 1, NOISE_TARGET, NULL), -1);
}
END_TEST

START_TEST(non_finite_logits_never_win)
{
    float x[V] = {0};
    x[3] = NAN;
    struct law l = neutral_law();
    struct law_dist d = apply(&l, NULL, 0, NULL, 0, x);
    ck_assert(d.p[3] == 0 && d.n == V - 1);
    x[4] = INFINITY;
    ck_assert_int_eq(apply(&l, NULL, 0, NULL, 0, x).n, 0);
}
END_TEST

static double chi_square(const struct law_dist *d, struct law *l, enum noise_stream stream, int n_draw)
{
    int count[V] = {0};
    for (int i = 0; i < n_draw; i++) {
        l->noise_key = rng_mix((uint64_t)i);
        count[law_draw(d, l, i % 7, stream, NULL)]++;
    }
    double chi = 0;
    for (int t = 0; t < V; t++)
        if (d->p[t] > 0) {
            double e = (double)d->p[t] * n_draw;
            chi += (count[t] - e) * (count[t] - e) / e;
        } else {
            ck_assert_int_eq(count[t], 0);
        }
    return chi;
}

START_TEST(draws_follow_the_law)
{
    float x[V];
    for (int t = 0; t < V; t++)
        x[t] = t < 20 ? 0.2f * (float)(t % 7) : -INFINITY;
    struct law l = neutral_law();
    struct law_dist d = apply(&l, NULL, 0, NULL, 0, x);
    ck_assert(chi_square(&d, &l, NOISE_TARGET, 200000) < 43.8); /* 19 degrees of freedom, p = 0.001 */
    ck_assert(chi_square(&d, &l, NOISE_OFF_LIST, 200000) < 43.8);
    /* Negative control: the same draws held against another law must fail. */
    float other[V];
    memcpy(other, ws.p, sizeof other);
    float swap = other[0];
    other[0] = other[6];
    other[6] = swap;
    struct law_dist wrong = d;
    wrong.p = other;
    ck_assert(chi_square(&wrong, &l, NOISE_TARGET, 200000) > 100);
}
END_TEST

START_TEST(a_draw_depends_on_key_and_position_only)
{
    float x[V];
    for (int t = 0; t < V; t++)
        x[t] = 0.01f * (float)t;
    struct law l = neutral_law();
    struct law_dist d = apply(&l, NULL, 0, NULL, 0, x);
    int same = 0;
    for (int pos = 0; pos < 200; pos++) {
        int32_t a = law_draw(&d, &l, pos, NOISE_TARGET, NULL);
        ck_assert_int_eq(a, law_draw(&d, &l, pos, NOISE_TARGET, NULL));
        same += a == law_draw(&d, &l, pos + 1, NOISE_TARGET, NULL);
    }
    ck_assert_int_lt(same, 30);
    /* Truncating tokens that would not have won changes nothing: the coupling that drafters rely on. */
    struct law k = l;
    k.top_k = V - 5;
    int agree = 0;
    for (int pos = 0; pos < 200; pos++) {
        struct law_dist whole = apply(&l, NULL, 0, NULL, 0, x);
        int32_t a = law_draw(&whole, &l, pos, NOISE_TARGET, NULL);
        struct law_dist cut = apply(&k, NULL, 0, NULL, 0, x);
        agree += a == law_draw(&cut, &k, pos, NOISE_TARGET, NULL);
    }
    ck_assert_int_gt(agree, 170);
}
END_TEST

START_TEST(sampling_alone_draws_the_same_token)
{
    struct rnd r = rnd_begin("sampling_alone_draws_the_same_token", 8);
    for (int round = 0; round < 2000; round++) {
        float x[V];
        for (int t = 0; t < V; t++)
            x[t] = rnd_int(&r, 0, 9) ? 4 * rnd_normal(&r) : -INFINITY;
        struct law l = neutral_law();
        l.temperature = 0.25f * (float)rnd_int(&r, 0, 8);
        l.top_k = rnd_int(&r, 0, 2) ? 0 : 7;
        l.noise_key = rnd_u64(&r);
        struct law_dist d = apply(&l, NULL, 0, NULL, 0, x);
        int32_t whole = law_draw(&d, &l, 10, NOISE_TARGET, NULL);
        ck_assert_int_eq(whole, law_sample(&p, &p.span[0], 0, x, &ws));
    }
}
END_TEST

START_TEST(readouts_agree_with_the_law)
{
    struct rnd r = rnd_begin("readouts_agree_with_the_law", 5);
    struct readout_ws rw;
    ck_assert(!readout_ws_create(&rw, V, 100, NULL));
    float f[4 * V], x[V];
    int32_t it[4 * V];
    struct step_result out = {f, it};
    for (int round = 0; round < 50; round++) {
        for (int t = 0; t < V; t++)
            x[t] = 3 * rnd_normal(&r);
        struct law l = neutral_law();
        l.top_p = 0.9f;
        l.noise_key = rnd_u64(&r);
        struct law_dist d = apply(&l, NULL, 0, NULL, 0, x);
        double q[V], lse = 0, entropy = 0;
        softmax(x, 1, q);
        for (int t = 0; t < V; t++) {
            lse += exp(x[t]);
            entropy -= q[t] * log(q[t]);
        }
        readout_begin(&rw);
        int32_t list[3] = {1, 30, 59};
        int probe =
            plan_readout(&p, &(struct readout){.kind = READ_PROBE, .raw = 1, .row = 0, .n = 3, .bank = -1}, list);
        int topk = plan_readout(&p, &(struct readout){.kind = READ_TOPK, .raw = 1, .row = 0, .n = 5, .bank = -1}, NULL);
        int lp =
            plan_readout(&p, &(struct readout){.kind = READ_LOGPROB, .raw = 1, .row = 0, .n = 3, .bank = -1}, list);
        int smp = plan_readout(&p, &(struct readout){.kind = READ_SAMPLE, .row = 0, .n = 1, .bank = -1}, NULL);
        for (int i = 0; i < 4; i++)
            readout_logits(&p, &p.span[0], &p.readout[i], x, &rw, &out);
        float *pf = f + p.readout[probe].f0, *tf = f + p.readout[topk].f0, *lf = f + p.readout[lp].f0;
        int32_t *pi = it + p.readout[probe].i0, *ti = it + p.readout[topk].i0, *li = it + p.readout[lp].i0;
        double on = 0;
        for (int j = 0; j < 3; j++) {
            ck_assert(pf[j] == d.p[list[j]]);
            on += d.p[list[j]];
            ck_assert(fabs(lf[j] - log(q[list[j]])) < 1e-4);
            int rank = 0;
            for (int t = 0; t < V; t++)
                rank += x[t] > x[list[j]];
            ck_assert_int_eq(li[j], rank);
            ck_assert(pf[4 + j] == lf[j] && pi[2 + j] == rank);
        }
        for (int j = 0; j < 2; j++)
            ck_assert(fabs(pf[7 + j] - log(q[pi[j]])) < 1e-4);
        ck_assert(fabs(pf[3] - (1 - on)) < 1e-5);
        ck_assert_int_eq(pi[0], law_draw(&d, &l, 10, NOISE_TARGET, NULL));
        ck_assert(pi[1] != 1 && pi[1] != 30 && pi[1] != 59);
        ck_assert_int_eq(it[p.readout[smp].i0], pi[0]);
        ck_assert(fabs(tf[5] - log(lse)) < 1e-4 && fabs(tf[6] - entropy) < 1e-4);
        for (int j = 0; j < 5; j++) {
            int rank = 0;
            for (int t = 0; t < V; t++)
                rank += x[t] > x[ti[j]];
            ck_assert_int_eq(rank, j);
        }
    }
    readout_ws_free(&rw);
}
END_TEST

START_TEST(where_nothing_is_allowed_nothing_is_likely)
{
    struct readout_ws rw;
    ck_assert(!readout_ws_create(&rw, V, 100, NULL));
    float f[2 * V], x[V];
    int32_t it[2 * V], list[2] = {3, 4};
    struct step_result out = {f, it};
    struct law l = neutral_law();
    for (int round = 0; round < 2; round++) { /* the second time, p of the first is still in the workspace */
        for (int t = 0; t < V; t++)
            x[t] = round ? -INFINITY : (float)t;
        apply(&l, NULL, 0, NULL, 0, x);
        readout_begin(&rw);
        int topk = plan_readout(&p, &(struct readout){.kind = READ_TOPK, .row = 0, .n = 2, .bank = -1}, NULL);
        int lp = plan_readout(&p, &(struct readout){.kind = READ_LOGPROB, .row = 0, .n = 2, .bank = -1}, list);
        int probe = plan_readout(&p, &(struct readout){.kind = READ_PROBE, .row = 0, .n = 2, .bank = -1}, list);
        for (int i = 0; i < 3; i++)
            readout_logits(&p, &p.span[0], &p.readout[i], x, &rw, &out);
        const struct readout *r = p.readout;
        ck_assert_int_eq(it[r[topk].i0], round ? -1 : V - 1);
        ck_assert(!isinf(f[r[topk].f0]) == !round && !isinf(f[r[lp].f0]) == !round);
        ck_assert((f[r[probe].f0] == 0) == round && (f[r[probe].f0 + 2] == 0) == round);
        ck_assert((it[r[probe].i0] == -1) == round);
    }
    readout_ws_free(&rw);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("law");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, top_k_then_top_p_then_min_p);
    tcase_add_test(tc, top_h_both_rules);
    tcase_add_test(tc, typical_keeps_what_is_nearest_the_entropy);
    tcase_add_test(tc, penalties_bias_and_bans);
    tcase_add_test(tc, tree_rows_count_their_own_path);
    tcase_add_test(tc, masks_leave_nothing_else);
    tcase_add_test(tc, non_finite_logits_never_win);
    tcase_add_test(tc, draws_follow_the_law);
    tcase_add_test(tc, a_draw_depends_on_key_and_position_only);
    tcase_add_test(tc, sampling_alone_draws_the_same_token);
    tcase_add_test(tc, readouts_agree_with_the_law);
    tcase_add_test(tc, where_nothing_is_allowed_nothing_is_likely);
    return suite_run(tc);
}
