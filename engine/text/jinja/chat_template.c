/* The public boundary: here failures stop unwinding and become return codes. */
#include "chat_template.h"

#include "eval.h"
#include "json.h"
#include "lex.h"
#include "mem.h"
#include "parse.h"
#include "scope.h"
#include "text/utf8.h"

enum {
    COMPILE_CHUNK_BYTES = 16 << 10,
    RENDER_CHUNK_BYTES = 64 << 10,
    COMPILE_MEMORY_MAX = 256 << 20,
    SOURCE_MAX = 4 << 20,
};

struct chat_template {
    struct arena arena; /* holds the tree */
    const struct jtree *tree;
};

static struct render_limits limits_of(const struct render_opts *opts)
{
    struct render_limits l = {.output_bytes = 16 << 20,
                              .memory_bytes = 128 << 20,
                              .steps = 10 * 1000 * 1000,
                              .depth = 1000,
                              .range_items = 100000};
    if (!opts)
        return l;
    const struct render_limits *want = &opts->limits;
    l.output_bytes = want->output_bytes ? want->output_bytes : l.output_bytes;
    l.memory_bytes = want->memory_bytes ? want->memory_bytes : l.memory_bytes;
    l.steps = want->steps ? want->steps : l.steps;
    l.depth = want->depth ? want->depth : l.depth;
    l.range_items = want->range_items ? want->range_items : l.range_items;
    return l;
}

/* The functions that hold a setjmp own nothing: their callers clean up. */
static int compile_guarded(struct jrt *rt, const char *src, size_t n_src, const struct jtree **out)
{
    if (setjmp(rt->trap))
        return -rt->code;
    struct jtree *tree = jparse_template(rt, jlex_run(rt, src, n_src));
    jscope_resolve(rt, tree);
    *out = tree;
    return 0;
}

int chat_template_compile(const char *src, size_t n_src, struct chat_template **out, struct err *e)
{
    *out = NULL;
    if (n_src > SOURCE_MAX)
        return err_set(e, ERR_FORMAT, "a chat template of %zu bytes is too long", n_src);
    if (!utf8_valid(src, n_src))
        return err_set(e, ERR_FORMAT, "the chat template is not valid UTF-8");
    struct chat_template *t = mem_calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_NOMEM, "out of memory in a chat template");
    struct jrt rt = {.err = e, .fault = ERR_FORMAT, .line = 1};
    rt.limit = (struct render_limits){.memory_bytes = COMPILE_MEMORY_MAX, .steps = UINT64_MAX, .depth = INT32_MAX};
    arena_init(&rt.arena, COMPILE_CHUNK_BYTES);
    int rc = compile_guarded(&rt, src, n_src, &t->tree);
    t->arena = rt.arena;
    if (rc)
        chat_template_free(t);
    else
        *out = t;
    return rc;
}

static int copy_out(const struct jbuf *b, char **out, size_t *n_out, struct err *e)
{
    *out = mem_alloc(b->n + 1);
    if (!*out)
        return err_set(e, ERR_NOMEM, "out of memory in a chat template");
    if (b->n)
        memcpy(*out, b->p, b->n);
    (*out)[b->n] = 0;
    *n_out = b->n;
    return 0;
}

static int render_guarded(struct jrt *rt, const struct jtree *tree, json_t *vars)
{
    if (setjmp(rt->trap))
        return -rt->code;
    rt->vars = jjson_read(rt, vars).d;
    jeval_template(rt, tree);
    return 0;
}

int chat_template_render(const struct chat_template *t, json_t *vars, const struct render_opts *opts, char **out,
                         size_t *n_out, struct err *e)
{
    *out = NULL;
    *n_out = 0;
    if (!json_is_object(vars))
        return err_set(e, ERR_INVALID, "the variables of a chat template must be a JSON object");
    struct jbuf text = {0};
    struct jrt rt = {.err = e, .fault = ERR_INVALID, .line = 1, .limit = limits_of(opts), .opts = opts, .out = &text};
    arena_init(&rt.arena, RENDER_CHUNK_BYTES);
    int rc = render_guarded(&rt, t->tree, vars);
    if (rc == 0)
        rc = copy_out(&text, out, n_out, e);
    arena_free(&rt.arena);
    return rc;
}

void chat_template_free(struct chat_template *t)
{
    if (!t)
        return;
    arena_free(&t->arena);
    mem_free(t);
}
