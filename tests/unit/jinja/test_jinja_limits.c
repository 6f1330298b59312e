/* Hostile templates and inputs end in a clear error; failing allocations too; many threads share a template. */
#include <pthread.h>

#include "jinja_help.h"

static void too_much(const char *src, const char *vars, const char *part)
{
    jinja_expect_err(src, vars, NULL, ERR_TOOLONG, part);
}

START_TEST(test_limits)
{
    too_much("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", NULL, "too much work");
    too_much("{{ range(100001) }}", NULL, "Range too big");
    too_much("{{ range(-9223372036854775807, 9223372036854775807) }}", NULL, "Range too big");
    too_much("{{ 'x' * 1000000000 }}", NULL, "too much memory");
    too_much("{{ [0] * 9223372036854775807 }}", NULL, "too much memory");
    too_much("{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", NULL,
             "too much memory");
    too_much("{% for i in range(100) %}{{ 'x' * 1000000 }}{% endfor %}", NULL, "writes too much");
    too_much("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", NULL, "nested too deeply");
    too_much("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", NULL, "nested too deeply");
    too_much("{{ 'a'.ljust(4000000000) }}", NULL, "too much memory");
    too_much("{{ '%999999999d' % 1 }}", NULL, "too much memory");
    too_much("{{ '{:>999999999}'.format(1) }}", NULL, "too much memory");
    too_much("{{ '{:0999999999,}'.format(1) }}", NULL, "too much");
    too_much("{% set s = 'ab' * 500000 %}{% for i in range(100000) %}{{ s.rfind('aa') }}{% endfor %}", NULL,
             "too much work");
    too_much("{% set s = 'a' * 500000 %}{{ s.rfind('ab' ~ s) }}{% for i in range(9999) %}{{ s.isalpha() }}{% endfor %}",
             NULL, "too much work");
    too_much("{{ [1, 2]|batch(1000000000, 0)|list }}", NULL, "too much");
    too_much("{{ 10000000000|string|center(1000000000) }}", NULL, "too much memory");
    too_much("{% set x = {} %}{% for i in range(5) %}{% set x = [x, x] %}{% endfor %}{% set ns = namespace(x=1) %}"
             "{% for i in range(2000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
             NULL, "nested too deeply");
}
END_TEST

START_TEST(test_own_limits)
{
    struct render_opts opts = {.limits = {.steps = 1000}};
    jinja_expect_err("{% for i in range(1000) %}{{ i }}{% endfor %}", NULL, &opts, ERR_TOOLONG, "1000 steps");
    opts = (struct render_opts){.limits = {.output_bytes = 10}};
    jinja_expect_err("12345678901", NULL, &opts, ERR_TOOLONG, "10 bytes");
    opts = (struct render_opts){.limits = {.range_items = 3}};
    jinja_expect_err("{{ range(4) }}", NULL, &opts, ERR_TOOLONG, "(3)");
    opts = (struct render_opts){.limits = {.depth = 20}};
    jinja_expect_err("{{ x }}", "{\"x\": [[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]}", &opts, ERR_TOOLONG,
                     "20 levels");
    opts = (struct render_opts){.limits = {.memory_bytes = 4096}};
    jinja_expect_err("{% for i in range(1000) %}{{ i ~ 'x' }}{% endfor %}", NULL, &opts, ERR_TOOLONG, "4096 bytes");
}
END_TEST

/* A source with something nested n deep. */
static void deep(const char *before, const char *open, const char *middle, const char *close, const char *after, int n)
{
    size_t size = strlen(before) + strlen(after) + strlen(middle) + (strlen(open) + strlen(close)) * (size_t)n + 1;
    char *src = mem_alloc(size);
    strcpy(src, before);
    char *p = src + strlen(src);
    for (int i = 0; i < n; i++, p += strlen(open))
        strcpy(p, open);
    strcpy(p, middle);
    p += strlen(middle);
    for (int i = 0; i < n; i++, p += strlen(close))
        strcpy(p, close);
    strcpy(p, after);
    jinja_expect_err(src, NULL, NULL, ERR_FORMAT, "nested too deeply");
    mem_free(src);
}

START_TEST(test_depth_of_source)
{
    deep("{{ ", "(", "1", ")", " }}", 100000);
    deep("{{ ", "[", "1", "]", " }}", 200);
    deep("{{ ", "-", "1", "", " }}", 100000);
    deep("{{ ", "not ", "1", "", " }}", 100000);
    deep("{{ 1", " + 1", "", "", " }}", 100000);
    deep("{{ 1", "|int", "", "", " }}", 100000);
    deep("{{ x", ".y", "", "", " }}", 100000);
    deep("{{ x", "()", "", "", " }}", 100000);
    deep("{{ ", "1 if 1 else ", "1", "", " }}", 100000);
    deep("", "{% if 1 %}", "x", "{% endif %}", "", 10000);
    deep("", "{% for x in y %}", "x", "{% endfor %}", "", 10000);
}
END_TEST

/* Every allocation fails once: the error is reported and nothing leaks (the sanitizer build checks that). */
START_TEST(test_failing_allocations)
{
    static const char src[] = "{% macro m(a) %}{{ a|upper }}{% endmacro %}{% for i in range(3) %}{{ m('x' * 40000) }}"
                              "{{ {'a': [1, 2.5, i]}|tojson }}{% endfor %}";
    json_t *vars = json_pack("{s:[s,s]}", "messages", "a", "b");
    int n_failed = 0;
    for (long nth = 1;; nth++) {
        struct err e = {0};
        char *out;
        size_t n;
        mem_fail_nth(nth);
        int rc = jinja_render(src, vars, NULL, &out, &n, &e);
        mem_fail_nth(0);
        if (rc == 0) {
            mem_free(out);
            break;
        }
        ck_assert_int_eq(rc, -ERR_NOMEM);
        n_failed++;
    }
    ck_assert_int_ge(n_failed, 3);
    json_decref(vars);
}
END_TEST

static const char shared_src[] =
    "{% for m in messages %}{{ m.role|title }}: {{ m.content|trim ~ 'é'[0] }}{{ loop.last }}"
    "{% endfor %}{{ nothing }}{{ 'abc'|length }}";

static void *render_often(void *arg)
{
    json_t *vars = json_loads("{\"messages\": [{\"role\": \"user\", \"content\": \" hi \"}]}", 0, NULL);
    for (int i = 0; i < 2000; i++) {
        char *out;
        size_t n;
        ck_assert_int_eq(chat_template_render(arg, vars, NULL, &out, &n, NULL), 0);
        ck_assert_str_eq(out, "User: hiéTrue3");
        mem_free(out);
    }
    json_decref(vars);
    return NULL;
}

START_TEST(test_threads)
{
    struct chat_template *t;
    pthread_t thread[4];
    ck_assert_int_eq(chat_template_compile(shared_src, strlen(shared_src), &t, NULL), 0);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, render_often, t), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    chat_template_free(t);
    chat_template_free(NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("jinja limits");
    TCase *tc = tcase_create("limits");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_limits);
    tcase_add_test(tc, test_own_limits);
    tcase_add_test(tc, test_depth_of_source);
    tcase_add_test(tc, test_failing_allocations);
    tcase_add_test(tc, test_threads);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int n_failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return n_failed != 0;
}
