/* Passes over a vocabulary of some size against the same in f64, and what the law skips against doing without. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "law.h"
#include "random_plan.h"
#include "rng.h"
#include "vocab.h"
#include "../suite.h"

enum { V = 3001 };

START_TEST(exponentials_of_every_size)
{
    float x, y;
    double worst = 0;
    for (x = VOCAB_EXP_LEAST + 0.01f; x < 0; x += 0.0007f) {
        vocab_exp(&x, &y, 1);
        worst = fmax(worst, fabs(y / exp(x) - 1));
    }
    ck_assert_msg(worst < 2e-7, "worst relative error %g", worst);
    float odd[] = {0, VOCAB_EXP_LEAST, -88, -1e30f, -INFINITY, NAN};
    ck_assert(vocab_exp(odd, odd, 6) == 1);
    ck_assert(odd[0] == 1);
    for (int i = 1; i < 6; i++)
        ck_assert(odd[i] == 0);
}
END_TEST

START_TEST(sums_of_every_length)
{
    struct rnd r = rnd_begin("sums_of_every_length", 21);
    static float x[200], e[200];
    for (int n = 1; n <= 200; n++) {
        double sum = 0, dot = 0, plain = 0;
        float top = -INFINITY;
        for (int i = 0; i < n; i++) {
            x[i] = rnd_int(&r, 0, 9) ? 5 * rnd_normal(&r) : -INFINITY;
            top = fmaxf(top, x[i]);
        }
        if (top == -INFINITY)
            x[n - 1] = top = 1;
        for (int i = 0; i < n; i++) {
            sum += exp(x[i] - top);
            dot += x[i] > -INFINITY ? exp(x[i] - top) * (x[i] - top) : 0;
        }
        struct vocab_moments m = vocab_moments(x, top, n);
        ck_assert_msg(fabs(m.sum - sum) < 1e-5 * sum && fabs(m.dot - dot) < 1e-5 * (1 - dot), "%d elements", n);
        for (int i = 0; i < n; i++) {
            x[i] -= top;
            plain += x[i] > -INFINITY ? 1 : 0;
        }
        ck_assert(fabs(vocab_exp(x, e, n) - sum) < 1e-5 * sum && fabs(vocab_sum(e, n) - sum) < 1e-5 * sum);
        ck_assert_int_eq(vocab_count_above(x, n, -INFINITY), (int)plain);
    }
}
END_TEST

START_TEST(above_a_floor_nothing_is_missed)
{
    struct rnd r = rnd_begin("above_a_floor_nothing_is_missed", 22);
    static float x[V], tile[V];
    static int32_t got[V];
    for (int round = 0; round < 50; round++) {
        int n = rnd_int(&r, 1, V), k = 0;
        for (int i = 0; i < n; i++)
            x[i] = 4 * rnd_normal(&r);
        float floor = 4 * rnd_normal(&r) + 6;
        vocab_tiles(x, n, tile);
        int m = vocab_above(x, tile, n, floor, got);
        for (int i = 0; i < n; i++)
            if (x[i] > floor)
                ck_assert_int_eq(got[k++], i);
        ck_assert_int_eq(m, k);
    }
}
END_TEST

/* ---- The law over many tiles ---- */

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

static void begin(const struct law *law)
{
    plan_reset(&p);
    int l = plan_law(&p, law, NULL, 0, NULL, 0);
    plan_span(&p, &(struct span){.ctx_len = 9, .n_chain = 1, .n_counted = 1, .law = l, .layer1 = 1});
    plan_row(&p, 0, 9, -1, 0);
}

/* Logits of every kind of sureness: a bell, now and then with a few tokens far above it. */
static void draw_logits(struct rnd *r, float *x)
{
    float width = 0.3f * (float)rnd_int(r, 0, 12);
    for (int i = 0; i < V; i++)
        x[i] = width * rnd_normal(r);
    for (int n = rnd_int(r, 0, 6); n > 0; n--)
        x[rnd_int(r, 0, V - 1)] += (float)rnd_int(r, 0, 20);
}

static const float *sort_key;

static int by_key(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    return sort_key[i] > sort_key[j] ? -1 : sort_key[i] < sort_key[j] ? 1 : i - j;
}

/* How many of all tokens, sorted, the law's top-k, top-p and min-p leave; `near` when rounding decides it. */
static int left(const struct law *l, const float *x, int32_t *order, int *near)
{
    static double q[V];
    double mass = 0, sum = 0;
    for (int i = 0; i < V; i++)
        order[i] = i;
    sort_key = x;
    qsort(order, V, sizeof *order, by_key);
    int keep = l->top_k > 0 && l->top_k < V ? l->top_k : V;
    for (int i = 0; i < keep; i++)
        mass += q[i] = exp(((double)x[order[i]] - x[order[0]]) / l->temperature);
    for (int i = 0; i < keep; i++) {
        *near |= fabs(q[i] - l->min_p) < 1e-5 * q[i];
        if (q[i] < l->min_p)
            return i;
        sum += q[i];
        *near |= l->top_p < 1 && fabs(sum - l->top_p * mass) < 1e-5 * mass;
        if (l->top_p < 1 && sum >= l->top_p * mass)
            return i + 1;
    }
    return keep;
}

START_TEST(truncation_looks_at_what_matters)
{
    struct rnd r = rnd_begin("truncation_looks_at_what_matters", 23);
    static float x[V];
    static int32_t order[V];
    int n_checked = 0;
    for (int round = 0; round < 400; round++) {
        draw_logits(&r, x);
        struct law l = neutral_law();
        l.temperature = 0.3f + 0.1f * (float)rnd_int(&r, 0, 15);
        l.top_k = rnd_int(&r, 0, 1) ? rnd_int(&r, 1, 1 << rnd_int(&r, 1, 12)) : 0;
        l.top_p = rnd_int(&r, 0, 1) ? 0.05f * (float)rnd_int(&r, 1, 19) : 1;
        l.min_p = rnd_int(&r, 0, 1) ? 0.01f * (float)rnd_int(&r, 1, 40) : 0;
        int near = 0, n = left(&l, x, order, &near);
        struct law_dist d;
        begin(&l);
        law_apply(&p, &p.span[0], 0, x, &ws, &d);
        if (near)
            continue;
        n_checked++;
        ck_assert_msg(d.n == n, "round %d: %d tokens are left instead of %d", round, d.n, n);
        double mass = 0;
        for (int i = 0; i < V; i++)
            mass += d.p[i];
        ck_assert(fabs(mass - 1) < 1e-5);
        for (int i = 0; i < n; i++)
            ck_assert(d.p[order[i]] > 0);
    }
    ck_assert_int_gt(n_checked, 200);
}
END_TEST

START_TEST(draws_look_at_what_matters)
{
    struct rnd r = rnd_begin("draws_look_at_what_matters", 24);
    static float x[V];
    uint32_t skip[(V + 31) / 32] = {0};
    for (int round = 0; round < 300; round++) {
        draw_logits(&r, x);
        struct law l = neutral_law();
        l.temperature = 0.3f + 0.1f * (float)rnd_int(&r, 0, 15);
        l.top_k = rnd_int(&r, 0, 2) ? 0 : rnd_int(&r, 1, 100); /* few: listed; many: by tiles */
        l.noise_key = rnd_u64(&r);
        struct law_dist d;
        begin(&l);
        law_apply(&p, &p.span[0], 0, x, &ws, &d);
        for (int skipping = 0; skipping < 2; skipping++) {
            int32_t best = -1;
            float value = -INFINITY;
            skip[d.argmax >> 5] = 1u << (d.argmax & 31);
            for (int t = 0; t < V; t++) {
                float v = d.score[t] + rng_token_gumbel(l.noise_key, 10, NOISE_TARGET, t);
                if (d.p[t] > 0 && v > value && !(skipping && t == d.argmax)) {
                    best = t;
                    value = v;
                }
            }
            ck_assert_int_eq(law_draw(&d, &l, 10, NOISE_TARGET, skipping ? skip : NULL), best);
            if (!skipping)
                ck_assert_int_eq(law_sample(&p, &p.span[0], 0, x, &ws), best);
            law_apply(&p, &p.span[0], 0, x, &ws, &d);
            skip[d.argmax >> 5] = 0;
        }
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("vocab");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, exponentials_of_every_size);
    tcase_add_test(tc, sums_of_every_length);
    tcase_add_test(tc, above_a_floor_nothing_is_missed);
    tcase_add_test(tc, truncation_looks_at_what_matters);
    tcase_add_test(tc, draws_look_at_what_matters);
    return suite_run(tc);
}
