/* What a source of drafts may lose. */
#include <check.h>

#include "draft/ledger.h"
#include "random_plan.h"
#include "../suite.h"

enum { N_STEP = 4000, SOURCE = 2 };

/* A source that costs more than it brings, by turns a little and a lot, and now and then brings something. In steps. */
static double some_loss(struct rnd *r)
{
    return rnd_int(r, 0, 100) * .01 - (rnd_int(r, 0, 3) ? 0 : rnd_int(r, 0, 100) * .01);
}

/* Steps lost before each of N_STEP, by one that asks whenever it may, or always. */
static void waste(struct rnd *r, bool minds, double *lost)
{
    struct draft_ledger l;
    ledger_open(&l);
    lost[0] = 0;
    for (int32_t i = 0; i < N_STEP; i++) {
        double loss = !minds || ledger_allows(&l, SOURCE) ? some_loss(r) : 0;
        ledger_book(&l, SOURCE, loss < 0 ? -loss : 0, loss > 0 ? loss : 0);
        ledger_step(&l, 1);
        lost[i + 1] = lost[i] + loss;
    }
}

/* The most that any stretch of steps lost beyond its share. */
static double excess(const double *lost)
{
    double worst = 0;
    for (int32_t i = 0; i < N_STEP; i++)
        for (int32_t j = i + 1; j <= N_STEP; j++) {
            double more = lost[j] - lost[i] - LEDGER_SHARE * (j - i);
            worst = more > worst ? more : worst;
        }
    return worst;
}

START_TEST(no_stretch_of_steps_loses_more_than_the_contract_says)
{
    struct rnd r = rnd_begin("no_stretch_of_steps_loses_more_than_the_contract_says", 71);
    static double lost[N_STEP + 1];
    waste(&r, true, lost);
    ck_assert_double_le(excess(lost), LEDGER_STEPS + 1);
    ck_assert_double_gt(lost[N_STEP], LEDGER_STEPS); /* all of it was used: a source is not given up for good */
    waste(&r, false, lost);
    ck_assert_double_gt(excess(lost), 10 * LEDGER_STEPS); /* one that minds no account */
}
END_TEST

START_TEST(what_pays_is_always_asked_and_what_does_not_is_refused)
{
    struct draft_ledger l;
    for (int pays = 0; pays < 2; pays++) {
        int32_t n_refused = 0;
        ledger_open(&l);
        for (int32_t i = 0; i < N_STEP; i++) {
            bool may = ledger_allows(&l, SOURCE);
            n_refused += !may;
            if (may)
                ledger_book(&l, SOURCE, pays ? 2.1 : 1.9, 2);
            ledger_step(&l, 1);
            ck_assert(ledger_allows(&l, SOURCE + 1)); /* another's account is its own */
        }
        ck_assert(pays ? n_refused == 0 : n_refused > N_STEP / 2);
    }
}
END_TEST

/* Others' steps are not to be lost. */
START_TEST(only_autos_share_of_a_step_counts)
{
    struct draft_ledger l;
    ledger_open(&l);
    ledger_step(&l, 0);
    ledger_book(&l, SOURCE, 0, LEDGER_STEPS + 1);
    for (int32_t i = 0; i < N_STEP; i++)
        ledger_step(&l, 0);
    ck_assert(!ledger_allows(&l, SOURCE));
    for (int32_t i = 0; i < N_STEP; i++)
        ledger_step(&l, 1);
    ck_assert(ledger_allows(&l, SOURCE));
}
END_TEST

/* What gained much does not get to lose much: from the last gain on it is refused as soon as one that never gained. */
START_TEST(gains_are_no_licence)
{
    struct draft_ledger l;
    int32_t n[2];
    for (int rich = 0; rich < 2; rich++) {
        ledger_open(&l);
        for (int32_t i = 0; i < N_STEP; i++) {
            ledger_book(&l, SOURCE, rich, 0);
            ledger_step(&l, 1);
        }
        for (n[rich] = 0; ledger_allows(&l, SOURCE); n[rich]++) {
            ledger_book(&l, SOURCE, 0, 1);
            ledger_step(&l, 1);
        }
    }
    ck_assert_int_eq(n[0], n[1]);
    ck_assert_int_le(n[1], LEDGER_STEPS + 2);
}
END_TEST

START_TEST(chances_passed_over_are_taken_in_the_end)
{
    struct draft_ledger l;
    ledger_open(&l);
    ledger_step(&l, 1);
    for (int32_t i = 0; i < LEDGER_TRY; i++, ledger_pass(&l, SOURCE))
        ck_assert(!ledger_tries(&l, SOURCE));
    ck_assert(ledger_tries(&l, SOURCE));
    ck_assert(!ledger_tries(&l, SOURCE + 1));
    ledger_ask(&l, SOURCE);
    ck_assert(!ledger_tries(&l, SOURCE));
    ledger_hit(&l, SOURCE); /* what was right is asked again at once */
    ck_assert(ledger_tries(&l, SOURCE));
    ledger_book(&l, SOURCE, 0, LEDGER_STEPS + 1);
    ck_assert(!ledger_tries(&l, SOURCE)); /* but not on credit that it has not */
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ledger");
    tcase_add_test(tc, no_stretch_of_steps_loses_more_than_the_contract_says);
    tcase_add_test(tc, what_pays_is_always_asked_and_what_does_not_is_refused);
    tcase_add_test(tc, only_autos_share_of_a_step_counts);
    tcase_add_test(tc, gains_are_no_licence);
    tcase_add_test(tc, chances_passed_over_are_taken_in_the_end);
    return suite_run(tc);
}
