/* libFuzzer: a chat template and its variables. Input: template source, NUL, JSON text (anything that is no JSON object
 * stands for a small conversation). Whatever happens must be an answer or a clean error within small limits, and
 * rendering twice must give the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "chat_template.h"
#include "mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \" Hi \"}],"
    " \"tools\": [{\"function\": {\"name\": \"f\", \"parameters\": {\"a\": 1.5}}}], \"add_generation_prompt\": true,"
    " \"s\": \"Stra\\u00dfe\", \"n\": 3, \"l\": [3, 1, 2], \"d\": {\"a\": 1}}";

static void check(int must)
{
    if (!must)
        abort();
}

static json_t *vars_of(const uint8_t *data, size_t size)
{
    json_t *vars = size ? json_loadb((const char *)data, size, JSON_ALLOW_NUL, NULL) : NULL;
    if (json_is_object(vars))
        return vars;
    json_decref(vars);
    return json_loads(conversation, 0, NULL);
}

static void render_twice(const struct chat_template *t, json_t *vars)
{
    struct render_opts opts = {.fixed_now = true};
    opts.limits =
        (struct render_limits){.output_bytes = 1 << 16, .memory_bytes = 1 << 20, .steps = 20000, .depth = 300};
    struct err e[2];
    char *out[2];
    size_t n[2];
    int rc[2];
    for (int i = 0; i < 2; i++)
        rc[i] = chat_template_render(t, vars, &opts, &out[i], &n[i], &e[i]);
    check(rc[0] == rc[1] && rc[0] <= 0 && n[0] == n[1]);
    check(rc[0] ? !out[0] && e[0].code == -rc[0] && e[0].msg[0] : !memcmp(out[0], out[1], n[0]));
    mem_free(out[0]);
    mem_free(out[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = memchr(data, 0, size);
    size_t n_src = nul ? (size_t)(nul - data) : size;
    struct chat_template *t;
    struct err e = {0};
    int rc = chat_template_compile((const char *)data, n_src, &t, &e);
    check(rc == 0 ? t != NULL : t == NULL && e.code == -rc);
    if (rc)
        return 0;
    json_t *vars = vars_of(nul ? nul + 1 : NULL, nul ? size - n_src - 1 : 0);
    render_twice(t, vars);
    json_decref(vars);
    chat_template_free(t);
    return 0;
}
