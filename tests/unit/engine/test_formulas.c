/* What cautious next-token prediction, contrastive search and beam search compute, by hand: no engine. */
#include <check.h>

#include "strategy/beam_select.h"
#include "strategy/cautious.h"
#include "strategy/contrastive.h"
#include "../suite.h"

/* autoregressive.md, section 3, test 4. */
START_TEST(trials_follow_the_formulas)
{
    struct cautious_params code = {.h_min = 0.01f, .h_max = 1.5f}, paper = code;
    paper.by_paper = true;
    ck_assert_int_eq(cautious_trials(&paper, 0.15, 10), 1);
    ck_assert_int_eq(cautious_trials(&paper, 0.75, 10), 4);
    ck_assert_int_eq(cautious_trials(&code, 0.75, 10), 5);
    ck_assert_int_eq(cautious_trials(&code, 0, 10), 1);
    ck_assert_int_eq(cautious_trials(&code, 3, 10), 10);
    ck_assert_int_eq(cautious_trials(&paper, 3, 10), 10);
    ck_assert_int_eq(cautious_trials(&code, 9, 1), 1);
}
END_TEST

START_TEST(the_least_perplexed_trial_is_kept)
{
    const struct trial t[] = {{.n = 4, .sum_lnp = -4}, {.n = 2, .sum_lnp = -1}, {.n = 8, .sum_lnp = -4}, {.n = 0}};
    ck_assert_int_eq(cautious_choose(t, 4), 1); /* -0.5 a token, and the first of those that have it */
    ck_assert_int_eq(cautious_choose(t, 1), 0);
}
END_TEST

/* autoregressive.md, section 10 (d). */
START_TEST(likely_and_unlike)
{
    const struct candidate c[] = {{.tok = 7, .p = .5f}, {.tok = 8, .p = .4f}, {.tok = 9, .p = .4f}};
    const float similarity[] = {1, 0, 0};
    ck_assert_int_eq(contrastive_choose(c, similarity, 2, .6f), 1);
    ck_assert_int_eq(contrastive_choose(c, similarity, 3, .6f), 1); /* the likelier of equals stands first */
    ck_assert_int_eq(contrastive_choose(c, similarity, 3, 0), 0);
}
END_TEST

/* autoregressive.md, section 11 (d): all tokens equal, so groups differ by the penalty alone. */
START_TEST(groups_pick_different_tokens)
{
    const int32_t tok[] = {0, 1, 2};
    const float logprob[] = {-1.0986f, -1.0986f, -1.0986f};
    const struct beam_list root = {.n = 3, .tok = tok, .logprob = logprob};
    int32_t used[3], n_used = 0;
    for (int32_t g = 0; g < 3; g++) {
        struct beam_pick pick[2];
        ck_assert_int_eq(beam_best(&root, 1, used, n_used, .5, 2, pick), 2);
        ck_assert_int_eq(pick[0].tok, g);
        used[n_used++] = pick[0].tok;
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("formulas");
    tcase_add_test(tc, trials_follow_the_formulas);
    tcase_add_test(tc, the_least_perplexed_trial_is_kept);
    tcase_add_test(tc, likely_and_unlike);
    tcase_add_test(tc, groups_pick_different_tokens);
    return suite_run(tc);
}
