/* Real chat templates and random small ones against what Python's jinja2 made of them (tests/golden/templates). The
 * real templates are not in the repository; without ../shared their part says so and is skipped. */
#include <stdio.h>

#include "jinja_help.h"

#define GOLDEN_DIR GALLEY_SOURCE_ROOT "/tests/golden/templates/"

/* NULL when there is no such file. */
static char *file_text(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *text = mem_alloc(*n + 1);
    ck_assert_uint_eq(fread(text, 1, *n, f), *n);
    text[*n] = 0;
    fclose(f);
    return text;
}

static const char *text_of(json_t *row, const char *key)
{
    return json_string_value(json_object_get(row, key));
}

/* Same text; or an error where Python has one: with Python's message if the template or jinja2 chose it. */
static void check_row(json_t *row, const char *src, json_t *vars, const char *name)
{
    struct render_opts opts = {.fixed_now = true};
    struct err e = {0};
    char *out;
    size_t n;
    int rc = jinja_render(src, vars, &opts, &out, &n, &e);
    json_t *want = json_object_get(row, "out");
    if (!want) {
        ck_assert_msg(rc < 0, "%s renders as %s", name, out ? out : "");
        const char *kind = text_of(row, "kind");
        if (kind && (!strcmp(kind, "TemplateError") || !strcmp(kind, "UndefinedError")))
            ck_assert_msg(strstr(e.msg, text_of(row, "error")) != NULL, "%s: %s", name, e.msg);
    } else {
        ck_assert_msg(rc == 0, "%s: %s", name, e.msg);
        ck_assert_msg(n == json_string_length(want) && !memcmp(out, json_string_value(want), n),
                      "%s gives\n%s\nnot\n%s", name, out, json_string_value(want));
    }
    mem_free(out);
}

/* Calls `fn` for each JSON line of a file; returns how many. */
static int for_lines(const char *path, void (*fn)(json_t *row, void *arg), void *arg)
{
    size_t n;
    int n_line = 0;
    char *text = file_text(path, &n);
    ck_assert_msg(text != NULL, "%s", path);
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, n_line++) {
        json_t *row = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
        ck_assert_msg(row != NULL, "%s, line %d", path, n_line + 1);
        fn(row, arg);
        json_decref(row);
    }
    mem_free(text);
    return n_line;
}

struct real {
    json_t *conversations;
    int n_checked, n_skipped;
};

static void check_real(json_t *row, void *arg)
{
    struct real *r = arg;
    char path[1024], name[256];
    size_t n;
    snprintf(path, sizeof path, GALLEY_SHARED_DIR "/data/templates/%s", text_of(row, "template"));
    snprintf(name, sizeof name, "%s of %s", text_of(row, "conversation"), text_of(row, "template"));
    char *src = file_text(path, &n);
    if (!src) {
        r->n_skipped++;
        return;
    }
    check_row(row, src, json_object_get(r->conversations, text_of(row, "conversation")), name);
    r->n_checked++;
    mem_free(src);
}

START_TEST(test_real_templates)
{
    struct real r = {.conversations = json_load_file(GOLDEN_DIR "conversations.json", 0, NULL)};
    ck_assert_ptr_nonnull(r.conversations);
    int n = for_lines(GOLDEN_DIR "templates.jsonl", check_real, &r);
    ck_assert_int_ge(n, 200);
    if (r.n_skipped)
        printf("skipped: %d of %d goldens, whose templates are not in " GALLEY_SHARED_DIR "/data/templates\n",
               r.n_skipped, n);
    json_decref(r.conversations);
}
END_TEST

static void check_case(json_t *row, void *arg)
{
    json_t **vars = arg;
    if (!*vars) /* the first line */
        *vars = json_incref(json_object_get(row, "vars"));
    else
        check_row(row, text_of(row, "template"), *vars, text_of(row, "template"));
}

START_TEST(test_small_templates)
{
    json_t *vars = NULL;
    ck_assert_int_ge(for_lines(GOLDEN_DIR "cases.jsonl", check_case, &vars), 300);
    json_decref(vars);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("jinja goldens");
    TCase *tc = tcase_create("goldens");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_real_templates);
    tcase_add_test(tc, test_small_templates);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int n_failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return n_failed != 0;
}
