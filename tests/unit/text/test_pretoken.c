/* engine/text/pretoken.c: the same cuts as Hugging Face's tokenizers, and none that takes quadratic time. */
#include <check.h>

#include "../suite.h"
#include "text/tok_impl.h"
#include "tok_help.h"

START_TEST(test_golden_cuts)
{
    FILE *f = fopen(GALLEY_SOURCE_ROOT "/tests/golden/pretoken.txt", "r");
    ck_assert_ptr_nonnull(f);
    char line[8192], name[64] = "", last[64] = "";
    struct pretoken p = {0};
    struct pretoken_scratch s = {0};
    int n_case = 0;
    while (fgets(line, sizeof line, f)) {
        char text[2048], *hex = strchr(line, ' ');
        snprintf(name, sizeof name, "%.*s", (int)(hex - line), line);
        if (strcmp(name, last)) {
            struct err e;
            pretoken_scratch_free(&s);
            pretoken_free(&p);
            ck_assert_msg(pretoken_init(&p, &(struct tok_config){.pre = name}, &e) == 0, "%s", e.msg);
            ck_assert_int_eq(pretoken_scratch_init(&s, &p), 0);
            strcpy(last, name);
        }
        size_t n = unhex(hex + 1, text), at = 0;
        char *want = strchr(hex + 1, ' ');
        while (at < n) {
            ck_assert_msg(want && *want == ' ', "more pieces than wanted: %s", line);
            size_t end = strtoul(want, &want, 10);
            at = pretoken_next(&p, 0, &s, text, n, at);
            ck_assert_msg(at == end, "piece ends at %zu, want %zu: %s", at, end, line);
        }
        ck_assert_msg(*want == '\n', "fewer pieces than wanted: %s", line);
        n_case++;
    }
    pretoken_scratch_free(&s);
    pretoken_free(&p);
    fclose(f);
    ck_assert_int_ge(n_case, 600);
}
END_TEST

/* Megabytes that could make an expression backtrack: every step must advance, and the whole must end soon. */
START_TEST(test_long_runs)
{
    static const char *const run[] = {"a", " ",  "\n",     " \n",    "  x",    "!",      "7",
                                      "'", "'s", "\u00a0", "\u00e9", "\u4f60", "a\u0301"};
    static const char *const name[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
    enum { N = 1 << 20 };
    char *text = malloc(N + 8);
    for (int k = 0; k < 4; k++) {
        struct pretoken p;
        struct pretoken_scratch s;
        struct err e;
        ck_assert_int_eq(pretoken_init(&p, &(struct tok_config){.pre = name[k]}, &e), 0);
        ck_assert_int_eq(pretoken_scratch_init(&s, &p), 0);
        for (size_t r = 0; r < sizeof run / sizeof *run; r++) {
            size_t n = 0, at = 0;
            while (n + strlen(run[r]) <= N) {
                memcpy(text + n, run[r], strlen(run[r]));
                n += strlen(run[r]);
            }
            for (size_t end; at < n; at = end) {
                end = pretoken_next(&p, 0, &s, text, n, at);
                if (end <= at || end > n)
                    break;
            }
            ck_assert_msg(at == n, "%s stops in a run of '%s' at %zu", name[k], run[r], at);
        }
        pretoken_scratch_free(&s);
        pretoken_free(&p);
    }
    free(text);
}
END_TEST

START_TEST(test_without_jit)
{
    struct pretoken p;
    struct pretoken_scratch s;
    struct err e;
    char *text = malloc(1 << 20);
    memset(text, ' ', 1 << 20);
    ck_assert_int_eq(pretoken_init(&p, &(struct tok_config){.pre = "llama-bpe"}, &e), 0);
    p.has_jit = false;
    ck_assert_int_eq(pretoken_scratch_init(&s, &p), 0);
    ck_assert_uint_eq(pretoken_next(&p, 0, &s, "Hello world", 11, 0), 5);
    ck_assert_uint_eq(pretoken_next(&p, 0, &s, text, 1 << 20, 0), 1 << 20);
    memset(text, 'a', 1 << 20);
    ck_assert_uint_eq(pretoken_next(&p, 0, &s, text, 1 << 20, 0), 1 << 20);
    pretoken_scratch_free(&s);
    pretoken_free(&p);
    free(text);
}
END_TEST

START_TEST(test_unknown_name)
{
    struct pretoken p;
    struct err e;
    ck_assert_int_eq(pretoken_init(&p, &(struct tok_config){.pre = "no-such-pre"}, &e), -ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "no-such-pre"));
    pretoken_free(&p);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("pretoken");
    tcase_add_test(tc, test_golden_cuts);
    tcase_add_test(tc, test_long_runs);
    tcase_add_test(tc, test_without_jit);
    tcase_add_test(tc, test_unknown_name);
    return suite_run(tc);
}
