/* Renders templates for the differential tests: reads JSON lines {"template": ..., "vars": {...}} on standard input,
 * writes one JSON line each, {"out": ...} or {"error": ..., "stage": "compile" | "render"}. Time is fixed at 0. */
#include <stdio.h>
#include <stdlib.h>

#include "chat_template.h"
#include "mem.h"

static json_t *failure(const char *stage, const struct err *e)
{
    return json_pack("{s:s, s:s, s:i}", "error", e->msg, "stage", stage, "code", e->code);
}

static json_t *run(json_t *c)
{
    struct err e = {0};
    struct chat_template *t;
    struct render_opts opts = {.fixed_now = true};
    char *out;
    size_t n;
    json_t *src = json_object_get(c, "template");
    if (chat_template_compile(json_string_value(src), json_string_length(src), &t, &e))
        return failure("compile", &e);
    json_t *answer;
    if (chat_template_render(t, json_object_get(c, "vars"), &opts, &out, &n, &e))
        answer = failure("render", &e);
    else
        answer = json_pack("{s:s%}", "out", out, n);
    mem_free(out);
    chat_template_free(t);
    return answer;
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
        json_error_t je;
        json_t *c = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, &je);
        if (!c) {
            fprintf(stderr, "jinja_cli: %s\n", je.text);
            return 1;
        }
        json_t *answer = run(c);
        char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
        puts(text ? text : "{\"error\":\"unprintable\",\"stage\":\"render\"}");
        fflush(stdout);
        free(text);
        json_decref(answer);
        json_decref(c);
    }
    free(line);
    return 0;
}
