#include <check.h>
#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "text_buf.h"
#include "../suite.h"

static struct text_buf b;

static const char *text(void)
{
    static char copy[4096];
    snprintf(copy, sizeof copy, "%.*s", (int)b.n, b.n ? b.p : "");
    tb_free(&b);
    return copy;
}

START_TEST(strings_are_escaped_and_repaired)
{
    tb_json(&b, "plain", 5);
    ck_assert_str_eq(text(), "\"plain\"");
    tb_json(&b, "a\"b\\c\n\t\x01\x7f", 9);
    ck_assert_str_eq(text(), "\"a\\\"b\\\\c\\n\\t\\u0001\\u007f\"");
    tb_json(&b, "R\xC3\xA4ksm\xF0\x9F\xA6\x8A", 10);
    ck_assert_str_eq(text(), "\"R\xC3\xA4ksm\xF0\x9F\xA6\x8A\"");
    static const char *const broken[] = {"\x80",        "\xC3", "\xC0\xAF", "\xED\xA0\x80", "\xF5\x80\x80\x80",
                                         "\xF0\x9F\xA6"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        tb_json(&b, broken[i], strlen(broken[i]));
        ck_assert_ptr_nonnull(strstr(text(), "\xEF\xBF\xBD"));
    }
    tb_json_str(&b, NULL);
    ck_assert_str_eq(text(), "null");
}
END_TEST

START_TEST(numbers_read_back_exactly)
{
    static const float f[] = {0, 1, -0.1f, 1e-30f, 3.4e38f, 0.333333343f, -12.3456789f, 16777216.f};
    for (size_t i = 0; i < sizeof f / sizeof *f; i++) {
        tb_float(&b, f[i]);
        ck_assert(strtof(text(), NULL) == f[i]);
    }
    static const double d[] = {0.1, 1e300, 1795441554, -2.5e-9, 1.0 / 3};
    for (size_t i = 0; i < sizeof d / sizeof *d; i++) {
        tb_double(&b, d[i]);
        ck_assert(strtod(text(), NULL) == d[i]);
    }
    tb_float(&b, 0.1f);
    ck_assert_str_eq(text(), "0.1"); /* the shortest, not 0.100000001 */
    tb_float(&b, -INFINITY);
    ck_assert_str_eq(text(), "-9999");
    tb_float(&b, NAN);
    ck_assert_str_eq(text(), "0");
}
END_TEST

START_TEST(out_of_memory_is_remembered)
{
    for (long nth = 1; nth < 6; nth++) {
        mem_fail_nth(nth);
        for (int i = 0; i < 2000; i++)
            tb_str(&b, "more");
        mem_fail_nth(0);
        ck_assert(b.failed);
        tb_free(&b);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("text_buf");
    tcase_add_test(tc, strings_are_escaped_and_repaired);
    tcase_add_test(tc, numbers_read_back_exactly);
    tcase_add_test(tc, out_of_memory_is_remembered);
    return suite_run(tc);
}
