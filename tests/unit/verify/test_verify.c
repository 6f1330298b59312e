/* Every verifier at one node, with every draft law it is valid for, by exact enumeration: the law of what comes out is
 * the target's, and as many drafts are kept as the papers' formulas say. Then the interface around it. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "verify_rig.h"
#include "../suite.h"

static const double exact = 1e-12;
static struct rig_model m;

/* ---- Acceptance of one node by slow formulas, written apart from the product ---- */

enum { MAX_V = 5, MAX_K = 3 };

struct one_node { /* p and q by list index; all of p off the list is the last cell, where q is 0 */
    int n, k;
    double p[MAX_V + 1], q[MAX_V + 1];
};

static struct one_node one_node(const struct rig_law *l, int k)
{
    struct one_node o = {.n = l->n_list + 1, .k = k};
    for (int i = 0; i < l->n_list; i++) {
        o.p[i] = (double)l->p[i];
        o.q[i] = l->q[i];
    }
    o.p[l->n_list] = (double)l->p_off;
    return o;
}

static double plus(double x)
{
    return x > 0 ? x : 0;
}

static void scaled(double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    for (int i = 0; i < n; i++)
        x[i] = sum > 0 ? x[i] / sum : x[i];
}

/* Pr(the emitted token is among x[0..k)) of recursive rejection sampling, given the drafts. */
static double kept_rrs(const struct one_node *o, const int *x, int k, bool wor)
{
    double p[MAX_V + 1], q[MAX_V + 1], live = 1;
    memcpy(p, o->p, sizeof p);
    memcpy(q, o->q, sizeof q);
    for (int j = 0; j < k; j++) {
        live *= 1 - fmin(1, p[x[j]] / q[x[j]]);
        for (int i = 0; i < o->n; i++)
            p[i] = plus(p[i] - q[i]);
        scaled(p, o->n);
        if (wor)
            q[x[j]] = 0;
        scaled(q, o->n);
    }
    return 1 - live; /* the residual is 0 on what was rejected */
}

static double rho_by_grid(const struct one_node *o)
{
    double lo = 1, hi = o->k;
    for (int i = 0; i < 200; i++) {
        double mid = (lo + hi) / 2, beta = 0;
        for (int j = 0; j < o->n; j++)
            beta += fmin(o->p[j] / mid, o->q[j]);
        if (1 - pow(1 - beta, o->k) > mid * beta)
            lo = mid;
        else
            hi = mid;
    }
    return hi;
}

static double kept_kseq(const struct one_node *o, const int *x)
{
    double rho = rho_by_grid(o), live = 1;
    for (int j = 0; j < o->k; j++)
        live *= 1 - fmin(1, o->p[x[j]] / (rho * o->q[x[j]]));
    return 1 - live;
}

static double among(const double *law, const int *x, int k)
{
    double sum = 0;
    for (int j = 0; j < k; j++) {
        bool again = false;
        for (int i = 0; i < j; i++)
            again |= x[i] == x[j];
        sum += again ? 0 : law[x[j]];
    }
    return sum;
}

/* One speculative step with the first draft; the correction may be another one. */
static double kept_naive(const struct one_node *o, const int *x, int k)
{
    double rest[MAX_V + 1], a = fmin(1, o->p[x[0]] / o->q[x[0]]);
    for (int i = 0; i < o->n; i++)
        rest[i] = plus(o->p[i] - o->q[i]);
    scaled(rest, o->n);
    return a + (1 - a) * among(rest, x, k);
}

static double kept_greedy(const struct one_node *o, const int *x, int k)
{
    struct one_node rest = *o;
    for (int j = 0; j + 1 < k; j++)
        rest.q[x[j]] = 0;
    scaled(rest.q, rest.n);
    double a = fmin(1, o->p[x[k - 1]] / rest.q[x[k - 1]]), left[MAX_V + 1];
    for (int i = 0; i < o->n; i++)
        left[i] = plus(o->p[i] - rest.q[i]);
    scaled(left, o->n);
    return a + (1 - a) * among(left, x, k);
}

static double kept(enum verify_kind kind, enum draft_law law, const struct one_node *o, const int *x, int k)
{
    switch (kind) {
    case VERIFY_NSS:
        return among(o->p, x, k);
    case VERIFY_NAIVE:
        return kept_naive(o, x, k);
    case VERIFY_KSEQ:
        return kept_kseq(o, x);
    case VERIFY_GREEDY:
        return kept_greedy(o, x, k);
    default: /* at one node traversal and block verification are recursive rejection sampling */
        return kept_rrs(o, x, k, law == DRAFT_WOR);
    }
}

/* Sum over all drafts x[j..) of Pr(x) times what is kept of them; `law` of the draws by the section's definition. */
static double acceptance(enum verify_kind kind, enum draft_law law, const struct one_node *o, int *x, int j)
{
    double sum = 0, taken = 0;
    int n_support = 0, k = o->k;
    for (int i = 0; i < o->n; i++)
        n_support += o->q[i] > 0;
    if (law == DRAFT_WOR || law == DRAFT_GREEDY)
        k = k < n_support ? k : n_support;
    if (law == DRAFT_FIXED)
        k = k < o->n - 1 ? k : o->n - 1;
    if (j == k)
        return kept(kind, law, o, x, k);
    if (law == DRAFT_FIXED) {
        x[j] = j;
        return acceptance(kind, law, o, x, j + 1);
    }
    int best = -1;
    for (int i = 0; i < o->n; i++) {
        bool before = false;
        for (int a = 0; a < j; a++)
            before |= x[a] == i;
        if (before && law != DRAFT_IID)
            taken += o->q[i];
        else if (best < 0 || o->q[i] > o->q[best])
            best = i;
    }
    for (int i = 0; i < o->n; i++) {
        bool before = false;
        for (int a = 0; a < j; a++)
            before |= x[a] == i;
        double pr = law == DRAFT_IID || law == DRAFT_CHAIN ? o->q[i] : before ? 0 : o->q[i] / (1 - taken);
        if (law == DRAFT_GREEDY && j + 1 < k)
            pr = i == best;
        x[j] = i;
        if (pr > 0)
            sum += pr * acceptance(kind, law, o, x, j + 1);
    }
    return sum;
}

/* ---- One node ---- */

START_TEST(one_node_every_pair)
{
    struct rig_rand r = rig_rand_begin("one_node_every_pair", 1);
    double worst = 0, off = 0;
    long n_run = 0;
    int n_case = 0;
    for (int v = 2; v <= MAX_V; v++)
        for (int k = 1; k <= MAX_K; k++)
            for (int round = 0; round < 6; round++) {
                int n_list =
                    round % 2 ? 1 + rig_int(&r, v - 1) : v; /* odd rounds: some of the vocabulary is off the list */
                rig_random(&m, &r, v, n_list, 1);
                for (int law = 0; law < N_DRAFT_LAW; law++)
                    for (int kind = 0; kind < N_VERIFY_KIND; kind++) {
                        struct rig_growth g = {.law = law, .n_level = 1, .branch = {law == DRAFT_CHAIN ? 1 : k}};
                        if (!verify_valid(kind, law) || n_list == 0)
                            continue;
                        struct rig_sum s = rig_enumerate(&m, kind, &g, 2, NULL);
                        struct one_node o = one_node(&m.law[0], g.branch[0]);
                        int x[MAX_K];
                        double want = acceptance(kind, law, &o, x, 0);
                        rig_expect(&s, kind, law, "one node");
                        ck_assert_msg(fabs(s.accepted - want) <= exact,
                                      "%s on %s, V=%d k=%d: accepted %.15f, not %.15f", verify_name(kind),
                                      draft_law_name(law), v, k, s.accepted, want);
                        worst = fmax(worst, s.error);
                        off = fmax(off, fabs(s.accepted - want));
                        n_run += s.n_run;
                        n_case++;
                    }
            }
    printf("one node: %d cases, %ld runs, law error <= %.1e, acceptance error <= %.1e\n", n_case, n_run, worst, off);
}
END_TEST

/* "Same numbers for all" of section 17. p is rounded to f32 on its way, so 1e-6. */
START_TEST(the_hand_figures)
{
    static const struct {
        enum verify_kind kind;
        enum draft_law law;
        int k;
        double accepted;
    } figure[] = {
        {VERIFY_RRS, DRAFT_CHAIN, 1, 0.70},     {VERIFY_BLOCK, DRAFT_CHAIN, 1, 0.70},
        {VERIFY_NSS, DRAFT_IID, 2, 0.507},      {VERIFY_NSS, DRAFT_WOR, 2, 0.629643},
        {VERIFY_RRS, DRAFT_IID, 2, 0.76},       {VERIFY_KSEQ, DRAFT_IID, 2, 0.791355},
        {VERIFY_RRS, DRAFT_WOR, 2, 0.808571},   {VERIFY_TRAVERSAL, DRAFT_WOR, 2, 0.808571},
        {VERIFY_TRAVERSAL, DRAFT_IID, 2, 0.76}, {VERIFY_GREEDY, DRAFT_GREEDY, 2, 0.90},
    };
    const double p[] = {.5, .3, .2}, q[] = {.2, .5, .3}, flat[] = {.25, .25, .5};
    m.n_vocab = 3;
    rig_set(&m, 0, p, q);
    for (int c = 1; c < 4; c++)
        rig_set(&m, c, flat, NULL);
    for (size_t i = 0; i < sizeof figure / sizeof *figure; i++) {
        struct rig_growth g = {.law = figure[i].law, .n_level = 1, .branch = {figure[i].k}};
        struct rig_sum s = rig_enumerate(&m, figure[i].kind, &g, 1, NULL);
        printf("%-9s on %-6s: accepted %.6f\n", verify_name(figure[i].kind), draft_law_name(figure[i].law), s.accepted);
        ck_assert_double_le(fabs(s.accepted - figure[i].accepted), 1e-6);
        ck_assert_double_le(s.error, 1e-7);
    }
    double rho = kseq_rho(p, q, 3, 2);
    printf("rho* %.7f\n", rho);
    ck_assert_double_le(fabs(rho - 1.4567764), 5e-8);
}
END_TEST

/* ---- Broken numbers ---- */

/* Whatever p and q are, the path is a path and the token one that there is. */
START_TEST(broken_numbers_end_in_a_valid_token)
{
    struct rig_rand r = rig_rand_begin("broken_numbers_end_in_a_valid_token", 7);
    static const double odd[] = {0, NAN, INFINITY, -1, 1e-320, 1e300, 1, 1e-30};
    static struct rig_tree tree;
    for (int round = 0; round < 4000; round++) {
        int law = rig_int(&r, N_DRAFT_LAW), kind = rig_int(&r, N_VERIFY_KIND);
        struct rig_growth g = rig_tree_of(law);
        struct chance_philox accept, draft;
        struct verify_result v;
        if (!verify_valid(kind, law))
            continue;
        rig_random(&m, &r, 3, 3, 3);
        rig_grow(&tree, &m, 0, &g, chance_philox(&draft, 1, round, NOISE_DRAFT));
        for (int c = 0; c < 40; c++)
            for (int i = 0; i < 3; i++) {
                m.law[c].p[i] = rig_int(&r, 2) ? m.law[c].p[i] : (float)odd[rig_int(&r, 8)];
                m.law[c].q[i] = rig_int(&r, 2) ? m.law[c].q[i] : odd[rig_int(&r, 8)];
            }
        for (int u = 0; u < tree.t.n_node; u++) {
            tree.node[u].draw = rig_int(&r, 3);
            tree.node[u].draw_off = -1;
            tree.node[u].p_off = (float)odd[rig_int(&r, 8)];
        }
        verify_tree(kind, &tree.t, chance_philox(&accept, 1, round, NOISE_ACCEPT), &v);
        ck_assert(v.token >= 0 && v.token < 3 && v.n_path >= 0 && v.n_path <= 3);
        for (int i = 0; i < v.n_path; i++)
            ck_assert_int_eq(tree.node[v.path[i]].parent, i ? v.path[i - 1] : 0);
    }
    /* p allows nothing: the token says so, as SAMPLE does. */
    float none[2] = {0, NAN};
    int32_t list[2] = {4, 9};
    double q[2] = {0.5, 0.5};
    int16_t drawn[2] = {1, 0};
    struct verify_node root = {-1, 0, 2, list, none, 0, -1, -1, q, 2, drawn};
    for (int kind = 0; kind < N_VERIFY_KIND; kind++) {
        struct chance_philox c;
        struct verify_result v;
        struct verify_tree t = {&root, 1, verify_valid(kind, DRAFT_IID) ? DRAFT_IID : DRAFT_CHAIN};
        root.n_drawn = t.law == DRAFT_CHAIN ? 1 : 2;
        verify_tree(kind, &t, chance_philox(&c, 1, 1, NOISE_ACCEPT), &v);
        ck_assert(v.token == -1 && v.n_path == 0);
    }
}
END_TEST

/* ---- The interface ---- */

START_TEST(names_defaults_and_shapes)
{
    for (int kind = 0; kind < N_VERIFY_KIND; kind++)
        ck_assert_int_eq(verify_kind_of(verify_name(kind)), kind);
    for (int law = 0; law < N_DRAFT_LAW; law++) {
        ck_assert_int_eq(draft_law_of(draft_law_name(law)), law);
        ck_assert(verify_valid(VERIFY_NSS, law) && verify_valid(verify_for(law), law));
    }
    ck_assert_int_eq(verify_kind_of("exact"), VERIFY_NSS);
    ck_assert_int_eq(verify_kind_of("rrsw"), VERIFY_RRS);
    ck_assert_int_eq(verify_kind_of("typical"), -1);
    ck_assert_int_eq(draft_law_of("topk"), DRAFT_FIXED);
    ck_assert(!verify_valid(VERIFY_KSEQ, DRAFT_WOR) && !verify_valid(VERIFY_RRS, DRAFT_FIXED));
    ck_assert(!verify_valid(VERIFY_BLOCK, DRAFT_IID) && !verify_valid(VERIFY_GREEDY, DRAFT_WOR));
    ck_assert_int_eq(verify_auto(0, 0, true, 4).kind, VERIFY_NSS);
    ck_assert_int_eq(verify_auto(1, 1, true, 4).law, DRAFT_FIXED);
    ck_assert_int_eq(verify_auto(1, 0, false, 4).kind, VERIFY_NSS);
    ck_assert_int_eq(verify_auto(1, 0, true, 1).kind, VERIFY_BLOCK);
    ck_assert_int_eq(verify_auto(0.6f, 0, true, 4).kind, VERIFY_GREEDY);
    ck_assert_int_eq(verify_auto(0.7f, 0, true, 4).kind, VERIFY_TRAVERSAL);
    ck_assert_int_eq(verify_auto(0.7f, 0, true, 4).law, DRAFT_WOR);

    int32_t list[] = {5, 6};
    float p[] = {.5f, .5f};
    double q[] = {.5, .5};
    int16_t drawn[] = {1, 1};
    struct verify_node n[3] = {{-1, 0, 2, list, p, 0, 5, -1, q, 2, drawn}, {0, 1}, {0, 1}};
    struct verify_tree t = {n, 2, DRAFT_IID};
    ck_assert(verify_well_formed(&t));
    t.law = DRAFT_WOR; /* the same token twice */
    ck_assert(!verify_well_formed(&t));
    n[0].n_drawn = 1;
    ck_assert(verify_well_formed(&t));
    n[1].edge = 0; /* not drawn */
    ck_assert(!verify_well_formed(&t));
    n[1].edge = 1, t.n_node = 3; /* one token, two nodes */
    ck_assert(!verify_well_formed(&t));
    t.n_node = 2, n[0].q = NULL;
    ck_assert(!verify_well_formed(&t));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("verify");
    tcase_add_test(tc, one_node_every_pair);
    tcase_add_test(tc, the_hand_figures);
    tcase_add_test(tc, broken_numbers_end_in_a_valid_token);
    tcase_add_test(tc, names_defaults_and_shapes);
    return suite_run(tc);
}
