/* What the parser's files share: looking at tokens, making nodes. */
#include <stdarg.h>
#include <stdio.h>

#include "parse.h"

void jparse_fail(struct jparse *ps, const char *fmt, ...)
{
    char msg[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    ps->rt->line = ps->tok->line;
    jrt_fail(ps->rt, "%s", msg);
}

struct jnode *jparse_node(struct jparse *ps, enum jnode_kind kind, int line)
{
    struct jnode *n = jrt_alloc(ps->rt, sizeof *n);
    n->kind = (uint8_t)kind;
    n->line = line;
    n->height = 1;
    return n;
}

void jparse_raise(struct jparse *ps, struct jnode *n, const struct jnode *child)
{
    if (!child || child->height < n->height)
        return;
    n->height = child->height + 1;
    if (n->height > JPARSE_HEIGHT_MAX)
        jparse_fail(ps, "the template is nested too deeply");
}

void jparse_deeper(struct jparse *ps)
{
    if (++ps->rt->depth > JPARSE_DEPTH_MAX)
        jparse_fail(ps, "the template is nested too deeply");
}

void jnodes_add(struct jparse *ps, struct jnodes *a, struct jnode *n)
{
    if (a->n == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 4;
        struct jnode **more = jrt_array(ps->rt, cap, sizeof(struct jnode *));
        if (a->n)
            memcpy(more, a->v, a->n * sizeof(struct jnode *));
        a->v = more;
        a->cap = cap;
    }
    a->v[a->n++] = n;
}

bool jparse_is_name(const struct jparse *ps, const char *name)
{
    return ps->tok->kind == JTOK_NAME && jstr_is(ps->tok->s, name);
}

bool jparse_skip_name(struct jparse *ps, const char *name)
{
    bool yes = jparse_is_name(ps, name);
    ps->tok += yes;
    return yes;
}

bool jparse_skip(struct jparse *ps, enum jtok_kind kind)
{
    bool yes = ps->tok->kind == kind;
    ps->tok += yes;
    return yes;
}

const struct jtok *jparse_expect(struct jparse *ps, enum jtok_kind kind)
{
    if (ps->tok->kind == JTOK_EOF)
        jparse_fail(ps, "unexpected end of template, expected '%s'.", jlex_describe(kind));
    if (ps->tok->kind != kind && ps->tok->kind == JTOK_NAME)
        jparse_fail(ps, "expected token '%s', got '%.*s'", jlex_describe(kind), (int)ps->tok->s->n, ps->tok->s->p);
    if (ps->tok->kind != kind)
        jparse_fail(ps, "expected token '%s', got '%s'", jlex_describe(kind), jlex_describe(ps->tok->kind));
    return ps->tok++;
}

struct jnode *jparse_binary(struct jparse *ps, enum jnode_kind kind, enum jop op, int line, struct jnode *l,
                            struct jnode *r)
{
    struct jnode *n = jparse_node(ps, kind, line);
    n->op = (uint8_t)op;
    n->bin.left = l;
    n->bin.right = r;
    jparse_raise(ps, n, l);
    jparse_raise(ps, n, r);
    return n;
}

struct jnode *jparse_unary(struct jparse *ps, enum jop op, int line, struct jnode *on)
{
    return jparse_binary(ps, J_NODE_UNARY, op, line, on, NULL);
}

struct jnode *jparse_seq(struct jparse *ps, enum jnode_kind kind, int line, const struct jnodes *items)
{
    struct jnode *n = jparse_node(ps, kind, line);
    n->seq.item = items->v;
    n->seq.n = items->n;
    for (size_t i = 0; i < items->n; i++)
        jparse_raise(ps, n, items->v[i]);
    return n;
}
