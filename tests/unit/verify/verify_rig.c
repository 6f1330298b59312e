#include "verify_rig.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"

/* As ck_assert, which writes to a pipe each time, too slow for what runs a million times. */
#define must(cond)                                                                                                     \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            ck_abort_msg("%s", #cond);                                                                                 \
    } while (0)

/* ---- Random numbers ---- */

struct rig_rand rig_rand_begin(const char *what, uint64_t fallback)
{
    const char *env = getenv("GALLEY_SEED");
    uint64_t seed = env ? strtoull(env, NULL, 0) : fallback;
    printf("%s: GALLEY_SEED=%llu\n", what, (unsigned long long)seed);
    return (struct rig_rand){rng_mix(seed)};
}

double rig_unit(struct rig_rand *r)
{
    return ((double)(rng_mix(r->state++) >> 12) + 0.5) * 0x1p-52;
}

int rig_int(struct rig_rand *r, int n)
{
    return (int)(rig_unit(r) * n);
}

static double normal(struct rig_rand *r)
{
    double u = rig_unit(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * rig_unit(r));
}

/* ---- The model ---- */

/* Tokens in random order; of a large vocabulary the likeliest ones, as it would be. */
static void make_list(struct rig_law *l, struct rig_rand *r, int n_vocab, int n_list)
{
    int32_t id[RIG_MAX_V];
    for (int i = 0; i < n_vocab; i++)
        id[i] = i;
    for (int i = 0; i < n_list; i++) {
        int j = i + rig_int(r, n_vocab - i);
        for (int k = i; n_vocab > 10 && k < n_vocab; k++)
            j = l->p_all[id[k]] > l->p_all[id[j]] ? k : j;
        int32_t t = id[j];
        id[j] = id[i];
        l->list[i] = id[i] = t;
    }
    l->n_list = n_list;
}

static void probe(struct rig_law *l, int n_vocab)
{
    double off = 0;
    for (int i = 0; i < l->n_list; i++)
        l->p[i] = l->p_all[l->list[i]];
    for (int t = 0; t < n_vocab; t++) {
        bool listed = false;
        for (int i = 0; i < l->n_list; i++)
            listed |= l->list[i] == t;
        off += listed ? 0 : (double)l->p_all[t];
    }
    l->p_off = (float)off;
}

static void random_p(struct rig_law *l, struct rig_rand *r, int n_vocab)
{
    double w[RIG_MAX_V], sum = 0, sharp = 0.5 + 1.5 * rig_unit(r);
    int left = 65536, top = 0;
    for (int t = 0; t < n_vocab; t++)
        sum += w[t] = exp(sharp * normal(r));
    for (int t = 0; t < n_vocab; t++) {
        int part = rig_int(r, 12) ? (int)(w[t] / sum * 65536) : 0;
        if (part == 0 && n_vocab > 10)
            part = 20; /* large vocabularies are for chi-square: no rare cells */
        l->p_all[t] = (float)part * 0x1p-16f;
        left -= part;
        if (w[t] > w[top])
            top = t;
    }
    l->p_all[top] += (float)left * 0x1p-16f;
}

static void random_q(struct rig_law *l, struct rig_rand *r)
{
    double w[RIG_MAX_V], sum = 0, sharp = 0.5 + rig_unit(r);
    for (int i = 0; i < l->n_list; i++)
        sum += w[i] = exp(sharp * normal(r));
    double total = 0;
    for (int i = 0; i < l->n_list; i++)
        total += l->q[i] = i > 0 && rig_int(r, 10) == 0 ? 0 : 0.5 * w[i] / sum + 0.5 * (double)l->p[i];
    for (int i = 0; i < l->n_list; i++)
        l->q[i] /= total;
}

static int n_context(int n_vocab, int n_deep)
{
    int n = 1, level = 1;
    for (int d = 0; d < n_deep; d++)
        n += level *= n_vocab;
    must(n <= RIG_MAX_CTX);
    return n;
}

void rig_random(struct rig_model *m, struct rig_rand *r, int n_vocab, int n_list, int n_deep)
{
    memset(m, 0, sizeof *m);
    m->n_vocab = n_vocab;
    m->n_ctx = n_context(n_vocab, n_deep);
    for (int c = m->n_ctx - 1; c >= 0; c--) {
        random_p(&m->law[c], r, n_vocab);
        make_list(&m->law[c], r, n_vocab, n_list);
        probe(&m->law[c], n_vocab);
        random_q(&m->law[c], r);
    }
}

void rig_set(struct rig_model *m, int ctx, const double *p, const double *q)
{
    struct rig_law *l = &m->law[ctx];
    m->n_ctx = m->n_ctx > ctx ? m->n_ctx : ctx + 1;
    l->n_list = m->n_vocab;
    for (int t = 0; t < m->n_vocab; t++) {
        l->list[t] = t;
        l->p_all[t] = l->p[t] = (float)p[t];
        l->q[t] = q ? q[t] : 1.0 / m->n_vocab;
    }
    l->p_off = 0;
}

void rig_one_hot(struct rig_model *m, struct rig_rand *r, int n_deep)
{
    for (int c = 0; c < n_context(m->n_vocab, n_deep); c++) {
        int best = rig_int(r, m->n_vocab);
        for (int t = 0; t < m->n_vocab; t++)
            m->law[c].p_all[t] = t == best;
        probe(&m->law[c], m->n_vocab);
    }
}

/* ---- Trees ---- */

struct rig_growth rig_tree_of(enum draft_law law)
{
    if (law == DRAFT_CHAIN)
        return (struct rig_growth){.law = law, .n_level = 3, .branch = {1, 1, 1}};
    return (struct rig_growth){.law = law, .n_level = 2, .branch = {2, 2}};
}

static int add_node(struct rig_tree *tree, const struct rig_model *m, int parent, int edge, int ctx)
{
    int i = tree->t.n_node++;
    const struct rig_law *l = &m->law[ctx];
    must(i < VERIFY_MAX_NODE);
    must(ctx < m->n_ctx);
    tree->ctx[i] = ctx;
    tree->depth[i] = parent < 0 ? 0 : tree->depth[parent] + 1;
    tree->node[i] = (struct verify_node){.parent = parent,
                                         .edge = edge,
                                         .n_list = l->n_list,
                                         .list = l->list,
                                         .p = l->p,
                                         .p_off = l->p_off,
                                         .draw = RIG_DRAW + i,
                                         .draw_off = l->p_off > 0 ? RIG_DRAW_OFF + i : -1,
                                         .q = l->q,
                                         .drawn = tree->drawn[i]};
    return i;
}

static int add_child(struct rig_tree *tree, const struct rig_model *m, int parent, int edge)
{
    return add_node(tree, m, parent, edge, rig_after(m, tree->ctx[parent], tree->node[parent].list[edge]));
}

static int draw_some(struct rig_tree *tree, int u, int k, const struct rig_growth *g, const struct chance *c)
{
    struct verify_node *n = &tree->node[u];
    int16_t *drawn = tree->drawn[u];
    int got = 0;
    struct draft_share share;
    must(k <= RIG_MAX_DRAWN);
    switch (g->law) {
    case DRAFT_IID:
    case DRAFT_CHAIN:
        return draft_iid(n->q, n->n_list, k, c, drawn);
    case DRAFT_GREEDY:
        return draft_greedy(n->q, n->n_list, k, c, drawn);
    case DRAFT_WOR:
        if (g->gumbel)
            return draft_wor(n->q, n->n_list, k, c, drawn);
        while (got < k && draft_next(n->q, n->n_list, c, drawn, got, &share))
            got++;
        return got;
    default:
        n->q = NULL;
        for (; got < k && got < n->n_list; got++)
            drawn[got] = (int16_t)got;
        return got;
    }
}

static int times_drawn(const struct verify_node *n, int edge, int end)
{
    int times = 0;
    for (int j = 0; j < end; j++)
        times += n->drawn[j] == edge;
    return times;
}

static void grow_levels(struct rig_tree *tree, const struct rig_model *m, const struct rig_growth *g,
                        const struct chance *c)
{
    for (int u = 0; u < tree->t.n_node; u++) {
        struct verify_node *n = &tree->node[u];
        if (tree->depth[u] >= g->n_level)
            continue;
        int k = g->branch[tree->depth[u]];
        if (g->sequences && u > 0)
            k = times_drawn(&tree->node[n->parent], n->edge, tree->node[n->parent].n_drawn);
        n->n_drawn = draw_some(tree, u, k, g, c);
        for (int j = 0; j < n->n_drawn; j++)
            if (!times_drawn(n, n->drawn[j], j))
                add_child(tree, m, u, n->drawn[j]);
    }
}

static void grow_dyspec(struct rig_tree *tree, const struct rig_model *m, const struct rig_growth *g,
                        const struct chance *c)
{
    struct dyspec_item item[32];
    struct dyspec heap = {.item = item, .cap = 32};
    dyspec_push(&heap, (struct dyspec_item){.value = 1});
    while (tree->t.n_node <= g->n_dyspec && dyspec_top(&heap)) {
        int u = dyspec_top(&heap)->node;
        struct verify_node *n = &tree->node[u];
        struct dyspec_row row = {n->q, n->n_list, tree->drawn[u], n->n_drawn};
        int edge = dyspec_draw(&heap, &row, tree->t.n_node, c);
        n->n_drawn = row.n_drawn;
        if (edge >= 0)
            add_child(tree, m, u, edge);
    }
}

static void grow_beam(struct rig_tree *tree, const struct rig_model *m, const struct rig_growth *g,
                      const struct chance *c)
{
    struct beam_item beam[RIG_MAX_DRAWN] = {{0}}, item[RIG_MAX_DRAWN * RIG_MAX_V];
    int32_t node[RIG_MAX_DRAWN] = {0};
    int n_beam = 1;
    for (int d = 0; d < g->n_level; d++) {
        int n_item = 0;
        for (int b = 0; b < n_beam; b++)
            n_item = beam_expand(beam[b], node[b], tree->node[node[b]].q, tree->node[node[b]].n_list, c, item, n_item);
        n_beam = beam_keep(item, n_item, g->n_beam);
        for (int b = 0; b < n_beam; b++) {
            int u = item[b].parent;
            tree->drawn[u][tree->node[u].n_drawn++] = (int16_t)item[b].edge;
            node[b] = add_child(tree, m, u, item[b].edge);
            beam[b] = item[b];
        }
    }
}

void rig_grow(struct rig_tree *tree, const struct rig_model *m, int ctx, const struct rig_growth *g,
              const struct chance *c)
{
    tree->t = (struct verify_tree){.node = tree->node, .law = g->law};
    add_node(tree, m, -1, 0, ctx);
    if (g->n_dyspec)
        grow_dyspec(tree, m, g, c);
    else if (g->n_beam)
        grow_beam(tree, m, g, c);
    else
        grow_levels(tree, m, g, c);
    for (int u = 0; g->real_draws && u < tree->t.n_node; u++) {
        double w[RIG_MAX_V];
        for (int t = 0; t < m->n_vocab; t++)
            w[t] = (double)m->law[tree->ctx[u]].p_all[t];
        if (tree->node[u].n_drawn > 0)
            tree->node[u].draw = c->choose(c->self, w, m->n_vocab);
    }
    must(verify_well_formed(&tree->t));
}

void rig_token_law(const struct rig_tree *tree, const struct rig_model *m, const struct verify_result *r, double *law)
{
    int end = r->n_path ? r->path[r->n_path - 1] : 0;
    const struct rig_law *l = &m->law[tree->ctx[end]];
    double sum = 0;
    memset(law, 0, sizeof *law * (size_t)m->n_vocab);
    if (r->token < RIG_DRAW) {
        must(r->token >= 0 && r->token < m->n_vocab);
        law[r->token] = 1;
        return;
    }
    for (int t = 0; t < m->n_vocab; t++)
        law[t] = (double)l->p_all[t];
    if (r->token >= RIG_DRAW_OFF) {
        must(r->token - RIG_DRAW_OFF == end);
        for (int i = 0; i < l->n_list; i++)
            law[l->list[i]] = 0;
    } else {
        must(r->token - RIG_DRAW == end);
    }
    for (int t = 0; t < m->n_vocab; t++)
        sum += law[t];
    for (int t = 0; t < m->n_vocab; t++)
        law[t] /= sum;
}

/* ---- All answers of chance ---- */

static int32_t script_choose(void *self, const double *weight, int32_t n)
{
    struct script *s = self;
    double sum = 0;
    uint64_t possible = 0;
    must(n <= 64);
    must(s->at < SCRIPT_MAX);
    for (int32_t i = 0; i < n; i++)
        if (weight[i] > 0) {
            possible |= (uint64_t)1 << i;
            sum += weight[i];
        }
    if (!possible)
        return -1;
    if (s->at == s->n) {
        s->possible[s->n] = possible;
        s->pick[s->n++] = __builtin_ctzll(possible);
    }
    must(s->possible[s->at] == possible); /* the same questions in every run */
    int32_t pick = s->pick[s->at++];
    s->prob *= weight[pick] / sum;
    return pick;
}

static double script_gumbel(void *self)
{
    ck_abort_msg("Gumbel noise cannot be enumerated");
    return 0;
}

void script_begin(struct script *s)
{
    *s = (struct script){.chance = {.choose = script_choose, .gumbel = script_gumbel, .self = s}};
}

bool script_next(struct script *s)
{
    if (s->started) {
        must(s->at == s->n);
        for (; s->n > 0; s->n--) {
            uint64_t later = s->possible[s->n - 1] & ~(((uint64_t)2 << s->pick[s->n - 1]) - 1);
            if (later) {
                s->pick[s->n - 1] = __builtin_ctzll(later);
                break;
            }
        }
        if (s->n == 0)
            return false;
    }
    s->started = true;
    s->at = 0;
    s->prob = 1;
    return true;
}

/* ---- Statistics ---- */

double rig_chi_limit(int n_free, double alpha)
{
    double lo = 0, hi = 20, f = n_free;
    for (int i = 0; i < 60; i++) { /* the normal quantile */
        double mid = (lo + hi) / 2;
        if (0.5 * erfc(mid * sqrt(0.5)) > alpha)
            lo = mid;
        else
            hi = mid;
    }
    double cube = 1 - 2 / (9 * f) + lo * sqrt(2 / (9 * f));
    return f * cube * cube * cube;
}

double rig_chi_square(const long *count, const double *p, int n_cell, int *n_free)
{
    double n = 0, chi = 0;
    *n_free = -1;
    for (int i = 0; i < n_cell; i++)
        n += (double)count[i];
    for (int i = 0; i < n_cell; i++) {
        double want = n * p[i];
        must(want > 0 || count[i] == 0);
        if (!(want > 0))
            continue;
        chi += ((double)count[i] - want) * ((double)count[i] - want) / want;
        ++*n_free;
    }
    return chi;
}

/* ---- Whole steps ---- */

struct tally { /* law of sequences of n_token tokens */
    const struct rig_model *m;
    int n_token;
    double law[RIG_MAX_SEQ];
};

/* Adds weight to all sequences that begin with `at` (n tokens, context ctx), by p. */
static void spread(struct tally *y, int at, int n, int ctx, double weight)
{
    if (n == y->n_token) {
        y->law[at] += weight;
        return;
    }
    for (int t = 0; t < y->m->n_vocab; t++)
        if (y->m->law[ctx].p_all[t] > 0)
            spread(y, at * y->m->n_vocab + t, n + 1, rig_after(y->m, ctx, t), weight * (double)y->m->law[ctx].p_all[t]);
}

static void tally_step(struct tally *y, const struct rig_tree *tree, const struct verify_result *r, double weight)
{
    int at = 0, ctx = 0, n = 0, v = y->m->n_vocab;
    double law[RIG_MAX_V];
    for (; n < r->n_path && n < y->n_token; n++) {
        const struct verify_node *u = &tree->node[r->path[n]];
        int32_t token = tree->node[u->parent].list[u->edge];
        must(u->parent == (n ? r->path[n - 1] : 0));
        at = at * v + token;
        ctx = rig_after(y->m, ctx, token);
    }
    if (n == y->n_token) {
        y->law[at] += weight;
        return;
    }
    rig_token_law(tree, y->m, r, law);
    for (int t = 0; t < v; t++)
        if (law[t] > 0)
            spread(y, at * v + t, n + 1, rig_after(y->m, ctx, t), weight * law[t]);
}

static double tally_error(const struct tally *y)
{
    struct tally want = {.m = y->m, .n_token = y->n_token};
    double error = 0;
    spread(&want, 0, 0, 0, 1);
    for (int i = 0; i < RIG_MAX_SEQ; i++)
        error = fmax(error, fabs(y->law[i] - want.law[i]));
    return error;
}

/* A draft was kept: a node, or a drawn token without one. */
static bool kept_one(const struct rig_tree *tree, const struct verify_result *r)
{
    for (int j = 0; r->n_path == 0 && j < tree->node[0].n_drawn; j++)
        if (tree->node[0].list[tree->drawn[0][j]] == r->token)
            return true;
    return r->n_path > 0;
}

void rig_wrong_q(struct rig_tree *tree)
{
    static double q[VERIFY_MAX_NODE][RIG_MAX_V];
    for (int i = 0; i < tree->t.n_node; i++) {
        for (int x = 0; x < tree->node[i].n_list; x++)
            q[i][x] = sqrt(tree->node[i].q[x]);
        tree->node[i].q = q[i];
    }
}

struct rig_sum rig_enumerate(const struct rig_model *m, enum verify_kind kind, const struct rig_growth *growth,
                             int n_token, void (*bend)(struct rig_tree *tree))
{
    static struct rig_tree tree;
    struct rig_growth g = *growth;
    struct rig_sum sum = {0};
    struct tally y = {.m = m, .n_token = n_token};
    struct verify_result r;
    struct script s;
    g.real_draws = kind == VERIFY_NSS;
    must((int)lround(pow(m->n_vocab, n_token)) <= RIG_MAX_SEQ);
    script_begin(&s);
    while (script_next(&s)) {
        rig_grow(&tree, m, 0, &g, &s.chance);
        if (bend)
            bend(&tree);
        verify_tree(kind, &tree.t, &s.chance, &r);
        tally_step(&y, &tree, &r, s.prob);
        sum.mass += s.prob;
        sum.tokens += s.prob * (r.n_path + 1);
        sum.accepted += kept_one(&tree, &r) ? s.prob : 0;
        sum.n_run++;
    }
    sum.error = tally_error(&y);
    return sum;
}

struct rig_sum rig_enumerate_steps(const struct rig_model *m, enum verify_kind kind, const struct rig_growth *growth,
                                   int n_token)
{
    static struct rig_tree tree;
    struct rig_growth g = *growth;
    struct rig_sum sum = {0};
    struct tally y = {.m = m, .n_token = n_token};
    struct verify_result r;
    struct script s;
    g.real_draws = kind == VERIFY_NSS;
    script_begin(&s);
    while (script_next(&s)) {
        int at = 0, ctx = 0, n = 0;
        while (n < n_token) {
            double law[RIG_MAX_V];
            rig_grow(&tree, m, ctx, &g, &s.chance);
            verify_tree(kind, &tree.t, &s.chance, &r);
            rig_token_law(&tree, m, &r, law);
            for (int i = 0; i <= r.n_path && n < n_token; i++, n++) {
                const struct verify_node *u = i < r.n_path ? &tree.node[r.path[i]] : NULL;
                int32_t token =
                    u ? tree.node[u->parent].list[u->edge] : s.chance.choose(s.chance.self, law, m->n_vocab);
                at = at * m->n_vocab + token;
                ctx = rig_after(m, ctx, token);
            }
        }
        y.law[at] += s.prob;
        sum.mass += s.prob;
        sum.n_run++;
    }
    sum.error = tally_error(&y);
    return sum;
}

void rig_expect(const struct rig_sum *s, enum verify_kind kind, enum draft_law law, const char *what)
{
    if (!(fabs(s->mass - 1) < 1e-12 && s->error <= 1e-12))
        ck_abort_msg("%s on %s, %s: mass %.15f, law error %g", verify_name(kind), draft_law_name(law), what, s->mass,
                     s->error);
}
