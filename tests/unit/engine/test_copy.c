/* Drafts copied from the text: the index against a search everywhere, and what is proposed. */
#include <check.h>

#include "draft/draft.h"
#include "random_plan.h"
#include "../suite.h"

static struct history_text text_from(const int32_t *tok, int32_t n, int32_t cut1, int32_t cut2)
{
    return (struct history_text){
        .part = {tok, tok + cut1, tok + cut2}, .n_part = {cut1, cut2 - cut1, n - cut2}, .n = n};
}

/* The longest earlier occurrence of the end, the most recent of equals, by looking everywhere. */
static struct history_match look_everywhere(const int32_t *tok, int32_t n, int32_t min_match)
{
    struct history_match best = {0};
    for (int32_t at = n - 1; at >= min_match; at--) {
        int32_t len = 0;
        while (len < HISTORY_MAX_MATCH && len < at && tok[at - 1 - len] == tok[n - 1 - len])
            len++;
        if (len >= min_match && len > best.len)
            best = (struct history_match){.at = at, .len = len};
    }
    return best;
}

START_TEST(finds_the_longest_and_most_recent)
{
    struct rnd r = rnd_begin("finds_the_longest_and_most_recent", 31);
    int32_t tok[HISTORY_MAX_CHAIN];
    for (int round = 0; round < 300; round++) {
        int32_t n = rnd_int(&r, 1, HISTORY_MAX_CHAIN), alphabet = rnd_int(&r, 1, 6), min_match = rnd_int(&r, 1, 5);
        int32_t cut1 = rnd_int(&r, 0, n), cut2 = rnd_int(&r, cut1, n);
        struct history h;
        void *mem = malloc(history_bytes(n));
        history_begin(&h, mem, n, min_match);
        for (int32_t i = 0; i < n; i++)
            tok[i] = rnd_int(&r, 1, alphabet);
        for (int32_t len = cut2; len <= n; len += rnd_int(&r, 1, 3)) { /* the text grows at its end */
            struct history_text t = text_from(tok, len, cut1, cut2);
            struct history_match got = history_find(&h, &t), want = look_everywhere(tok, len, min_match);
            ck_assert_int_eq(got.len, want.len);
            ck_assert_int_eq(got.at, want.at);
        }
        free(mem);
    }
}
END_TEST

/* autoregressive.md, section 1, test 2: after A B C D E F | A B C comes D E F A B C, and there history ends. */
START_TEST(the_papers_example)
{
    const int32_t tok[] = {1, 2, 3, 4, 5, 6, 1, 2, 3}, want[] = {4, 5, 6, 1, 2, 3};
    struct copy_drafter c;
    struct accept_rates all = {0};
    struct draft d = {0};
    void *mem = malloc(copy_bytes(9));
    copy_init(&c, mem, 9, 3, false);
    struct history_text t = text_from(tok, 9, 0, 6), two = text_from(tok, 2, 0, 2);
    copy_propose(&c, &all, &t, &d);
    ck_assert_int_eq(d.n, 6);
    ck_assert_mem_eq(d.tok, want, sizeof want);
    copy_init(&c, mem, 9, 3, false); /* too short for a match: no draft */
    d = (struct draft){0};
    copy_propose(&c, &all, &two, &d);
    ck_assert_int_eq(d.n, 0);
    free(mem);
}
END_TEST

/* What stands twice at the end, one token or several, is copied on past the end of the text. */
START_TEST(a_loop_is_copied_on)
{
    enum { PERIODS = 5, N = 3 + 2 * PERIODS };
    for (int32_t period = 1; period <= PERIODS; period++) {
        int32_t tok[N] = {91, 92, 93}, n = 3 + 2 * period + (period < 3 ? 2 : 0); /* three tokens agree at least */
        for (int32_t i = 3; i < n; i++)
            tok[i] = (i - 3) % period;
        struct copy_drafter c;
        struct accept_rates all = {0};
        struct draft d = {0};
        void *mem = malloc(copy_bytes(N));
        copy_init(&c, mem, N, 3, false);
        struct history_text t = text_from(tok, n, 0, 3);
        copy_propose(&c, &all, &t, &d);
        ck_assert_int_eq(d.n, DRAFT_MAX);
        for (int32_t i = 0; i < d.n; i++)
            ck_assert_int_eq(d.tok[i], (n - 3 + i) % period);
        free(mem);
    }
}
END_TEST

/* The prediction says 1..40; the answer exchanges, drops and inserts tokens. Copying must find its place again at once.
 */
START_TEST(an_edited_prediction_is_followed)
{
    enum { N = 40 };
    int32_t predicted[N], prompt[] = {900, 901}, out[N + 1], n_out = 0, n_right = 0, n_edits = 0;
    for (int i = 0; i < N; i++)
        predicted[i] = 100 + i;
    for (int i = 0; i < N; i++) {
        bool swap = i == 9, drop = i == 18, insert = i == 27;
        n_edits += swap || drop || insert;
        if (insert)
            out[n_out++] = 777;
        if (!drop)
            out[n_out++] = swap ? 888 : predicted[i];
    }
    struct copy_drafter c;
    struct accept_rates all = {0};
    struct draft d = {0};
    void *mem = malloc(copy_bytes(N + 2 + N + 1));
    copy_init(&c, mem, N + 2 + N + 1, 3, true);
    for (int32_t i = 0; i < n_out; i++) {
        struct history_text t = {.part = {predicted, prompt, out}, .n_part = {N, 2, i}, .n = N + 2 + i};
        copy_propose(&c, &all, &t, &d);
        n_right += d.n > 0 && d.tok[0] == out[i];
    }
    ck_assert_int_ge(n_right, n_out - 2 * n_edits);
    free(mem);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("copy");
    tcase_add_test(tc, finds_the_longest_and_most_recent);
    tcase_add_test(tc, the_papers_example);
    tcase_add_test(tc, a_loop_is_copied_on);
    tcase_add_test(tc, an_edited_prediction_is_followed);
    return suite_run(tc);
}
