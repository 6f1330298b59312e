/* alpha* against its definition: the minimum over every set of tokens, with Q by going through all drafts. */
#include <check.h>
#include <math.h>
#include <stdio.h>

#include "verify_rig.h"
#include "../suite.h"

static struct rig_model m;

enum { MAX_K = 3, MAX_N = 6 };

/* Pr(draws j, j+1, .. lie in H), `taken` holding what was drawn without replacement. */
static double all_in(const double *q, int n, unsigned in, int k, int j, unsigned taken, bool wor)
{
    double sum = 0, left = 0;
    for (int i = 0; i < n; i++)
        left += taken >> i & 1 ? 0 : q[i];
    if (j == k || left <= 0)
        return 1;
    for (int i = 0; i < n; i++)
        if ((in >> i & 1) && !(taken >> i & 1) && q[i] > 0)
            sum += q[i] / left * all_in(q, n, in, k, j + 1, wor ? taken | 1u << i : 0, wor);
    return sum;
}

static double least_over_sets(const double *p, const double *q, int n, int k, bool wor)
{
    double least = 0;
    for (unsigned in = 0; in < 1u << n; in++) {
        double p_in = 0;
        for (int i = 0; i < n; i++)
            p_in += in >> i & 1 ? p[i] : 0;
        least = fmin(least, p_in - all_in(q, n, in, k, 0, 0, wor));
    }
    return 1 + least;
}

static double optimum(const struct rig_law *l, enum draft_law law, int k, const int16_t *drawn)
{
    struct verify_node u = {.parent = -1,
                            .n_list = l->n_list,
                            .list = l->list,
                            .p = l->p,
                            .p_off = l->p_off,
                            .draw_off = l->p_off > 0 ? RIG_DRAW_OFF : -1,
                            .q = l->q,
                            .n_drawn = k,
                            .drawn = drawn};
    return verify_optimum(&u, law);
}

START_TEST(prefixes_reach_the_minimum_over_all_sets)
{
    struct rig_rand r = rig_rand_begin("prefixes_reach_the_minimum_over_all_sets", 1);
    double worst = 0;
    for (int round = 0; round < 300; round++) {
        int v = 2 + rig_int(&r, MAX_N - 1), n_list = 1 + rig_int(&r, v);
        rig_random(&m, &r, v, n_list, 0);
        const struct rig_law *l = &m.law[0];
        double p[MAX_N];
        for (int i = 0; i < n_list; i++)
            p[i] = (double)l->p[i];
        for (int k = 1; k <= MAX_K; k++)
            for (int wor = 0; wor < 2; wor++) {
                double got = optimum(l, wor ? DRAFT_WOR : DRAFT_IID, k, NULL),
                       want = least_over_sets(p, l->q, n_list, k, wor);
                worst = fmax(worst, fabs(got - want));
                ck_assert_msg(fabs(got - want) < 1e-11, "V=%d list=%d k=%d %s: %.15f, not %.15f", v, n_list, k,
                              wor ? "wor" : "iid", got, want);
            }
    }
    printf("alpha* against all sets: error <= %.1e\n", worst);
}
END_TEST

START_TEST(no_verifier_keeps_more)
{
    struct rig_rand r = rig_rand_begin("no_verifier_keeps_more", 2);
    double mean[N_DRAFT_LAW][N_VERIFY_KIND] = {{0}}, best[N_DRAFT_LAW] = {0};
    int n_round = 60;
    for (int round = 0; round < n_round; round++) {
        rig_random(&m, &r, 4, 3 + round % 2, 0);
        for (int law = 0; law < N_DRAFT_LAW; law++) {
            struct rig_growth g = {.law = law, .n_level = 1, .branch = {law == DRAFT_CHAIN ? 1 : 2}};
            int16_t drawn[2] = {0, 1};
            struct script s;
            script_begin(&s);
            script_next(&s);
            if (law == DRAFT_GREEDY)
                draft_greedy(m.law[0].q, m.law[0].n_list, 2, &s.chance, drawn);
            double bound = optimum(&m.law[0], law, g.branch[0], drawn);
            best[law] += bound / n_round;
            for (int kind = 0; kind < N_VERIFY_KIND; kind++) {
                if (!verify_valid(kind, law))
                    continue;
                static struct rig_tree tree;
                double accepted = 0;
                g.real_draws = kind == VERIFY_NSS;
                script_begin(&s);
                while (script_next(&s)) {
                    struct verify_result v;
                    rig_grow(&tree, &m, 0, &g, &s.chance);
                    verify_tree(kind, &tree.t, &s.chance, &v);
                    accepted += v.n_path ? s.prob : 0;
                }
                ck_assert_double_le(accepted, bound + 1e-12);
                if (law == DRAFT_GREEDY && kind == VERIFY_GREEDY) /* optimal for its drafts */
                    ck_assert_double_ge(accepted, bound - 1e-12);
                if (law == DRAFT_FIXED || (law == DRAFT_CHAIN && kind != VERIFY_NSS))
                    ck_assert_double_ge(accepted, bound - 1e-12);
                mean[law][kind] += accepted / n_round;
            }
        }
    }
    for (int law = 0; law < N_DRAFT_LAW; law++) {
        printf("%-6s alpha* %.4f:", draft_law_name(law), best[law]);
        for (int kind = 0; kind < N_VERIFY_KIND; kind++)
            if (verify_valid(kind, law))
                printf(" %s %.4f", verify_name(kind), mean[law][kind]);
        printf("\n");
    }
}
END_TEST

START_TEST(the_hand_figures)
{
    const double p3[] = {.5, .3, .2}, q3[] = {.2, .5, .3};
    const double p5[] = {.1, .2, .3, .25, .15}, q5[] = {.4, .3, .15, .1, .05};
    const int16_t drawn3[] = {1, 2}, drawn5[] = {0, 1, 2};
    m.n_vocab = 3;
    rig_set(&m, 0, p3, q3);
    printf("hand: iid %.6f, wor %.6f, greedy %.6f, single %.6f\n", optimum(&m.law[0], DRAFT_IID, 2, NULL),
           optimum(&m.law[0], DRAFT_WOR, 2, NULL), optimum(&m.law[0], DRAFT_GREEDY, 2, drawn3),
           optimum(&m.law[0], DRAFT_CHAIN, 1, NULL));
    ck_assert_double_le(fabs(optimum(&m.law[0], DRAFT_IID, 2, NULL) - 0.86), 1e-6);
    ck_assert_double_le(fabs(optimum(&m.law[0], DRAFT_WOR, 2, NULL) - 0.985714), 1e-6);
    ck_assert_double_le(fabs(optimum(&m.law[0], DRAFT_GREEDY, 2, drawn3) - 0.90), 1e-6);
    ck_assert_double_le(fabs(optimum(&m.law[0], DRAFT_CHAIN, 1, NULL) - 0.70), 1e-6);
    ck_assert_double_le(fabs(optimum(&m.law[0], DRAFT_FIXED, 2, drawn3) - 0.50), 1e-6);
    m.n_vocab = 5;
    rig_set(&m, 0, p5, q5);
    ck_assert_double_le(fabs(optimum(&m.law[0], DRAFT_IID, 3, NULL) - 0.957), 1e-6);
    ck_assert_double_le(fabs(optimum(&m.law[0], DRAFT_WOR, 2, NULL) - 0.9285714), 1e-6);
    ck_assert_double_le(fabs(optimum(&m.law[0], DRAFT_GREEDY, 2, drawn5) - 0.8), 1e-6);
    ck_assert_double_le(fabs(optimum(&m.law[0], DRAFT_GREEDY, 3, drawn5) - 1), 1e-6);
}
END_TEST

/* The race where it is hardest: q over 18 decades, so that which tokens come at all is decided at times 18 decades
 * apart. */
START_TEST(the_race_survives_extremes)
{
    double q[MAX_N] = {1, 1e-3, 1e-6, 1e-9, 1e-14, 1e-18}, p[MAX_N], sum = 0, worst = 0;
    for (int i = 0; i < MAX_N; i++)
        sum += q[i];
    for (int turn = 0; turn < MAX_N; turn++) { /* any order of q / p */
        m.n_vocab = MAX_N;
        for (int i = 0; i < MAX_N; i++) {
            q[i] /= sum;
            p[i] = ((i + turn) % MAX_N + 1) / 32.0; /* exact in f32; the product makes them sum to 1 */
        }
        sum = 1;
        rig_set(&m, 0, p, q);
        for (int i = 0; i < MAX_N; i++)
            p[i] *= 32.0 / 21.0;
        for (int k = 2; k <= 5; k++) {
            double got = optimum(&m.law[0], DRAFT_WOR, k, NULL), want = least_over_sets(p, q, MAX_N, k, true);
            worst = fmax(worst, fabs(got - want));
        }
    }
    printf("race, q over 18 decades: error <= %.1e\n", worst);
    ck_assert_double_le(worst, 1e-12);
}
END_TEST

/* Equal q: a set of m tokens holds all k draws with probability C(m, k) / C(V, k). */
START_TEST(many_draws)
{
    double p[RIG_MAX_V], worst = 0;
    m.n_vocab = RIG_MAX_V;
    for (int t = 0; t < RIG_MAX_V; t++)
        p[t] = (t + 1) / 2048.0; /* ascending: prefixes by q / p are prefixes */
    rig_set(&m, 0, p, NULL);
    for (int k = 1; k <= 48; k++) {
        double least = 0, p_in = 0, all = 1;
        for (int n = 1; n <= RIG_MAX_V; n++) {
            p_in += n / 1275.0;
            all = n >= k ? 1 : 0;
            for (int j = 0; j < k && n >= k; j++)
                all *= (double)(n - j) / (RIG_MAX_V - j);
            least = fmin(least, p_in - all);
        }
        worst = fmax(worst, fabs(optimum(&m.law[0], DRAFT_WOR, k, NULL) - 1 - least));
    }
    printf("up to 48 draws of 50: error <= %.1e\n", worst);
    ck_assert_double_le(worst, 1e-12);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("optimum");
    tcase_add_test(tc, prefixes_reach_the_minimum_over_all_sets);
    tcase_add_test(tc, no_verifier_keeps_more);
    tcase_add_test(tc, the_hand_figures);
    tcase_add_test(tc, the_race_survives_extremes);
    tcase_add_test(tc, many_draws);
    return suite_run(tc);
}
