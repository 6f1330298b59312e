/* The verifiers with the source of chance that serves requests: chi-square of what comes out against the target's law
 * over 50 tokens, and how often a draft is kept against the closed forms. The controls must be rejected by the same
 * limits. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify_rig.h"
#include "../suite.h"

enum { V = 50, N_LIST = 36, K = 3 };
static struct rig_model m;
static uint64_t key;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { DEFAULT_STEPS = 100000 };
#else
enum { DEFAULT_STEPS = 1000000 };
#endif

/* All chi-square tests of this file share one alpha of 1e-3. */
enum { N_TEST = 20 };
static const double alpha = 1e-3 / N_TEST;

static void setup(void)
{
    struct rig_rand r = rig_rand_begin("verifier statistics", 20261001);
    key = r.state;
    rig_random(&m, &r, V, N_LIST, 1);
}

/* ---- One step, all of its chance by Philox ---- */

static int32_t pick(const struct chance *c, const double *law)
{
    return c->choose(c->self, law, m.n_vocab);
}

/* What PROBE's draws are, made only where they come out. */
static int32_t real_token(const struct rig_tree *tree, const struct verify_result *v, int32_t position)
{
    struct chance_philox target;
    double law[RIG_MAX_V];
    if (v->token < RIG_DRAW)
        return v->token;
    rig_token_law(tree, &m, v, law);
    return pick(chance_philox(&target, key, position, v->token < RIG_DRAW_OFF ? NOISE_TARGET : NOISE_OFF_LIST), law);
}

/* Tokens of one step at context ctx into token[]; returns their number. */
static int step(struct rig_tree *tree, enum verify_kind kind, const struct rig_growth *g, int ctx, int32_t position,
                void (*bend)(struct rig_tree *), int32_t *token)
{
    struct chance_philox draft, accept;
    struct verify_result v;
    rig_grow(tree, &m, ctx, g, chance_philox(&draft, key, position, NOISE_DRAFT));
    if (bend)
        bend(tree);
    verify_tree(kind, &tree->t, chance_philox(&accept, key, position, NOISE_ACCEPT), &v);
    for (int i = 0; i < v.n_path; i++) {
        const struct verify_node *u = &tree->node[v.path[i]];
        token[i] = tree->node[u->parent].list[u->edge];
    }
    token[v.n_path] = real_token(tree, &v, position);
    return v.n_path + 1;
}

/* ---- The closed forms of section 17 ---- */

static double some_of(double p_one, int k)
{
    return 1 - pow(1 - p_one, k);
}

static double sum_min(const struct rig_law *l, const double *q)
{
    double sum = 0;
    for (int i = 0; i < l->n_list; i++)
        sum += fmin((double)l->p[i], q[i]);
    return sum;
}

static double accepts_nss(const struct rig_law *l)
{
    double sum = 0;
    for (int i = 0; i < l->n_list; i++)
        sum += (double)l->p[i] * some_of(l->q[i], K);
    return sum;
}

static double accepts_naive(const struct rig_law *l)
{
    double sum = sum_min(l, l->q);
    for (int i = 0; i < l->n_list; i++)
        sum += fmax(0, (double)l->p[i] - l->q[i]) * some_of(l->q[i], K - 1);
    return sum;
}

static double accepts_rrs(const struct rig_law *l)
{
    double r[V + 1], live = 1;
    for (int i = 0; i < l->n_list; i++)
        r[i] = (double)l->p[i];
    r[l->n_list] = (double)l->p_off;
    for (int j = 0; j < K; j++) {
        double kept = 0, sum = 0;
        for (int i = 0; i < l->n_list; i++)
            kept += fmin(r[i], l->q[i]);
        live *= 1 - kept;
        for (int i = 0; i <= l->n_list; i++)
            sum += r[i] = fmax(0, r[i] - (i < l->n_list ? l->q[i] : 0));
        for (int i = 0; i <= l->n_list; i++)
            r[i] /= sum;
    }
    return 1 - live;
}

static double accepts_kseq(const struct rig_law *l)
{
    double p[V], rho, beta = 0;
    for (int i = 0; i < l->n_list; i++)
        p[i] = (double)l->p[i];
    rho = kseq_rho(p, l->q, l->n_list, K);
    for (int i = 0; i < l->n_list; i++)
        beta += fmin(p[i] / rho, l->q[i]);
    return some_of(beta, K);
}

static double accepts_greedy(const struct rig_law *l)
{
    double q[V], sum = 0, left = 0;
    memcpy(q, l->q, sizeof q);
    for (int j = 0; j < K - 1; j++) {
        int best = 0;
        for (int i = 0; i < l->n_list; i++)
            if (q[i] > q[best])
                best = i;
        sum += (double)l->p[best];
        q[best] = 0;
    }
    for (int i = 0; i < l->n_list; i++)
        left += q[i];
    for (int i = 0; i < l->n_list; i++)
        q[i] /= left;
    return sum + sum_min(l, q);
}

/* Depends on the order of drawing, or on more than one node: -1. */
static double accepts_unknown(const struct rig_law *l)
{
    (void)l;
    return -1;
}

struct trial {
    enum verify_kind kind;
    struct rig_growth g;
    double (*accepts)(const struct rig_law *l);
};

static const struct trial trial[] = {
    {VERIFY_NSS, {.law = DRAFT_IID, .n_level = 1, .branch = {K}, .real_draws = true}, accepts_nss},
    {VERIFY_NAIVE, {.law = DRAFT_IID, .n_level = 1, .branch = {K}}, accepts_naive},
    {VERIFY_RRS, {.law = DRAFT_IID, .n_level = 1, .branch = {K}}, accepts_rrs},
    {VERIFY_KSEQ, {.law = DRAFT_IID, .n_level = 1, .branch = {K}}, accepts_kseq},
    {VERIFY_GREEDY, {.law = DRAFT_GREEDY, .n_level = 1, .branch = {K}}, accepts_greedy},
    {VERIFY_RRS, {.law = DRAFT_WOR, .n_level = 1, .branch = {K}, .gumbel = true}, accepts_unknown},
    {VERIFY_BLOCK, {.law = DRAFT_CHAIN, .n_level = 2, .branch = {1, 1}}, accepts_unknown},
    {VERIFY_TRAVERSAL, {.law = DRAFT_IID, .n_level = 2, .branch = {2, 1}}, accepts_unknown},
    {VERIFY_TRAVERSAL, {.law = DRAFT_WOR, .n_level = 2, .branch = {2, 1}}, accepts_unknown},
};
enum { N_TRIAL = sizeof trial / sizeof *trial };

/* ---- Chi-square over 50 tokens ---- */

struct histogram { /* the first token; the second after the first's likeliest value, drawn from p where the step ended
                    */
    long first[V], second[V], n_kept;
    int32_t likely;
};

static void collect(const struct trial *t, int n_step, void (*bend)(struct rig_tree *), struct histogram *h)
{
    static struct rig_tree tree;
    memset(h, 0, sizeof *h);
    for (int x = 1; x < V; x++)
        if (m.law[0].p_all[x] > m.law[0].p_all[h->likely])
            h->likely = x;
    for (int i = 0; i < n_step; i++) {
        int32_t token[5];
        int n = step(&tree, t->kind, &t->g, 0, i, bend, token);
        h->n_kept += n > 1;
        h->first[token[0]]++;
        if (token[0] != h->likely)
            continue;
        if (n == 1) {
            struct chance_philox next;
            double law[V];
            for (int x = 0; x < V; x++)
                law[x] = (double)m.law[rig_after(&m, 0, h->likely)].p_all[x];
            token[1] = pick(chance_philox(&next, key + 1, i, NOISE_TARGET), law);
        }
        h->second[token[1]]++;
    }
}

static double excess(const long *count, int ctx)
{
    double p[V];
    int n_free;
    for (int x = 0; x < V; x++)
        p[x] = (double)m.law[ctx].p_all[x];
    return rig_chi_square(count, p, V, &n_free) / rig_chi_limit(n_free, alpha);
}

/* 3 sigma is for the seed above: of five closed forms, another seed oversteps it once in seventy. */
START_TEST(a_million_steps)
{
    const struct trial *t = &trial[_i];
    struct histogram h;
    const char *n_env = getenv("GALLEY_VERIFY_STEPS");
    int n = n_env ? atoi(n_env) : DEFAULT_STEPS;
    collect(t, n, NULL, &h);
    double first = excess(h.first, 0), second = excess(h.second, rig_after(&m, 0, h.likely)),
           kept = (double)h.n_kept / n, want = t->accepts(&m.law[0]), sigma = sqrt(want * (1 - want) / n);
    printf("%-9s on %-6s: chi-square / limit %.2f, %.2f; kept %.5f", verify_name(t->kind), draft_law_name(t->g.law),
           first, second, kept);
    if (want >= 0)
        printf(", closed form %.5f, %+.1f sigma", want, (kept - want) / sigma);
    printf("\n");
    ck_assert_double_le(first, 1);
    ck_assert_double_le(second, 1);
    if (want >= 0)
        ck_assert_double_le(fabs(kept - want), 3 * sigma);
}
END_TEST

/* ---- Controls ---- */

/* Drafted, looked at, and left out as too unlikely. Only at a root whose children are leaves, whose rows go as well. */
static void prune(struct rig_tree *tree)
{
    struct verify_node *root = &tree->node[0];
    int n = 0;
    for (int j = 0; j < root->n_drawn; j++)
        if (root->q[tree->drawn[0][j]] > 0.1)
            tree->drawn[0][n++] = tree->drawn[0][j];
    root->n_drawn = n;
    tree->t.n_node = 1;
}

START_TEST(controls_are_rejected)
{
    struct histogram h;
    static const struct trial rrs = {VERIFY_RRS, {.law = DRAFT_WOR, .n_level = 1, .branch = {K}}, NULL};
    collect(&rrs, 50000, NULL, &h);
    double right = excess(h.first, 0);
    collect(&rrs, 50000, rig_wrong_q, &h);
    double wrong = excess(h.first, 0);
    collect(&rrs, 50000, prune, &h);
    double pruned = excess(h.first, 0);
    /* ADED: each path has a sample of its own at the root; the longest match wins. */
    double law[V];
    memset(&h, 0, sizeof h);
    for (int x = 0; x < V; x++)
        law[x] = (double)m.law[0].p_all[x];
    for (int i = 0; i < 50000; i++) {
        struct chance_philox c;
        chance_philox(&c, key, i, NOISE_TARGET);
        int32_t out = pick(&c.chance, law);
        for (int path = 1; path < K && out != m.law[0].list[path - 1]; path++) {
            int32_t y = pick(&c.chance, law);
            out = y == m.law[0].list[path] ? y : out;
        }
        h.first[out]++;
    }
    double fresh = excess(h.first, 0);
    printf("chi-square / limit over 50000 steps: right %.2f, wrong q %.1f, pruned draws %.1f, a sample for each path "
           "%.1f\n",
           right, wrong, pruned, fresh);
    ck_assert_double_le(right, 1);
    ck_assert(wrong > 2 && pruned > 2 && fresh > 2);
}
END_TEST

/* ---- Noise belongs to the step, not to the position ---- */

/* A chain of two drafts, each drawn with the noise of its own position: the control. */
static void grow_by_position(struct rig_tree *tree, int ctx, int32_t position)
{
    static struct rig_tree below;
    struct chance_philox c[2];
    const struct rig_growth one = {.law = DRAFT_CHAIN, .n_level = 1, .branch = {1}};
    const struct rig_growth two = {.law = DRAFT_CHAIN, .n_level = 2, .branch = {1, 1}};
    rig_grow(tree, &m, ctx, &two, chance_philox(&c[0], key, position, NOISE_DRAFT));
    rig_grow(&below, &m, tree->ctx[1], &one, chance_philox(&c[1], key, position + 1, NOISE_DRAFT));
    tree->drawn[1][0] = below.drawn[0][0];
    tree->node[2] = below.node[1];
    tree->node[2].parent = 1;
    tree->node[2].draw = RIG_DRAW + 2;
    tree->node[2].draw_off = -1;
    tree->ctx[2] = below.ctx[1];
}

/* Four tokens by steps of block verification, n times over, against the joint law. */
static double joint_excess(int n, bool by_position)
{
    static struct rig_tree tree;
    static const struct rig_growth chain = {.law = DRAFT_CHAIN, .n_level = 2, .branch = {1, 1}};
    static long count[81];
    static double p[81];
    int n_free;
    memset(count, 0, sizeof count);
    for (int i = 0; i < n; i++) {
        int at = 0, ctx = 0, n_tok = 0;
        while (n_tok < 4) {
            struct chance_philox draft, accept;
            struct verify_result v;
            int32_t position = 8 * i + n_tok, token[3];
            if (by_position)
                grow_by_position(&tree, ctx, position);
            else
                rig_grow(&tree, &m, ctx, &chain, chance_philox(&draft, key, position, NOISE_DRAFT));
            verify_tree(VERIFY_BLOCK, &tree.t, chance_philox(&accept, key, position, NOISE_ACCEPT), &v);
            for (int j = 0; j < v.n_path; j++)
                token[j] = tree.node[tree.node[v.path[j]].parent].list[tree.node[v.path[j]].edge];
            token[v.n_path] = real_token(&tree, &v, position + v.n_path);
            for (int j = 0; j <= v.n_path && n_tok < 4; j++, n_tok++) {
                at = at * 3 + token[j];
                ctx = rig_after(&m, ctx, token[j]);
            }
        }
        count[at]++;
    }
    for (int s = 0; s < 81; s++) {
        int digit[4] = {s / 27, s / 9 % 3, s / 3 % 3, s % 3}, ctx = 0;
        p[s] = 1;
        for (int j = 0; j < 4; j++) {
            p[s] *= (double)m.law[ctx].p_all[digit[j]];
            ctx = rig_after(&m, ctx, digit[j]);
        }
    }
    double chi = rig_chi_square(count, p, 81, &n_free);
    return chi / rig_chi_limit(n_free, alpha);
}

START_TEST(noise_belongs_to_the_step)
{
    /* Every context alike, so that nothing but the noise ties one step to the next. */
    const double p[3] = {0.5, 0.25, 0.25}, q[3] = {0.25, 0.5, 0.25};
    m.n_vocab = 3;
    for (int c = 0; c < RIG_MAX_CTX; c++)
        rig_set(&m, c, p, q);
    m.n_vocab = 3;
    double step = joint_excess(100000, false), position = joint_excess(100000, true);
    printf("joint law of 4 tokens, chi-square / limit: noise by step %.2f, drafts' noise by position %.1f\n", step,
           position);
    ck_assert_double_le(step, 1);
    ck_assert_double_ge(position, 2);
}
END_TEST

/* ---- Stochastic beams, whose law cannot be enumerated ---- */

START_TEST(stochastic_beams)
{
    struct rig_rand r = {key};
    static struct rig_tree tree;
    enum { N = 100000 };
    rig_random(&m, &r, 3, 3, 2);
    static const enum verify_kind kind[] = {VERIFY_NAIVE, VERIFY_RRS, VERIFY_TRAVERSAL};
    for (int a = 0; a < 3; a++) {
        const struct rig_growth g = {.law = DRAFT_WOR, .n_level = 2, .n_beam = 2};
        long count[27] = {0};
        double p[27], tokens = 0;
        int n_free;
        for (int i = 0; i < N; i++) {
            int32_t token[4];
            struct chance_philox rest;
            int n = step(&tree, kind[a], &g, 0, i, NULL, token), at = 0, ctx = 0;
            tokens += (double)n / N;
            chance_philox(&rest, key + 1, i, NOISE_TARGET);
            for (int j = 0; j < 3; j++) {
                double law[3];
                for (int x = 0; x < 3; x++)
                    law[x] = (double)m.law[ctx].p_all[x];
                int32_t t = j < n ? token[j] : pick(&rest.chance, law);
                at = at * 3 + t;
                ctx = rig_after(&m, ctx, t);
            }
            count[at]++;
        }
        for (int s = 0; s < 27; s++) {
            int one = s / 9, two = s / 3 % 3, ctx = rig_after(&m, 0, one);
            p[s] = (double)m.law[0].p_all[one] * (double)m.law[ctx].p_all[two] *
                   (double)m.law[rig_after(&m, ctx, two)].p_all[s % 3];
        }
        double over = rig_chi_square(count, p, 27, &n_free) / rig_chi_limit(n_free, alpha);
        printf("%-9s on SBS trees: joint law of 3 tokens, chi-square / limit %.2f; %.4f tokens a step\n",
               verify_name(kind[a]), over, tokens);
        ck_assert_double_le(over, 1);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("verify-stats");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_loop_test(tc, a_million_steps, 0, N_TRIAL);
    tcase_add_test(tc, controls_are_rejected);
    tcase_add_test(tc, noise_belongs_to_the_step);
    tcase_add_test(tc, stochastic_beams);
    return suite_run(tc);
}
