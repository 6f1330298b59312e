/* The special names `loop`, `caller`, `kwargs` and `varargs` exist only where a body mentions them. The walk takes
 * children in jinja2's order, since a name that is set first no longer counts. */
#include "scope.h"

enum found { NOT_YET, READ, SET };

static enum found in_node(const struct jnode *n, const char *name);

static enum found in_nodes(struct jnode *const *v, size_t n, const char *name)
{
    enum found f = NOT_YET;
    for (size_t i = 0; i < n && f == NOT_YET; i++)
        f = in_node(v[i], name);
    return f;
}

static enum found in_block(const struct jblock *b, const char *name)
{
    return in_nodes(b->stmt, b->n, name);
}

static enum found in_target(const struct jnode *n, const char *name)
{
    enum found f = NOT_YET;
    if (n->kind == J_NODE_TUPLE)
        for (size_t i = 0; i < n->seq.n && f == NOT_YET; i++)
            f = in_target(n->seq.item[i], name);
    else if (n->kind == J_NODE_NAME && jstr_is(n->name.id, name))
        f = SET;
    return f;
}

static enum found in_targets(struct jnode *const *v, size_t n, const char *name)
{
    enum found f = NOT_YET;
    for (size_t i = 0; i < n && f == NOT_YET; i++)
        f = in_target(v[i], name);
    return f;
}

#define TRY(expr)                                                                                                      \
    do {                                                                                                               \
        enum found f_ = (expr);                                                                                        \
        if (f_ != NOT_YET)                                                                                             \
            return f_;                                                                                                 \
    } while (0)

static enum found in_macro(const struct jnode_macro *m, const char *name)
{
    TRY(in_targets(m->param, m->n_param, name));
    TRY(in_nodes(m->fallback, m->n_fallback, name));
    return in_block(&m->body, name);
}

static enum found in_for(const struct jnode_for *f, const char *name)
{
    TRY(in_target(f->target, name));
    TRY(in_node(f->iter, name));
    TRY(in_block(&f->body, name));
    TRY(in_block(&f->orelse, name));
    return in_node(f->test, name);
}

struct search {
    const char *name;
    enum found found;
};

static void look_in_child(void *arg, struct jnode *child)
{
    struct search *s = arg;
    if (s->found == NOT_YET)
        s->found = in_node(child, s->name);
}

static enum found in_children(const struct jnode *n, const char *name)
{
    struct search s = {name, NOT_YET};
    jnode_children(n, look_in_child, &s);
    return s.found;
}

static enum found in_node(const struct jnode *n, const char *name)
{
    if (!n)
        return NOT_YET;
    switch ((enum jnode_kind)n->kind) {
    case J_NODE_NAME:
        return jstr_is(n->name.id, name) ? READ : NOT_YET;
    case J_NODE_IF:
        TRY(in_node(n->cond_stmt.test, name));
        TRY(in_block(&n->cond_stmt.body, name));
        TRY(in_block(&n->cond_stmt.elif, name));
        return in_block(&n->cond_stmt.orelse, name);
    case J_NODE_FOR:
        return in_for(&n->loop, name);
    case J_NODE_SET:
        TRY(in_target(n->set.target, name));
        return in_node(n->set.value, name);
    case J_NODE_SETBLOCK:
        TRY(in_target(n->set.target, name));
        TRY(in_node(n->set.value, name));
        return in_block(&n->set.body, name);
    case J_NODE_MACRO:
        return in_macro(&n->macro, name);
    case J_NODE_CALLBLOCK:
        TRY(in_node(n->callblock.call, name));
        return in_macro(&n->callblock.macro->macro, name);
    case J_NODE_FILTERBLOCK:
        TRY(in_block(&n->scope.body, name));
        return in_node(n->scope.filter, name);
    case J_NODE_WITH:
    case J_NODE_SCOPE:
        TRY(in_targets(n->scope.target, n->scope.n_target, name));
        TRY(in_nodes(n->scope.value, n->scope.n_target, name));
        return in_block(&n->scope.body, name);
    default:
        return in_children(n, name);
    }
}

bool jscope_mentions(const struct jblock *b, const char *name)
{
    return in_block(b, name) == READ;
}
