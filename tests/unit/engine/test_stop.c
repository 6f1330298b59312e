#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "random_plan.h"
#include "text/stop.h"
#include "../suite.h"

static char held[1024], all[4096];

/* Feeds `text` in random pieces; returns the stop found or -1, what was let through in `all`. */
static int feed(const struct stop_set *set, const char *text, struct rnd *r, bool include)
{
    struct stop_scan s = {.held = held, .cap = stop_scan_cap(set, 64)};
    size_t n = strlen(text), at = 0, got = 0;
    int hit = -1;
    const char *out;
    int32_t n_out;
    while (at < n && hit < 0) {
        int32_t piece = rnd_int(r, 1, 5);
        piece = at + (size_t)piece > n ? (int32_t)(n - at) : piece;
        hit = stop_push(&s, set, text + at, piece, include, &out, &n_out);
        memcpy(all + got, out, (size_t)n_out);
        got += (size_t)n_out;
        at += (size_t)piece;
        for (int32_t i = 0; hit < 0 && i < set->n; i++) /* nothing that could be a stop's beginning went out */
            for (int32_t k = 1; k < set->len[i]; k++)
                if (got >= (size_t)k && at < n)
                    ck_assert(memcmp(all + got - k, set->text[i], (size_t)k) || s.n_held);
    }
    if (hit < 0) {
        stop_flush(&s, &out, &n_out);
        memcpy(all + got, out, (size_t)n_out);
        got += (size_t)n_out;
    }
    all[got] = 0;
    return hit;
}

START_TEST(text_ends_before_the_first_stop)
{
    static const char *const text[] = {"\nUser:", "END", "ENDING", "aab"};
    static const int32_t len[] = {6, 3, 6, 3};
    const struct stop_set set = {.text = text, .len = len, .n = 4, .max_len = 6};
    static const struct {
        const char *in, *out, *included;
        int hit;
    } row[] = {
        {"no stop at all", "no stop at all", "no stop at all", -1},
        {"hello\nUser: more", "hello", "hello\nUser:", 0},
        {"hello\nUse the END now", "hello\nUse the ", "hello\nUse the END", 1},
        {"aaaaab", "aaa", "aaaaab", 3},
        {"ends in a prefix \nUse", "ends in a prefix \nUse", "ends in a prefix \nUse", -1},
        {"ENEND", "EN", "ENEND", 1},
    };
    struct rnd r = rnd_begin("text_ends_before_the_first_stop", 9);
    for (int round = 0; round < 200; round++)
        for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
            ck_assert_int_eq(feed(&set, row[i].in, &r, false), row[i].hit);
            ck_assert_str_eq(all, row[i].out);
            ck_assert_int_eq(feed(&set, row[i].in, &r, true), row[i].hit);
            ck_assert_str_eq(all, row[i].included);
        }
}
END_TEST

START_TEST(without_stops_text_passes_untouched)
{
    const struct stop_set none = {0};
    struct stop_scan s = {0};
    const char *in = "abc", *out;
    int32_t n;
    ck_assert_int_eq(stop_push(&s, &none, in, 3, false, &out, &n), -1);
    ck_assert_ptr_eq(out, in);
    ck_assert_int_eq(n, 3);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("stop");
    tcase_add_test(tc, text_ends_before_the_first_stop);
    tcase_add_test(tc, without_stops_text_passes_untouched);
    return suite_run(tc);
}
