/* engine/text/detok.c: whole characters only, and Python's replacement of what is not UTF-8, however the bytes arrive.
 */
#include <check.h>

#include "../suite.h"
#include "text/utf8.h"
#include "tok_help.h"

/* Tokens of several bytes that begin and end within characters. */
static const char *const merges[] = {"\u00c3 \u00a9", "\u00e4 \u00bd", "\u00bd \u0142",
                                     "\u00f0 \u0141", "a \u00c3",      "a b"};
enum { N_MERGE = sizeof merges / sizeof *merges };

static struct tokenizer *tiny(void)
{
    struct tokenizer *t;
    struct err e;
    ck_assert_msg(tok_new_tiny(&t, "gpt-2", merges, N_MERGE, &e) == 0, "%s", e.msg);
    return t;
}

static size_t push(struct detok *d, int32_t id, char *out)
{
    size_t n = detok_push(d, id, out);
    ck_assert_uint_le(n, detok_bound(d->tok));
    ck_assert(utf8_valid(out, n));
    return n;
}

START_TEST(test_golden_replacement)
{
    struct tokenizer *t = tiny();
    FILE *f = fopen(GALLEY_SOURCE_ROOT "/tests/golden/replace.txt", "r");
    ck_assert_ptr_nonnull(f);
    char line[2048];
    int n_case = 0;
    while (fgets(line, sizeof line, f)) {
        char in[512], want[512], got[600];
        size_t n_in = unhex(line, in), n_want = unhex(strchr(line, ' ') + 1, want), n = 0, n_id;
        struct detok d;
        detok_init(&d, t, false);
        for (size_t i = 0; i < n_in; i++)
            n += push(&d, (uint8_t)in[i], got + n);
        n += detok_flush(&d, got + n);
        ck_assert_msg(n == n_want && !memcmp(got, want, n), "byte by byte: %s", line);

        int32_t *id = encode(t, (struct slice){in, n_in}, 0, &n_id); /* the same through longer tokens */
        n = 0;
        for (size_t i = 0; i < n_id; i++)
            n += push(&d, id[i], got + n);
        n += detok_flush(&d, got + n);
        ck_assert_msg(n == n_want && !memcmp(got, want, n), "as tokens: %s", line);
        free(id);
        n_case++;
    }
    fclose(f);
    ck_assert_int_ge(n_case, 200);
    tok_free(t);
}
END_TEST

START_TEST(test_holds_back_unfinished_characters)
{
    struct tokenizer *t = tiny();
    struct detok d, fork;
    char out[256];
    detok_init(&d, t, true);
    ck_assert_uint_eq(push(&d, 0xf0, out), 0);
    ck_assert_uint_eq(push(&d, 0x9f, out), 0);
    ck_assert_uint_eq(push(&d, TOK_TINY_IM_END, out), 0); /* skipped, and not in the way */
    ck_assert_uint_eq(push(&d, 0x99, out), 0);
    fork = d;
    ck_assert_uint_eq(push(&d, 0x82, out), 4);
    ck_assert_mem_eq(out, "\U0001f642", 4);
    ck_assert_uint_eq(push(&fork, 'x', out), 4);
    ck_assert_mem_eq(out, "\ufffdx", 4);
    ck_assert_uint_eq(detok_flush(&d, out), 0);
    ck_assert_uint_eq(push(&d, -1, out), 0);
    ck_assert_uint_eq(push(&d, 1 << 30, out), 0);
    tok_free(t);
}
END_TEST

START_TEST(test_control_tokens)
{
    struct tokenizer *t = tiny();
    struct detok d;
    char out[256];
    detok_init(&d, t, false);
    ck_assert_uint_eq(push(&d, TOK_TINY_IM_END, out), 10);
    ck_assert_mem_eq(out, "<|im_end|>", 10);
    detok_init(&d, t, true);
    ck_assert_uint_eq(push(&d, TOK_TINY_IM_END, out), 0);
    tok_free(t);
}
END_TEST

START_TEST(test_utf8_steps)
{
    size_t len;
    uint8_t buf[4];
    int n_bad = 0; /* an assertion each would take minutes */
    for (int32_t cp = 0; cp < 0x110000; cp++) {
        if (cp >= 0xd800 && cp < 0xe000)
            continue;
        int n = utf8_put(cp, buf);
        n_bad += utf8_next(buf, (size_t)n, &len) != cp || len != (size_t)n;
        for (int k = 1; k < n; k++)
            n_bad += utf8_next(buf, (size_t)k, &len) != UTF8_MORE || len != (size_t)k;
    }
    ck_assert_int_eq(n_bad, 0);
    ck_assert(utf8_next((const uint8_t *)"\xed\xa0\x80", 3, &len) == UTF8_BAD && len == 1);
    ck_assert(utf8_next((const uint8_t *)"\xe4\xbd", 2, &len) == UTF8_MORE && len == 2);
    ck_assert(utf8_next((const uint8_t *)"\xe4\xbdz", 3, &len) == UTF8_BAD && len == 2);
    ck_assert_uint_eq(utf8_valid_prefix("0123456789\xff", 11), 10);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("detok");
    tcase_add_test(tc, test_golden_replacement);
    tcase_add_test(tc, test_holds_back_unfinished_characters);
    tcase_add_test(tc, test_control_tokens);
    tcase_add_test(tc, test_utf8_steps);
    return suite_run(tc);
}
