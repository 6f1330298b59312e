/* Every verifier over trees of every shape, by exact enumeration: the joint law of two to five tokens, whole random
 * trees, several steps, the figures of papers/check. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "verify_rig.h"
#include "../suite.h"

static const double exact = 1e-12;
static struct rig_model m;

/* ---- Every pair ---- */

START_TEST(trees_every_pair)
{
    struct rig_rand r = rig_rand_begin("trees_every_pair", 2);
    double worst = 0;
    long n_run = 0;
    for (int round = 0; round < 4; round++) {
        int v = round < 3 ? 3 : 4;
        rig_random(&m, &r, v, v - round % 2, 3);
        for (int law = 0; law < N_DRAFT_LAW; law++)
            for (int kind = 0; kind < N_VERIFY_KIND; kind++)
                for (int sequences = 0; sequences <= (law == DRAFT_IID); sequences++) {
                    struct rig_growth g = rig_tree_of(law);
                    g.sequences = sequences; /* three drafts of two tokens, as SpecTr has them */
                    if (sequences)
                        g.branch[0] = 3;
                    if (!verify_valid(kind, law))
                        continue;
                    struct rig_sum s = rig_enumerate(&m, kind, &g, law == DRAFT_CHAIN ? 4 : 3, NULL);
                    rig_expect(&s, kind, law, sequences ? "sequences" : "tree");
                    worst = fmax(worst, s.error);
                    n_run += s.n_run;
                }
    }
    printf("trees: %ld runs, law error <= %.1e\n", n_run, worst);
}
END_TEST

/* Whole random trees: which draws there are depends on what was drawn before. */
START_TEST(dyspec_trees)
{
    struct rig_rand r = rig_rand_begin("dyspec_trees", 3);
    static const enum verify_kind kind[] = {VERIFY_NSS, VERIFY_NAIVE, VERIFY_RRS, VERIFY_TRAVERSAL};
    double worst = 0;
    long n_run = 0;
    for (int round = 0; round < 3; round++) {
        rig_random(&m, &r, 3, round == 2 ? 2 : 3, 4);
        for (int n = 3; n <= 4; n++)
            for (int i = 0; i < 4; i++) {
                struct rig_growth g = {.law = DRAFT_WOR, .n_dyspec = n};
                struct rig_sum s = rig_enumerate(&m, kind[i], &g, n == 3 ? 4 : 5, NULL);
                rig_expect(&s, kind[i], DRAFT_WOR, "DySpec");
                worst = fmax(worst, s.error);
                n_run += s.n_run;
            }
    }
    printf("DySpec trees: %ld runs, law error <= %.1e\n", n_run, worst);
}
END_TEST

START_TEST(steps_one_after_another)
{
    struct rig_rand r = rig_rand_begin("steps_one_after_another", 4);
    double worst = 0;
    long n_run = 0;
    rig_random(&m, &r, 3, 2, 4);
    for (int law = 0; law < N_DRAFT_LAW; law++)
        for (int kind = 0; kind < N_VERIFY_KIND; kind++) {
            bool chain = law == DRAFT_CHAIN;
            struct rig_growth g = {.law = law, .n_level = chain ? 2 : 1, .branch = {chain ? 1 : 2, 1}};
            if (!verify_valid(kind, law))
                continue;
            struct rig_sum s = rig_enumerate_steps(&m, kind, &g, 3);
            rig_expect(&s, kind, law, "steps");
            worst = fmax(worst, s.error);
            n_run += s.n_run;
        }
    printf("steps: %ld runs, joint law of 3 tokens, error <= %.1e\n", n_run, worst);
}
END_TEST

/* The models of papers/check, which print the tokens a step makes; contexts in the rig's order. */
static const double extra_p[13][3] = {
    {0.44484985770006319, 0.1194881279690662, 0.43566201433087065},
    {0.44227039407601287, 0.16578735988054633, 0.3919422460434408},
    {0.80406663055284622, 0.034710801361570044, 0.1612225680855838},
    {0.21462474940565701, 0.573839649780164, 0.21153560081417908},
    {0.58466224604552586, 0.20029059010526853, 0.21504716384920572},
    {0.30401104620780983, 0.32437007414664848, 0.37161887964554158},
    {0.61693890868076151, 0.10965355156093418, 0.27340753975830434},
    {0.14773980757754368, 0.25284901067034804, 0.59941118175210828},
    {0.51806348812872238, 0.081266140728669292, 0.40067037114260828},
    {0.34802527223626201, 0.63930593727597029, 0.012668790487767735},
    {0.18092473960160682, 0.52204753953595151, 0.29702772086244167},
    {0.37453764286529972, 0.54730269036879597, 0.078159666765904273},
    {0.35803418696593325, 0.062656012369606731, 0.57930980066446003},
};
static const double extra_q[4][3] = {
    {0.22408907966122793, 0.091264778173842931, 0.68464614216492914},
    {0.68672822804065614, 0.099503884650390895, 0.21376788730895302},
    {0.62250016380001039, 0.10769271260209298, 0.2698071235978966},
    {0.13465115361455446, 0.63976663760308927, 0.22558220878235632},
};
static const double traversal_p[13][3] = {
    {0.001180397285105659, 0.048977317595875258, 0.94984228511901903},
    {0.088974142019626737, 0.44042990011990801, 0.47059595786046515},
    {0.32783444558239522, 0.20683782349847327, 0.46532773091913149},
    {0.66738148092548866, 0.084955746619315861, 0.24766277245519544},
    {0.45871024540804922, 0.22224203383404861, 0.31904772075790216},
    {0.48710863116031605, 0.23148607380309139, 0.28140529503659262},
    {0.40523322718231553, 0.12948592015146787, 0.46528085266621655},
    {0.29097703817812215, 0.010385960771108796, 0.69863700105076909},
    {0.74951494217616765, 0.14680795856574211, 0.10367709925809036},
    {0.012119759480677153, 0.25167391250508797, 0.73620632801423491},
    {0.46627117609339114, 0.066524386511684852, 0.46720443739492401},
    {0.12712025016149592, 0.16165152908289673, 0.71122822075560743},
    {0.10281192274944859, 0.33747690947029274, 0.55971116778025864},
};
static const double traversal_q[13][3] = {
    {0.082768041902460107, 0.1671481280275271, 0.75008383007001278},
    {0.26927370587366595, 0.35357685971703112, 0.37714943440930299},
    {0.17903932066144343, 0.48618110708412626, 0.33477957225443028},
    {0.54395633482713757, 0.27545904906461049, 0.18058461610825194},
    {0.40729486173281798, 0.15238659835596563, 0.44031853991121644},
    {0.37327808218747571, 0.4121374092736384, 0.214584508538886},
    {0.26402481192314037, 0.38254134789439781, 0.35343384018246177},
    {0.23006298904933403, 0.38361881020060384, 0.38631820075006218},
    {0.37793360661992315, 0.31066653466338151, 0.3113998587166954},
    {0.18433771076791772, 0.30730369435426841, 0.50835859487781387},
    {0.47833519340978858, 0.055971035246471346, 0.46569377134374013},
    {0.063905345564638852, 0.52041768169685054, 0.41567697273851062},
    {0.30370476777514643, 0.41560540820148117, 0.28068982402337239},
};

START_TEST(tokens_a_step_as_the_references)
{
    static const struct {
        enum verify_kind kind;
        struct rig_growth g;
        bool extra;
        double tokens;
    } figure[] = {
        {VERIFY_BLOCK, {.law = DRAFT_CHAIN, .n_level = 2, .branch = {1, 1}}, true, 2.42937},
        {VERIFY_TRAVERSAL, {.law = DRAFT_CHAIN, .n_level = 2, .branch = {1, 1}}, true, 2.42937},
        {VERIFY_RRS, {.law = DRAFT_CHAIN, .n_level = 2, .branch = {1, 1}}, true, 2.39584},
        {VERIFY_TRAVERSAL, {.law = DRAFT_WOR, .n_level = 2, .branch = {2, 2}}, false, 2.92868434},
        {VERIFY_RRS, {.law = DRAFT_WOR, .n_level = 2, .branch = {2, 2}}, false, 2.92616358},
        {VERIFY_TRAVERSAL, {.law = DRAFT_IID, .n_level = 2, .branch = {2, 2}}, false, 2.85293022},
        {VERIFY_RRS, {.law = DRAFT_IID, .n_level = 2, .branch = {2, 2}}, false, 2.84622123},
        {VERIFY_TRAVERSAL, {.law = DRAFT_WOR, .n_dyspec = 3}, false, 3.27863682},
        {VERIFY_RRS, {.law = DRAFT_WOR, .n_dyspec = 3}, false, 3.27863682},
    };
    for (size_t i = 0; i < sizeof figure / sizeof *figure; i++) {
        const double flat[] = {.25, .25, .5};
        m.n_vocab = 3;
        for (int c = 0; c < 40; c++)
            rig_set(&m, c,
                    c >= 13           ? flat
                    : figure[i].extra ? extra_p[c]
                                      : traversal_p[c],
                    c >= 13           ? NULL
                    : figure[i].extra ? extra_q[c % 4]
                                      : traversal_q[c]);
        struct rig_sum s = rig_enumerate(&m, figure[i].kind, &figure[i].g, figure[i].g.n_dyspec ? 4 : 3, NULL);
        printf("%-9s on %-6s: %.6f tokens a step, reference %.6f\n", verify_name(figure[i].kind),
               draft_law_name(figure[i].g.law), s.tokens, figure[i].tokens);
        ck_assert_double_le(fabs(s.tokens - figure[i].tokens), 5.1e-6);
        ck_assert_double_le(s.error, 1e-6); /* these p sum to 1 in f64 only */
    }
}
END_TEST

START_TEST(traversal_of_a_chain_is_block_verification)
{
    struct rig_rand r = rig_rand_begin("traversal_of_a_chain_is_block_verification", 5);
    for (int round = 0; round < 20; round++) {
        struct rig_growth g = rig_tree_of(DRAFT_CHAIN);
        rig_random(&m, &r, 3, 2 + round % 2, 3);
        struct rig_sum block = rig_enumerate(&m, VERIFY_BLOCK, &g, 4, NULL);
        struct rig_sum traversal = rig_enumerate(&m, VERIFY_TRAVERSAL, &g, 4, NULL);
        struct rig_sum tokenwise = rig_enumerate(&m, VERIFY_RRS, &g, 4, NULL);
        ck_assert_double_le(fabs(block.tokens - traversal.tokens), exact);
        ck_assert_double_ge(block.tokens, tokenwise.tokens - exact);
    }
}
END_TEST

/* ---- Temperature 0 ---- */

static int exact_match(const struct rig_tree *tree)
{
    int u = 0, n = 0;
    for (;; n++) {
        int next = -1;
        for (int i = 1; i < tree->t.n_node; i++)
            if (tree->node[i].parent == u && tree->node[u].p[tree->node[i].edge] > 0)
                next = i;
        if (next < 0)
            return n;
        u = next;
    }
}

START_TEST(temperature_0_is_the_longest_exact_match)
{
    struct rig_rand r = rig_rand_begin("temperature_0_is_the_longest_exact_match", 6);
    for (int round = 0; round < 6; round++) {
        rig_random(&m, &r, 3, round % 2 ? 2 : 3, 3);
        rig_one_hot(&m, &r, 3);
        for (int law = 0; law < N_DRAFT_LAW; law++)
            for (int kind = 0; kind < N_VERIFY_KIND; kind++) {
                static struct rig_tree tree;
                struct rig_growth g = rig_tree_of(law);
                struct verify_result v;
                struct script s;
                if (!verify_valid(kind, law))
                    continue;
                struct rig_sum sum = rig_enumerate(&m, kind, &g, law == DRAFT_CHAIN ? 4 : 3, NULL);
                rig_expect(&sum, kind, law, "temperature 0");
                g.real_draws = kind == VERIFY_NSS;
                script_begin(&s);
                while (script_next(&s)) {
                    rig_grow(&tree, &m, 0, &g, &s.chance);
                    verify_tree(kind, &tree.t, &s.chance, &v);
                    if (s.prob > 1e-12)
                        ck_assert_msg(v.n_path == exact_match(&tree), "%s on %s: %d drafts, not %d", verify_name(kind),
                                      draft_law_name(law), v.n_path, exact_match(&tree));
                }
            }
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("verify-trees");
    tcase_add_test(tc, trees_every_pair);
    tcase_add_test(tc, dyspec_trees);
    tcase_add_test(tc, steps_one_after_another);
    tcase_add_test(tc, tokens_a_step_as_the_references);
    tcase_add_test(tc, traversal_of_a_chain_is_block_verification);
    tcase_add_test(tc, temperature_0_is_the_longest_exact_match);
    return suite_run(tc);
}
