/* The draft side: each law against its definition, the heap against its paper, the source of chance. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify_rig.h"
#include "../suite.h"

static struct rig_model m;
static const double q5[5] = {0.35, 0.05, 0.3, 0.1, 0.2};

/* ---- Draws at a node ---- */

struct canned { /* Gumbel noise that is written down beforehand */
    double noise[PLAN_MAX_LIST];
    int at;
};

static double canned_gumbel(void *self)
{
    struct canned *c = self;
    return c->noise[c->at++];
}

START_TEST(gumbel_top_k_takes_the_largest_in_order)
{
    struct rig_rand r = rig_rand_begin("gumbel_top_k_takes_the_largest_in_order", 1);
    for (int round = 0; round < 2000; round++) {
        int n = 1 + rig_int(&r, PLAN_MAX_LIST), k = rig_int(&r, 12), n_possible = 0;
        double q[PLAN_MAX_LIST], value[PLAN_MAX_LIST];
        int16_t drawn[PLAN_MAX_LIST];
        struct canned noise = {.at = 0};
        struct chance c = {.gumbel = canned_gumbel, .self = &noise};
        for (int i = 0; i < n; i++) {
            q[i] = rig_int(&r, 4) ? rig_unit(&r) : 0;
            if (q[i] > 0)
                noise.noise[n_possible++] = -log(-log(rig_unit(&r)));
            value[i] = q[i] > 0 ? log(q[i]) + noise.noise[n_possible - 1] : -INFINITY;
        }
        int got = draft_wor(q, n, k, &c, drawn);
        ck_assert_int_eq(got, k < n_possible ? k : n_possible);
        for (int j = 0; j < got; j++) {
            int best = 0;
            for (int i = 0; i < n; i++)
                if (value[i] > value[best])
                    best = i;
            ck_assert_int_eq(drawn[j], best);
            value[best] = -INFINITY;
        }
    }
}
END_TEST

START_TEST(order_statistics_of_gumbel_top_k)
{
    enum { N = 400000 };
    long count[25] = {0};
    double p[25];
    int n_free;
    for (int i = 0; i < N; i++) {
        struct chance_philox c;
        int16_t drawn[2];
        ck_assert(draft_wor(q5, 5, 2, chance_philox(&c, 11, i, NOISE_DRAFT), drawn) == 2);
        count[5 * drawn[0] + drawn[1]]++;
    }
    for (int i = 0; i < 25; i++)
        p[i] = i / 5 == i % 5 ? 0 : q5[i / 5] * q5[i % 5] / (1 - q5[i / 5]);
    double chi = rig_chi_square(count, p, 25, &n_free);
    printf("Gumbel-top-2: chi-square %.1f, limit %.1f (%d free)\n", chi, rig_chi_limit(n_free, 1e-3), n_free);
    ck_assert_double_le(chi, rig_chi_limit(n_free, 1e-3));
    for (int i = 0; i < 25; i++) /* control: the same counts against draws that are independent but for equality */
        p[i] = i / 5 == i % 5 ? 0 : q5[i / 5] * q5[i % 5] / (1 - 0.265);
    ck_assert_double_ge(rig_chi_square(count, p, 25, &n_free), 1000);
}
END_TEST

START_TEST(laws_by_enumeration)
{
    double iid[25] = {0}, wor[125] = {0}, greedy[5] = {0};
    struct script s;
    int16_t d[5];
    script_begin(&s);
    while (script_next(&s)) {
        ck_assert_int_eq(draft_iid(q5, 5, 2, &s.chance, d), 2);
        iid[5 * d[0] + d[1]] += s.prob;
    }
    script_begin(&s);
    while (script_next(&s)) {
        double rest = 1;
        struct draft_share share;
        for (int n = 0; n < 3; n++) {
            ck_assert(draft_next(q5, 5, &s.chance, d, n, &share));
            ck_assert_double_le(fabs(share.taken - q5[d[n]] / rest), 1e-14);
            ck_assert_double_le(fabs(share.taken + share.left - 1), 1e-14);
            rest -= q5[d[n]];
        }
        wor[25 * d[0] + 5 * d[1] + d[2]] += s.prob;
    }
    script_begin(&s);
    while (script_next(&s)) {
        ck_assert_int_eq(draft_greedy(q5, 5, 3, &s.chance, d), 3);
        ck_assert(d[0] == 0 && d[1] == 2);
        greedy[d[2]] += s.prob;
    }
    for (int i = 0; i < 125; i++) {
        int a = i / 25, b = i / 5 % 5, c = i % 5;
        double pr = a == b || a == c || b == c ? 0 : q5[a] * q5[b] / (1 - q5[a]) * q5[c] / (1 - q5[a] - q5[b]);
        ck_assert_double_le(fabs(wor[i] - pr), 1e-14);
        ck_assert_double_le(fabs(iid[5 * b + c] - q5[b] * q5[c]), 1e-14);
        ck_assert_double_le(fabs(greedy[c] - (c == 0 || c == 2 ? 0 : q5[c] / 0.35)), 1e-14);
    }
}
END_TEST

START_TEST(fewer_where_q_has_no_more)
{
    const double one[4] = {0, 0, 2.5, 0}, none[2] = {0, NAN};
    struct chance_philox c;
    const struct chance *chance = chance_philox(&c, 1, 1, NOISE_DRAFT);
    struct draft_share share;
    int16_t d[4];
    ck_assert_int_eq(draft_wor(one, 4, 3, chance, d), 1);
    ck_assert_int_eq(draft_greedy(one, 4, 3, chance, d), 1);
    ck_assert(draft_next(one, 4, chance, d, 0, &share) && d[0] == 2 && share.left == 0);
    ck_assert(!draft_next(one, 4, chance, d, 1, &share));
    ck_assert_int_eq(draft_iid(none, 2, 3, chance, d), 0);
    ck_assert_int_eq(draft_wor(none, 2, 3, chance, d), 0);
    ck_assert_int_eq(draft_greedy(none, 2, 3, chance, d), 0);
    ck_assert_int_eq(draft_greedy(q5, 5, 0, chance, d), 0);
}
END_TEST

/* ---- The source of chance ---- */

START_TEST(philox_depends_on_key_position_and_stream_only)
{
    enum { N = 1000 };
    const double w[4] = {1, 0, 2, NAN};
    int same[3] = {0}, n2 = 0;
    for (int i = 0; i < N; i++) {
        struct chance_philox a, b, other[3];
        chance_philox(&a, 5, i, NOISE_ACCEPT);
        chance_philox(&b, 5, i, NOISE_ACCEPT);
        chance_philox(&other[0], 6, i, NOISE_ACCEPT);
        chance_philox(&other[1], 5, i + N, NOISE_ACCEPT);
        chance_philox(&other[2], 5, i, NOISE_DRAFT);
        double g = a.chance.gumbel(&a), h = a.chance.gumbel(&a);
        ck_assert(isfinite(g) && g != h);
        ck_assert(b.chance.gumbel(&b) == g && b.chance.gumbel(&b) == h);
        for (int o = 0; o < 3; o++)
            same[o] += other[o].chance.gumbel(&other[o]) == g;
        int32_t x = a.chance.choose(&a, w, 4);
        ck_assert(x == 0 || x == 2);
        n2 += x == 2;
        ck_assert(chance_coin(&a.chance, 1) && !chance_coin(&a.chance, 0) && !chance_coin(&a.chance, NAN));
        ck_assert_uint_eq(a.n_asked, 3);
    }
    ck_assert(!same[0] && !same[1] && !same[2]);
    ck_assert(abs(n2 - 667) < 60);
}
END_TEST

/* ---- Stochastic beam search ---- */

START_TEST(beams_are_whole_sequences_without_replacement)
{
    enum { N = 200000 };
    static const double law[4][3] = {{.6, .3, .1}, {.2, .5, .3}, {.1, .1, .8}, {.4, .4, .2}};
    static long count[81];
    double q[9], p[81];
    int n_free;
    for (int s = 0; s < 9; s++)
        q[s] = law[0][s / 3] * law[1 + s / 3][s % 3];
    for (int i = 0; i < N; i++) {
        static struct beam_item beam[2], item[6];
        struct chance_philox c;
        const struct chance *chance = chance_philox(&c, 17, i, NOISE_DRAFT);
        int n = beam_expand((struct beam_item){0}, 0, law[0], 3, chance, item, 0);
        n = beam_keep(item, n, 2);
        memcpy(beam, item, sizeof beam);
        int n_item = 0;
        for (int b = 0; b < n; b++)
            n_item = beam_expand(beam[b], beam[b].edge, law[1 + beam[b].edge], 3, chance, item, n_item);
        ck_assert(beam_keep(item, n_item, 2) == 2 && item[0].psi == 0);
        count[9 * (3 * item[0].parent + item[0].edge) + 3 * item[1].parent + item[1].edge]++;
    }
    for (int i = 0; i < 81; i++)
        p[i] = i / 9 == i % 9 ? 0 : q[i / 9] * q[i % 9] / (1 - q[i / 9]);
    double chi = rig_chi_square(count, p, 81, &n_free);
    printf("SBS, W=2, L=2: chi-square %.1f, limit %.1f (%d free)\n", chi, rig_chi_limit(n_free, 1e-3), n_free);
    ck_assert_double_le(chi, rig_chi_limit(n_free, 1e-3));
}
END_TEST

/* Deep paths have exponents that e^x cannot hold. */
START_TEST(beams_stay_finite)
{
    struct rig_rand r = rig_rand_begin("beams_stay_finite", 4);
    for (int round = 0; round < 5000; round++) {
        static struct beam_item item[5];
        struct chance_philox c;
        double far = pow(10, 4 * rig_unit(&r)), top = -INFINITY;
        double q[5] = {0.5, 1e-300, 0, 1e-12, 0.5};
        struct beam_item from = {.phi = -far, .psi = -far + 8 * rig_unit(&r) - 4};
        int n = beam_expand(from, 3, q, 5, chance_philox(&c, 2, round, NOISE_DRAFT), item, 0);
        ck_assert_int_eq(n, 4);
        for (int i = 0; i < n; i++) {
            ck_assert(isfinite(item[i].psi) && item[i].psi <= from.psi && item[i].parent == 3 && item[i].edge != 2);
            top = fmax(top, item[i].psi);
        }
        ck_assert(top == from.psi);
        ck_assert_int_eq(beam_keep(item, n, 0), 0);
        ck_assert_int_eq(beam_keep(item, n, 3), 3);
        ck_assert(item[0].psi >= item[1].psi && item[1].psi >= item[2].psi);
    }
}
END_TEST

/* ---- DySpec ---- */

enum { N_TREE = 3, N_CTX = 121, N_INNER = 40, N_DRAW = 3 };

/* Draws at every context of every tree, whose chance belongs to the context: then draw n at a node is the same token
 * whichever way the tree was grown. */
struct forest {
    struct chance_philox chance[N_TREE][N_CTX];
    int16_t drawn[N_TREE][N_CTX][N_DRAW];
    int n_drawn[N_TREE][N_CTX];
    int ctx[N_TREE][N_CTX], n_node[N_TREE]; /* of a tree's nodes */
    double last, next;                      /* value of the last item taken and of the one that would come next */
};

static void forest_begin(struct forest *f)
{
    memset(f, 0, sizeof *f);
    for (int t = 0; t < N_TREE; t++) {
        f->n_node[t] = 1;
        for (int c = 0; c < N_CTX; c++)
            chance_philox(&f->chance[t][c], (uint64_t)t + 100, c, NOISE_DRAFT);
    }
}

/* A child of one of the last contexts that have children themselves. */
static bool below_is_too_deep(int ctx)
{
    return rig_after(&m, ctx, 0) >= N_INNER;
}

/* Grows trees first .. end-1 by one heap. */
static void forest_grow(struct forest *f, int first, int end, int n_draw)
{
    static struct dyspec_item item[512];
    struct dyspec heap = {.item = item, .cap = 512};
    for (int t = first; t < end; t++)
        dyspec_push(&heap, (struct dyspec_item){.value = 1, .tree = t});
    for (f->last = INFINITY; n_draw > 0 && dyspec_top(&heap); n_draw--) {
        struct dyspec_item it = *dyspec_top(&heap);
        int t = it.tree, ctx = f->ctx[t][it.node], child = below_is_too_deep(ctx) ? -1 : f->n_node[t];
        const struct rig_law *l = &m.law[ctx];
        struct dyspec_row row = {l->q, l->n_list, f->drawn[t][ctx], f->n_drawn[t][ctx]};
        ck_assert_double_le(it.value, f->last); /* values come in decreasing order */
        f->last = it.value;
        int edge = dyspec_draw(&heap, &row, child, &f->chance[t][ctx].chance);
        ck_assert_int_ge(edge, 0);
        f->n_drawn[t][ctx] = row.n_drawn;
        f->ctx[t][f->n_node[t]++] = rig_after(&m, ctx, l->list[edge]);
    }
    f->next = dyspec_top(&heap) ? dyspec_top(&heap)->value : 0;
}

static void same_tree(const struct forest *a, const struct forest *b, int t)
{
    for (int c = 0; c < N_CTX; c++) {
        ck_assert_int_eq(a->n_drawn[t][c], b->n_drawn[t][c]);
        ck_assert_mem_eq(a->drawn[t][c], b->drawn[t][c], sizeof(int16_t) * (size_t)a->n_drawn[t][c]);
    }
}

START_TEST(one_heap_serves_many_trees)
{
    static struct forest merged, alone;
    struct rig_rand r = rig_rand_begin("one_heap_serves_many_trees", 5);
    for (int round = 0; round < 200; round++) {
        int n_draw = 1 + rig_int(&r, 40), sum = 0;
        rig_random(&m, &r, 3, 3, 4);
        forest_begin(&merged);
        forest_grow(&merged, 0, N_TREE, n_draw);
        forest_begin(&alone);
        for (int t = 0; t < N_TREE; t++) { /* with as many draws as it got, a tree is what it would be alone */
            sum += merged.n_node[t] - 1;
            forest_grow(&alone, t, t + 1, merged.n_node[t] - 1);
            same_tree(&merged, &alone, t);
        }
        ck_assert_int_eq(sum, n_draw);
    }
}
END_TEST

/* Layer by layer. Contexts are numbered so that parents come first. */
static void forest_fill(struct forest *f, double least)
{
    static double value[N_CTX];
    memset(value, 0, sizeof value);
    value[0] = 1;
    for (int c = 0; c < N_INNER; c++) {
        const struct rig_law *l = &m.law[c];
        struct dyspec_row row = {l->q, l->n_list, f->drawn[0][c], 0};
        double child_value[N_DRAW];
        int n = value[c] > 0 ? dyspec_fill(value[c], least, &row, N_DRAW, child_value, &f->chance[0][c].chance) : 0;
        ck_assert_int_eq(n, row.n_drawn);
        f->n_drawn[0][c] = n;
        for (int j = 0; j < n; j++)
            if (!below_is_too_deep(c))
                value[rig_after(&m, c, l->list[row.drawn[j]])] = child_value[j];
    }
}

START_TEST(the_threshold_tree_is_the_greedy_tree)
{
    static struct forest greedy, filled;
    struct rig_rand r = rig_rand_begin("the_threshold_tree_is_the_greedy_tree", 6);
    int n_tie = 0;
    for (int round = 0; round < 200; round++) {
        rig_random(&m, &r, 3, 3, 4);
        forest_begin(&greedy);
        forest_begin(&filled);
        forest_grow(&greedy, 0, 1, 1 + rig_int(&r, 25));
        if (greedy.next == greedy.last) { /* the last token of a law hands its child all of its value */
            n_tie++;
            continue;
        }
        forest_fill(&filled, greedy.last);
        same_tree(&greedy, &filled, 0);
    }
    ck_assert_int_lt(n_tie, 60);
}
END_TEST

/* Child and next draw share the item's value, and an exhausted or too deep node pushes nothing. */
START_TEST(values_are_shared_out)
{
    struct dyspec_item item[4];
    struct dyspec heap = {.item = item, .cap = 4};
    struct chance_philox c;
    int16_t drawn[4];
    const double q[2] = {0.25, 0.75};
    struct dyspec_row row = {q, 2, drawn, 0};
    chance_philox(&c, 3, 3, NOISE_DRAFT);
    dyspec_push(&heap, (struct dyspec_item){.value = 0.5, .tree = 1, .node = 4});
    int32_t edge = dyspec_draw(&heap, &row, 9, &c.chance);
    ck_assert(heap.n == 2 && row.n_drawn == 1 && drawn[0] == edge);
    ck_assert(item[0].value + item[1].value == 0.5 && item[0].value == 0.375);
    ck_assert(item[edge == 0].node == 9 && item[edge != 0].node == 4 && item[0].tree == 1);
    if (dyspec_top(&heap)->node == 9)
        heap.item[0] = heap.item[--heap.n];
    else
        heap.n--;
    ck_assert_int_eq(dyspec_draw(&heap, &row, -1, &c.chance), 1 - edge);
    ck_assert(heap.n == 0 && !dyspec_top(&heap));
    dyspec_push(&heap, (struct dyspec_item){.value = 1});
    ck_assert(dyspec_draw(&heap, &row, 5, &c.chance) == -1 && heap.n == 0);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("draft-law");
    tcase_add_test(tc, gumbel_top_k_takes_the_largest_in_order);
    tcase_add_test(tc, order_statistics_of_gumbel_top_k);
    tcase_add_test(tc, laws_by_enumeration);
    tcase_add_test(tc, fewer_where_q_has_no_more);
    tcase_add_test(tc, philox_depends_on_key_position_and_stream_only);
    tcase_add_test(tc, beams_are_whole_sequences_without_replacement);
    tcase_add_test(tc, beams_stay_finite);
    tcase_add_test(tc, one_heap_serves_many_trees);
    tcase_add_test(tc, the_threshold_tree_is_the_greedy_tree);
    tcase_add_test(tc, values_are_shared_out);
    return suite_run(tc);
}
