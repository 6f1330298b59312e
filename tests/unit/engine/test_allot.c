/* Sharing out a step's rows among drafts, and the curve of what steps cost. */
#include <check.h>

#include "draft/allot.h"
#include "random_plan.h"
#include "../suite.h"

static struct step_cost random_cost(struct rnd *r)
{
    struct step_cost c;
    double s = 1;
    cost_init(&c);
    for (int32_t n = 1; n <= 64; n *= 2, s *= 1 + rnd_int(r, 0, 100) * 0.01)
        cost_set(&c, n, s);
    return c;
}

static double rate_of(const struct bid *bid, const int32_t *n, int32_t n_bid, int32_t n_row, double n_token,
                      const struct step_cost *cost)
{
    double prompts = cost_step(cost, n_row) - cost_step(cost, (int32_t)n_token);
    for (int32_t b = 0; b < n_bid; b++)
        for (int32_t i = 0; i < n[b]; i++) {
            n_token += bid[b].draft->chance[i];
            n_row++;
        }
    return n_token / (cost_step(cost, n_row) - prompts);
}

/* No other way to share out the rows promises more tokens a second. */
START_TEST(rows_go_where_they_are_worth_most)
{
    struct rnd r = rnd_begin("rows_go_where_they_are_worth_most", 32);
    struct draft draft[3];
    for (int round = 0; round < 200; round++) {
        struct step_cost cost = random_cost(&r);
        struct bid bid[3];
        int32_t budget = rnd_int(&r, 0, 12), used = 0, n_row = rnd_int(&r, 3, 20), got[3];
        for (int b = 0; b < 3; b++) {
            draft[b].n = rnd_int(&r, 0, 5);
            float chance = 1;
            for (int32_t i = 0; i < draft[b].n; i++)
                draft[b].chance[i] = chance *= (float)rnd_int(&r, 0, 100) * 0.01f;
            bid[b] = (struct bid){.draft = &draft[b], .max = draft[b].n};
        }
        draft_allot(bid, 3, budget, n_row, 3, &cost);
        for (int b = 0; b < 3; b++)
            used += got[b] = bid[b].n;
        ck_assert_int_le(used, budget);
        double best = rate_of(bid, got, 3, n_row, 3, &cost);
        for (int32_t i = 0; i <= draft[0].n; i++)
            for (int32_t j = 0; j <= draft[1].n; j++)
                for (int32_t k = 0; k <= draft[2].n; k++)
                    if (i + j + k <= budget)
                        ck_assert_double_ge(best + 12 * ALLOT_LEAST,
                                            rate_of(bid, (int32_t[]){i, j, k}, 3, n_row, 3, &cost));
    }
}
END_TEST

/* Where a row takes as long as a token is worth, none is bought; beside a prompt's rows, which take long anyhow,
 * neither. */
START_TEST(a_prompt_makes_no_draft_cheap)
{
    struct step_cost cost;
    struct draft draft = {.n = 4, .chance = {.5f, .25f, .12f, .06f}};
    cost_init(&cost);
    for (int32_t n = 1; n <= 64; n *= 2)
        cost_set(&cost, n, n);
    for (int32_t n_row = 1; n_row <= 64; n_row *= 4) {
        struct bid bid = {.draft = &draft, .max = draft.n};
        draft_allot(&bid, 1, 64, n_row, 1, &cost);
        ck_assert_int_eq(bid.n, 0);
    }
    for (int32_t i = 0; i < cost.n_point; i++) /* cheap rows are bought in both */
        cost.s[i] = 100 + i;
    for (int32_t n_row = 1; n_row <= 16; n_row *= 4) {
        struct bid bid = {.draft = &draft, .max = draft.n};
        draft_allot(&bid, 1, 64, n_row, 1, &cost);
        ck_assert_int_eq(bid.n, 4);
    }
}
END_TEST

START_TEST(the_cost_curve_follows_what_is_measured)
{
    struct step_cost c;
    cost_init(&c);
    cost_set(&c, 1, 1.0);
    cost_set(&c, 2, 0.9); /* noise: a curve never falls */
    cost_set(&c, 4, 2.0);
    ck_assert_double_eq(cost_step(&c, 2), cost_step(&c, 1));
    ck_assert_double_eq_tol(cost_step(&c, 3), 1.5, 1e-12);
    ck_assert_double_eq_tol(cost_step(&c, 8), 4.0, 1e-12);  /* beyond the last point it goes on as it went */
    ck_assert_int_eq(cost_rows_within(&c, 2, 2.5, 512), 3); /* 1, 1, 2 s for 1, 2, 4 rows, then .5 s a row */
    ck_assert_int_eq(cost_rows_within(&c, 2, 2.5, 1), 1);
    ck_assert_int_eq(cost_rows_within(&c, 4, 2, 512), 4);
    ck_assert_int_eq(cost_rows_efficient(&c, 1.05, 512), 2);
    ck_assert_int_eq(cost_rows_efficient(&c, 3, 512), 1);
    for (int i = 0; i < 400; i++) { /* in truth 4 rows cost five times one */
        cost_observe(&c, 1, 3.0);
        cost_observe(&c, 4, 15.0);
    }
    ck_assert_double_eq_tol(cost_step(&c, 4) / cost_step(&c, 1), 5, 0.2);
    ck_assert_double_eq_tol(cost_step(&c, 1), 3, 0.6);
}
END_TEST

/* A step of four rows in every hundred, of which a start-up on a busy machine said four times too much, or too little:
 * that is put right within a dozen of them, and the level is not misled. */
START_TEST(what_is_seen_seldom_is_news_about_the_shape)
{
    for (double wrong = .25; wrong <= 4; wrong *= 16) {
        struct step_cost c;
        cost_init(&c);
        cost_set(&c, 1, 1);
        cost_set(&c, 4, 2);
        cost_set(&c, 16, 20);
        c.s[1] *= wrong;
        for (int i = 0; i < 1200; i++) {
            cost_observe(&c, i % 100 == 99 ? 4 : 1, i % 100 == 99 ? 2 : 1);
            ck_assert_double_eq_tol(cost_step(&c, 1), 1, .1);
        }
        ck_assert_double_eq_tol(cost_step(&c, 4), 2, .2);
    }
}
END_TEST

/* Noise upwards, as machines make it: sizes never seen keep their place beside those that are, and a size that misled
 * once and was not seen since comes back to where it was timed. */
START_TEST(what_is_never_seen_does_not_drift)
{
    struct rnd r = rnd_begin("what_is_never_seen_does_not_drift", 33);
    struct step_cost c;
    cost_init(&c);
    for (int32_t n = 1; n <= 32; n *= 2)
        cost_set(&c, n, n);
    for (int i = 0; i < 100000; i++) {
        int32_t n = i % 97 ? 1 : 4, outlier = rnd_int(&r, 0, 20) ? 1 : 8;
        cost_observe(&c, n, n * outlier * (1 + rnd_int(&r, 0, 50) * .01));
    }
    double one = cost_step(&c, 1);
    ck_assert_double_eq_tol(cost_step(&c, 32) / one, 32, 8);
    for (int i = 0; i < 20; i++)
        cost_observe(&c, 16, 200);
    ck_assert_double_gt(cost_step(&c, 16) / cost_step(&c, 1), 30);
    for (int i = 0; i < 5000; i++)
        cost_observe(&c, 1, 1);
    ck_assert_double_eq_tol(cost_step(&c, 16), 16, 1);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("allot");
    tcase_add_test(tc, rows_go_where_they_are_worth_most);
    tcase_add_test(tc, a_prompt_makes_no_draft_cheap);
    tcase_add_test(tc, the_cost_curve_follows_what_is_measured);
    tcase_add_test(tc, what_is_seen_seldom_is_news_about_the_shape);
    tcase_add_test(tc, what_is_never_seen_does_not_drift);
    return suite_run(tc);
}
