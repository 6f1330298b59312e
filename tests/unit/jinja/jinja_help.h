/* What the template tests share. */
#ifndef GALLEY_TEST_JINJA_HELP_H
#define GALLEY_TEST_JINJA_HELP_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "chat_template.h"
#include "mem.h"

/* Compiles and renders. *out is NULL after a failure; otherwise the caller frees it with mem_free. */
static inline int jinja_render(const char *src, json_t *vars, const struct render_opts *opts, char **out, size_t *n_out,
                               struct err *e)
{
    struct chat_template *t;
    *out = NULL;
    int rc = chat_template_compile(src, strlen(src), &t, e);
    if (rc)
        return rc;
    rc = chat_template_render(t, vars, opts, out, n_out, e);
    chat_template_free(t);
    return rc;
}

/* The text of a template that must render; vars as JSON text, NULL for none. */
static inline void jinja_expect(const char *src, const char *vars_text, const char *want)
{
    struct err e = {0};
    char *out;
    size_t n;
    json_t *vars = json_loads(vars_text ? vars_text : "{}", JSON_ALLOW_NUL, NULL);
    ck_assert_ptr_nonnull(vars);
    int rc = jinja_render(src, vars, NULL, &out, &n, &e);
    ck_assert_msg(rc == 0, "%s: %s", src, e.msg);
    ck_assert_msg(n == strlen(want) && memcmp(out, want, n) == 0, "%s\n gives %s\n not   %s", src, out, want);
    mem_free(out);
    json_decref(vars);
}

/* A template that must fail with this code and a message that contains `part`. */
static inline void jinja_expect_err(const char *src, const char *vars_text, const struct render_opts *opts, int code,
                                    const char *part)
{
    struct err e = {0};
    char *out;
    size_t n;
    json_t *vars = json_loads(vars_text ? vars_text : "{}", 0, NULL);
    int rc = jinja_render(src, vars, opts, &out, &n, &e);
    ck_assert_msg(rc == -code, "%.200s: rc %d (%s)", src, rc, e.msg);
    ck_assert_int_eq(e.code, code);
    ck_assert_msg(strstr(e.msg, part) != NULL, "%.200s: %s, not %s", src, e.msg, part);
    ck_assert_ptr_null(out);
    json_decref(vars);
}

#endif
