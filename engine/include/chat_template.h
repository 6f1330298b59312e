/* Chat templates: Jinja as the model files carry it, rendered byte for byte as Python's jinja2 does under the settings
 * of Hugging Face transformers (immutable sandbox, trim_blocks, lstrip_blocks, loop controls, its own tojson). For
 * server/ and for engine/text. Narrow: compile once, render many times; values come in as JSON, text goes out. */
#ifndef GALLEY_CHAT_TEMPLATE_H
#define GALLEY_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "err.h"

struct chat_template; /* owner: whoever compiled it; immutable, so any number of threads may render it at once */

/* What one rendering may spend: a hostile template or conversation ends in ERR_TOOLONG, not in a dead server.
 * A field that is 0 takes the default in brackets. */
struct render_limits {
    size_t output_bytes; /* of the rendered text [16 MiB] */
    size_t memory_bytes; /* of all values alive during the rendering; nothing is freed before its end [128 MiB] */
    uint64_t steps;      /* evaluated nodes, loop turns, and 64-byte blocks of string work [10 million] */
    int depth;           /* nested statements, expressions, macro calls and values [1000] */
    int64_t range_items; /* length of one range() [100000, as jinja2's sandbox] */
};

struct render_opts {
    struct render_limits limits;
    bool fixed_now;       /* strftime_now() tells the time below instead of the clock's, so that tests repeat */
    int64_t now_unix_s;   /* seconds since 1970-01-01 UTC */
    int32_t utc_offset_s; /* of the local time zone, east positive */
};

/* Compiles `src` (UTF-8, n_src bytes). -ERR_FORMAT names the line and the reason; -ERR_NOMEM. */
int chat_template_compile(const char *src, size_t n_src, struct chat_template **out, struct err *e);

/* Renders with the variables of the JSON object `vars` (messages, tools, add_generation_prompt, bos_token, ...), which
 * is only read and must not change meanwhile. `opts` may be NULL. On success *out is NUL-terminated, *n_out bytes long
 * and freed with mem_free. -ERR_INVALID: the template called raise_exception (the message is exactly its argument) or
 * an expression failed ("line 3: 'x' is undefined"); -ERR_TOOLONG: a limit, with the line; -ERR_NOMEM. */
int chat_template_render(const struct chat_template *t, json_t *vars, const struct render_opts *opts, char **out,
                         size_t *n_out, struct err *e);

void chat_template_free(struct chat_template *t); /* NULL is legal */

#endif
