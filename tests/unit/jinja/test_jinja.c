/* The template language, feature by feature. What Python's jinja2 says is in tests/golden/templates as well; here each
 * line can be read. */
#include "jinja_help.h"

struct row {
    const char *src, *want;
};

static void expect_all(const struct row *row, size_t n, const char *vars)
{
    for (size_t i = 0; i < n; i++)
        jinja_expect(row[i].src, vars, row[i].want);
}

#define EXPECT_ALL(rows, vars) expect_all(rows, sizeof rows / sizeof *rows, vars)

START_TEST(test_values)
{
    static const struct row rows[] = {
        {"{{ none }} {{ true }} {{ False }}", "None True False"},
        {"{{ 1.0 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e-5 }} {{ 123456789012345680.0 }}",
         "1.0 0.30000000000000004 1e+16 1e-05 1.2345678901234568e+17"},
        {"{{ 2 ** -44 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }} {{ 1e22 }} {{ 9007199254740993.0 }}",
         "5.684341886080802e-14 5e-324 1.7976931348623157e+308 1e+22 9007199254740992.0"},
        {"{{ [1, 'a', none, 2.5, (1,), {'k': \"it's\"}] }}", "[1, 'a', None, 2.5, (1,), {'k': \"it's\"}]"},
        {"{{ 'a\\n\\t\\'\\x00é\\u200b' | list | last }}{{ ['\\x7f\\u200b\\n'] }}", "\u200b['\\x7f\\u200b\\n']"},
        {"{{ 0x1f }} {{ 0b101 }} {{ 0o17 }} {{ 1_000 }}", "31 5 15 1000"},
        {"{{ nothing }}|{{ nothing is defined }}|{{ nothing|default('d') }}", "|False|d"},
        {"{{ 'It' \"'s\" }}", "It's"},
        {"{{ {'a': 1}.items() }} {{ {'a': 1}.keys() }}", "dict_items([('a', 1)]) dict_keys(['a'])"},
        {"{{ range(3) }} {{ range(1, 9, 3)|list }} {{ range(5)[1:3] }}", "range(0, 3) [1, 4, 7] range(1, 3)"},
    };
    EXPECT_ALL(rows, NULL);
}
END_TEST

START_TEST(test_operators)
{
    static const struct row rows[] = {
        {"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}", "3 -4 2 3.5 3.0 0.5"},
        {"{{ 2 ** 3 ** 2 }} {{ 2 ** -1 }} {{ -2 ** 2 }}", "64 0.5 4"},
        {"{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 == true }}", "True False True"},
        {"{{ 'a' in 'cat' }} {{ 2 not in [1] }} {{ 'k' in {'k': 1} }}", "True True True"},
        {"{{ 'a' ~ 1 ~ none }} {{ 'ab' * 3 }} {{ [1] + [2] }}", "a1None ababab [1, 2]"},
        {"{{ not 1 }} {{ 0 or 'x' }} {{ '' and 1 }} {{ 1 if 0 else 2 }} [{{ 1 if 0 }}]", "False x  2 []"},
        {"{{ '%s-%05.1f-%d%%' % ('a', 2.25, 3) }} {{ '%(k)s' % {'k': 1} }}", "a-002.2-3% 1"},
        {"{{ 'abcdef'[1:-1:2] }} {{ 'abc'[::-1] }} {{ [1, 2, 3][-2:] }} {{ 'é漢🙂'[1] }} {{ 'é漢🙂'|length }}",
         "bd cba [2, 3] 漢 3"},
        {"{{ [3, 1] < [3, 2] }} {{ 'a' < 'b' }} {{ (1, 2) == (1, 2) }} {{ [1] == (1,) }}", "True True True False"},
    };
    EXPECT_ALL(rows, NULL);
}
END_TEST

START_TEST(test_lookup)
{
    static const struct row rows[] = {
        {"{{ m.role }} {{ m['role'] }} {{ m.n.o }} {{ m.nope is defined }}", "user user 1 False"},
        {"{{ m.items is callable }} {{ m['items'] }} {{ m.get('zz', 3) }}", "True own 3"},
        {"{{ l.0 }} {{ l[-1] }} {{ l[9] is undefined }}", "1 3 True"},
        {"{% for k, v in m.items() %}{{ k }};{% endfor %}", "role;items;n;"},
        {"{{ l.append is undefined }} {{ m.update is undefined }}", "True True"},
    };
    EXPECT_ALL(rows, "{\"m\": {\"role\": \"user\", \"items\": \"own\", \"n\": {\"o\": 1}}, \"l\": [1, 2, 3]}");
}
END_TEST

START_TEST(test_whitespace)
{
    static const struct row rows[] = {
        {"a\n  {% if true %}\n b\n  {% endif %}\nc\n", "a\n b\nc"},
        {"a  {%- if true -%}  b  {%- endif %}", "ab"},
        {"a\n  {%+ if true %}b{% endif +%}\n c", "a\n  b\n c"},
        {"a {# x #}\nb {#- y -#} c", "a b"
                                     "c"},
        {"{% raw %}{{ x }}{% endraw %}|{%- raw -%} {% y %} {%- endraw -%} z", "{{ x }}|{% y %}z"},
        {"  {{ 1 }}  \n", "  1  "},
        {"a\r\nb\rc\n\n", "a\nb\nc\n"},
        {"{{ {'a': {'b': 1}}['a'] }}", "{'b': 1}"},
    };
    EXPECT_ALL(rows, NULL);
}
END_TEST

START_TEST(test_loops)
{
    static const struct row rows[] = {
        {"{% for i in [5, 6] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}"
         "{{ loop.last }}{{ loop.length }};{% endfor %}",
         "1021TrueFalse2;2110FalseTrue2;"},
        {"{% for i in [] %}x{% else %}none{% endfor %}", "none"},
        {"{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123"},
        {"{% for i in range(6) if i is odd %}{{ i }}{{ loop.last }} {% endfor %}", "1False 3False 5True "},
        {"{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor "
         "%}",
         "02"},
        {"{% for i in 'abc' %}{{ loop.previtem }}{{ i }}{{ loop.nextitem }}{{ loop.cycle(1, 2) }} {% endfor %}",
         "ab1 abc2 bc1 "},
        {"{% for i in [1, 1, 2] %}{{ loop.changed(i) }} {% endfor %}", "True False True "},
        {"{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{{ loop.depth }} {% endfor %}",
         "11 22 33 2 1 "},
        {"{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}", "12 13 1"},
        {"{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"},
    };
    EXPECT_ALL(rows, NULL);
}
END_TEST

START_TEST(test_macros)
{
    static const struct row rows[] = {
        {"{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, b=3) }} {{ m() }}", "12 13 2"},
        {"{% macro m() %}<{{ caller(1) }}>{% endmacro %}{% call(x) m() %}in{{ x }}{% endcall %}", "<in1>"},
        {"{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, k=2) }}", "(1,){'k': 2}"},
        {"{% macro f(n) %}{{ n if n < 2 else f(n - 1) ~ n }}{% endmacro %}{{ f(4) }}", "1234"},
        {"{% set x %}a{{ 1 }}{% endset %}[{{ x }}] {% set y | upper %}b{% endset %}{{ y }}", "[a1] B"},
        {"{% filter upper | replace('B', 'x') %}abc{% endfilter %}", "AxC"},
        {"{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "12"},
        {"{% set a, b = [1, 2] %}{{ b }}{{ a }}", "21"},
        {"{% generation %}said{% endgeneration %}", "said"},
        {"{% print 1, 'a' %}", "1a"},
        {"{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}", "12"},
    };
    EXPECT_ALL(rows, NULL);
}
END_TEST

START_TEST(test_strings)
{
    static const struct row rows[] = {
        {"{{ ' a '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a b  c'.split() }}|{{ 'a,b,c'.split(',', 1) }}",
         "a|a|['a', 'b', 'c']|['a', 'b,c']"},
        {"{{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'aXbX'.rsplit('X', 1) }}", "['a', 'b', 'c'] ['aXb', '']"},
        {"{{ 'straße'.upper() }} {{ 'ΑΣ'.lower() }} {{ 'ǆ'.title() }} {{ 'they\\'re'.title() }}",
         "STRASSE ας ǅ They'Re"},
        {"{{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.find('c') }} {{ 'aaa'.replace('a', 'b', 2) }}", "True 2 bba"},
        {"{{ 'é漢x'.find('x') }} {{ 'x'.center(5, '*') }} {{ '-7'.zfill(4) }}", "2 **x** -007"},
        {"{{ '{:>5}|{n:,}|{m!r}'.format('a', n=1234567, m='q') }}", "    a|1,234,567|'q'"},
        {"{{ '{:.2f} {:05d} {:x} {:%}'.format(2.345, 42, 255, 0.5) }}", "2.35 00042 ff 50.000000%"},
        {"{{ ', '.join(['a', 'b']) }} {{ 'abc'.removeprefix('a') }} {{ 'a=b=c'.partition('=') }}",
         "a, b bc ('a', '=', 'b=c')"},
        {"{{ '12'.isdigit() }} {{ 'aB'.isalpha() }} {{ ''.isspace() }} {{ 'Ab'.swapcase() }}", "True True False aB"},
    };
    EXPECT_ALL(rows, NULL);
}
END_TEST

START_TEST(test_filters)
{
    static const struct row rows[] = {
        {"{{ [3, 1, 2]|sort }} {{ ['b', 'A']|sort }} {{ [1, 2, 1]|unique|list }} {{ [1, 2]|sum }}",
         "[1, 2, 3] ['A', 'b'] [1, 2] 3"},
        {"{{ rows|map(attribute='n')|join(',') }} {{ rows|selectattr('a', 'gt', 1)|map(attribute='n')|list }}",
         "x,y ['y']"},
        {"{{ rows|sort(attribute='a', reverse=true)|map(attribute='n')|first }} {{ rows|groupby('a')|length }}", "y 2"},
        {"{{ [1, 2, 3]|batch(2, 0)|list }} {{ [1, 2, 3]|slice(2)|list }}", "[[1, 2], [3, 0]] [[1, 2], [3]]"},
        {"{{ '42.9'|int }} {{ 'x'|int(7) }} {{ '1e3'|float }} {{ 2.675|round(2) }} {{ 7|round(-1) }} {{ 2.5|round }}",
         "42 7 1000.0 2.67 10 2.0"},
        {"{{ {'b': 1, 'A': 2}|dictsort }} {{ {'a': 1}|items|list }}", "[('A', 2), ('b', 1)] [('a', 1)]"},
        {"{{ 'a\\nb'|indent(2) }} {{ 'hello world'|truncate(6, true) }} {{ 'a b-c'|wordcount }}",
         "a\n  b hello world 3"},
        {"{{ '<a>'|e }} {{ ('<'|safe) + '<' }} {{ 'x'|escape ~ '<' }}", "&lt;a&gt; <&lt; x<"},
        {"{{ [1, 2]|reverse|list }} {{ 'abc'|reverse }} {{ [0, 1]|select|list }} {{ [1, 2]|reject('odd')|list }}",
         "[2, 1] cba [1] [2]"},
        {"{{ none|default('d') }} {{ none|default('d', true) }} {{ [1, 5]|max }} {{ 'hello there'|title }}",
         "None d 5 Hello There"},
    };
    EXPECT_ALL(rows, "{\"rows\": [{\"n\": \"x\", \"a\": 1}, {\"n\": \"y\", \"a\": 2}]}");
}
END_TEST

START_TEST(test_tojson)
{
    static const struct row rows[] = {
        {"{{ x|tojson }}",
         "{\"a\": [1, 2.0, 1e-07, true, null], \"é\": \"<\\\"\\n\\u0001🙂\\\\/\", \"o\": {}, \"l\": []}"},
        {"{{ x.a|tojson(indent=2) }}", "[\n  1,\n  2.0,\n  1e-07,\n  true,\n  null\n]"},
        {"{{ {'b': 1, 'a': [ ]}|tojson(sort_keys=true, separators=(',', ':')) }}", "{\"a\":[],\"b\":1}"},
        {"{{ '🙂é'|tojson(ensure_ascii=true) }}", "\"\\ud83d\\ude42\\u00e9\""},
        {"{{ {1: 2, true: 3, none: 4, 1.5: 5}|tojson }}", "{\"1\": 3, \"null\": 4, \"1.5\": 5}"},
        {"{{ (1, 'a')|tojson }} {{ range(3)|list|tojson }}", "[1, \"a\"] [0, 1, 2]"},
    };
    EXPECT_ALL(rows,
               "{\"x\": {\"a\": [1, 2.0, 1e-7, true, null], \"\\u00e9\": \"<\\\"\\n\\u0001🙂\\\\/\", \"o\": {}, "
               "\"l\": []}}");
}
END_TEST

START_TEST(test_tests_and_globals)
{
    static const struct row rows[] = {
        {"{{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is sequence }}",
         "True True True True True"},
        {"{{ 1 is number }} {{ true is integer }} {{ 1.0 is float }} {{ none is none }} {{ 'x' is iterable }}",
         "True False True True True"},
        {"{{ 1 is eq 1 }} {{ 1 is not in [2] }} {{ 'upper' is filter }} {{ 1 is sameas true }}",
         "True True True False"},
        {"{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "aba"},
        {"{% set j = joiner('|') %}{{ j() }}a{{ j() }}b", "a|b"},
        {"{{ dict(a=1, b=2) }} {{ dict([('x', 1)], y=2) }} {{ namespace(a=1) }}",
         "{'a': 1, 'b': 2} {'x': 1, 'y': 2} <Namespace {'a': 1}>"},
    };
    EXPECT_ALL(rows, NULL);
}
END_TEST

START_TEST(test_time)
{
    struct render_opts opts = {.fixed_now = true, .now_unix_s = 1721952000, .utc_offset_s = 3600};
    json_t *vars = json_object();
    struct err e = {0};
    char *out;
    size_t n;
    ck_assert_int_eq(jinja_render("{{ strftime_now('%d %b %Y %H:%M:%S%z|%j%%é') }}", vars, &opts, &out, &n, &e), 0);
    ck_assert_str_eq(out, "26 Jul 2024 01:00:00|208%é");
    mem_free(out);
    json_decref(vars);
}
END_TEST

START_TEST(test_errors)
{
    jinja_expect_err("{{ raise_exception('roles must alternate: ' ~ 1) }}", NULL, NULL, ERR_INVALID,
                     "roles must alternate: 1");
    jinja_expect_err("a\n\n{{ x.y }}", NULL, NULL, ERR_INVALID, "line 3: 'x' is undefined");
    jinja_expect_err("{{ {}.x.y }}", NULL, NULL, ERR_INVALID, "'dict object' has no attribute 'x'");
    jinja_expect_err("{{ [].append(1) }}", NULL, NULL, ERR_INVALID,
                     "access to attribute 'append' of 'list' object is unsafe");
    jinja_expect_err("{{ 'a' + 1 }}", NULL, NULL, ERR_INVALID, "can only concatenate str (not \"int\") to str");
    jinja_expect_err("{{ 9223372036854775807 + 1 }}", NULL, NULL, ERR_INVALID, "64 bits");
    jinja_expect_err("{{ 1 // 0 }}", NULL, NULL, ERR_INVALID, "by zero");
    jinja_expect_err("{% set ns = 1 %}{% set ns.x = 2 %}", NULL, NULL, ERR_INVALID, "non-namespace");
    jinja_expect_err("x\n{% if %}", NULL, NULL, ERR_FORMAT, "line 2: Expected an expression");
    jinja_expect_err("{% for x in y %}", NULL, NULL, ERR_FORMAT, "Unexpected end of template");
    jinja_expect_err("{% endfor %}", NULL, NULL, ERR_FORMAT, "unknown tag 'endfor'");
    jinja_expect_err("{{ 1|nope }}", NULL, NULL, ERR_FORMAT, "No filter named 'nope'.");
    jinja_expect_err("{% break %}", NULL, NULL, ERR_FORMAT, "outside a loop");
    jinja_expect_err("{# open", NULL, NULL, ERR_FORMAT, "Missing end of comment tag");
    jinja_expect_err("{{ (1] }}", NULL, NULL, ERR_FORMAT, "unexpected ']', expected ')'");
    jinja_expect_err("{% include 'x' %}", NULL, NULL, ERR_FORMAT, "not supported");
    jinja_expect_err("\xff", NULL, NULL, ERR_FORMAT, "UTF-8");
    jinja_expect_err("x", "[1]", NULL, ERR_INVALID, "JSON object");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("jinja");
    TCase *tc = tcase_create("language");
    tcase_add_test(tc, test_values);
    tcase_add_test(tc, test_operators);
    tcase_add_test(tc, test_lookup);
    tcase_add_test(tc, test_whitespace);
    tcase_add_test(tc, test_loops);
    tcase_add_test(tc, test_macros);
    tcase_add_test(tc, test_strings);
    tcase_add_test(tc, test_filters);
    tcase_add_test(tc, test_tojson);
    tcase_add_test(tc, test_tests_and_globals);
    tcase_add_test(tc, test_time);
    tcase_add_test(tc, test_errors);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int n_failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return n_failed != 0;
}
