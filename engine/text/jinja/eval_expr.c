#include "eval.h"
#include "text.h"

struct jval *jeval_slot(struct jrt *rt, struct jslot s)
{
    struct jact *a = rt->act;
    for (; s.hops; s.hops--)
        a = a->up;
    return &a->slot[s.i];
}

static struct jval eval_name(struct jrt *rt, const struct jnode_name *n)
{
    const struct jval *v = jeval_slot(rt, n->slot);
    return v->kind == J_MISSING ? (struct jval){.kind = J_UNDEF, .u = &n->undef} : *v;
}

static struct jval eval_list(struct jrt *rt, const struct jnode *n)
{
    struct jlist *l = jlist_new(rt, n->seq.n);
    for (size_t i = 0; i < n->seq.n; i++)
        l->v[l->n++] = jeval_expr(rt, n->seq.item[i]);
    return n->kind == J_NODE_TUPLE ? jval_tuple(l) : jval_list(l);
}

static struct jval eval_dict(struct jrt *rt, const struct jnode *n)
{
    struct jdict *d = jdict_new(rt, n->seq.n / 2);
    for (size_t i = 0; i < n->seq.n; i += 2) {
        struct jval k = jeval_expr(rt, n->seq.item[i]), v = jeval_expr(rt, n->seq.item[i + 1]);
        jdict_set(rt, d, k, v);
    }
    return jval_dict(d);
}

static struct jval eval_concat(struct jrt *rt, const struct jnode *n)
{
    struct jval *v = jrt_array(rt, n->seq.n, sizeof *v);
    struct jbuf b = {0};
    for (size_t i = 0; i < n->seq.n; i++)
        v[i] = jeval_expr(rt, n->seq.item[i]);
    for (size_t i = 0; i < n->seq.n; i++)
        jtext_str(rt, &b, v[i]);
    return jval_of_buf(rt, &b);
}

/* a < b < c: each operand once, up to the first comparison that fails. */
static struct jval eval_compare(struct jrt *rt, const struct jnode *n)
{
    struct jval a = jeval_expr(rt, n->seq.item[0]);
    for (size_t i = 1; i < n->seq.n; i++) {
        struct jval b = jeval_expr(rt, n->seq.item[i]);
        rt->line = n->line;
        if (!jops_compare(rt, (enum jop)n->seq.op[i - 1], a, b))
            return jval_bool(false);
        a = b;
    }
    return jval_bool(true);
}

static struct jval eval_cond(struct jrt *rt, const struct jnode *n)
{
    if (jval_truth(jeval_expr(rt, n->cond.test)))
        return jeval_expr(rt, n->cond.yes);
    if (n->cond.no)
        return jeval_expr(rt, n->cond.no);
    struct jbuf b = {0};
    jbuf_printf(rt, &b, "the inline if-expression on line %d evaluated to false and no else section was defined.",
                n->line);
    jbuf_putc(rt, &b, 0);
    return jundef_hint(rt, b.p);
}

static struct jval eval_unary(struct jrt *rt, const struct jnode *n)
{
    struct jval v = jeval_expr(rt, n->bin.left);
    rt->line = n->line;
    switch ((enum jop)n->op) {
    case JOP_NOT:
        return jval_bool(!jval_truth(v));
    case JOP_NEG:
        return jops_negate(rt, v);
    default:
        return jops_plus(rt, v);
    }
}

static struct jval eval_binary(struct jrt *rt, const struct jnode *n)
{
    struct jval a = jeval_expr(rt, n->bin.left), b = jeval_expr(rt, n->bin.right);
    rt->line = n->line;
    if (n->op == JOP_ADD && a.kind == J_STR && b.kind == J_STR) /* by far the most common */
        return jops_concat_str(rt, a, b);
    return jops_binary(rt, (enum jop)n->op, a, b);
}

static struct jval eval_getitem(struct jrt *rt, const struct jnode *n)
{
    struct jval obj = jeval_expr(rt, n->getitem.obj);
    const struct jnode *sub = n->getitem.sub;
    if (sub->kind != J_NODE_SLICE) {
        struct jval v = jeval_expr(rt, sub);
        rt->line = n->line;
        return jaccess_item(rt, obj, v);
    }
    struct jval bound[3] = {{0}};
    const struct jnode *part[] = {sub->slice.start, sub->slice.stop, sub->slice.step};
    for (int i = 0; i < 3; i++)
        if (part[i])
            bound[i] = jeval_expr(rt, part[i]);
    rt->line = n->line;
    return jaccess_slice(rt, obj, bound[0], bound[1], bound[2]);
}

static void add_star(struct jrt *rt, struct jargs *out, struct jval v)
{
    struct jlist *more = jiter_items(rt, v);
    struct jval *pos = jrt_array(rt, out->n_pos + more->n + 1, sizeof *pos);
    if (out->n_pos)
        memcpy(pos, out->pos, out->n_pos * sizeof *pos);
    if (more->n)
        memcpy(pos + out->n_pos, more->v, more->n * sizeof *pos);
    out->pos = pos;
    out->n_pos += more->n;
}

static void add_star_star(struct jrt *rt, struct jargs *out, struct jval v)
{
    if (v.kind == J_UNDEF)
        jundef_fail(rt, v.u);
    if (v.kind != J_DICT)
        jrt_fail(rt, "argument after ** must be a mapping, not %s", jval_type(v));
    struct jkw *kw = jrt_array(rt, out->n_kw + v.d->n + 1, sizeof *kw);
    if (out->n_kw)
        memcpy(kw, out->kw, out->n_kw * sizeof *kw);
    out->kw = kw;
    for (size_t i = 0; i < v.d->n; i++) {
        const struct jentry *e = &v.d->e[i];
        if (e->k.kind != J_STR)
            jrt_fail(rt, "keywords must be strings");
        for (size_t k = 0; k < out->n_kw; k++)
            if (jstr_eq(kw[k].name, e->k.s))
                jrt_fail(rt, "got multiple values for keyword argument '%.*s'", (int)e->k.s->n, e->k.s->p);
        kw[out->n_kw++] = (struct jkw){e->k.s, e->v};
    }
}

void jeval_args(struct jrt *rt, const struct jcall_args *a, struct jargs *out)
{
    *out = (struct jargs){.n_pos = a->n_pos, .n_kw = a->n_kw};
    if (a->n_pos)
        out->pos = jrt_array(rt, a->n_pos, sizeof *out->pos);
    if (a->n_kw)
        out->kw = jrt_array(rt, a->n_kw, sizeof *out->kw);
    for (size_t i = 0; i < a->n_pos; i++)
        out->pos[i] = jeval_expr(rt, a->pos[i]);
    for (size_t i = 0; i < a->n_kw; i++)
        out->kw[i] = (struct jkw){a->kw_name[i], jeval_expr(rt, a->kw[i])};
    if (a->star)
        add_star(rt, out, jeval_expr(rt, a->star));
    if (a->star_star)
        add_star_star(rt, out, jeval_expr(rt, a->star_star));
}

static struct jval eval_call(struct jrt *rt, const struct jnode *n)
{
    struct jval callee = jeval_expr(rt, n->apply.on);
    struct jargs args;
    jeval_args(rt, &n->apply.args, &args);
    rt->line = n->line;
    return jcall(rt, callee, &args);
}

static struct jval apply(struct jrt *rt, const struct jnode *n, struct jval on)
{
    struct jargs args;
    jeval_args(rt, &n->apply.args, &args);
    rt->line = n->line;
    if (!n->apply.builtin)
        jrt_fail(rt, "No %s named '%.*s' found.", n->kind == J_NODE_FILTER ? "filter" : "test", (int)n->apply.name->n,
                 n->apply.name->p);
    return jbuiltin_call(rt, n->apply.builtin, on, &args);
}

struct jval jeval_filter(struct jrt *rt, const struct jnode *n, struct jval on)
{
    if (n->apply.on)
        on = jeval_filter(rt, n->apply.on, on);
    return apply(rt, n, on);
}

static struct jval eval(struct jrt *rt, const struct jnode *n)
{
    struct jval v;
    switch ((enum jnode_kind)n->kind) {
    case J_NODE_TUPLE:
    case J_NODE_LIST:
        return eval_list(rt, n);
    case J_NODE_DICT:
        return eval_dict(rt, n);
    case J_NODE_CONCAT:
        return eval_concat(rt, n);
    case J_NODE_BINARY:
        return eval_binary(rt, n);
    case J_NODE_UNARY:
        return eval_unary(rt, n);
    case J_NODE_AND:
        v = jeval_expr(rt, n->bin.left);
        return jval_truth(v) ? jeval_expr(rt, n->bin.right) : v;
    case J_NODE_OR:
        v = jeval_expr(rt, n->bin.left);
        return jval_truth(v) ? v : jeval_expr(rt, n->bin.right);
    case J_NODE_COMPARE:
        return eval_compare(rt, n);
    case J_NODE_COND:
        return eval_cond(rt, n);
    case J_NODE_GETATTR:
        v = jeval_expr(rt, n->getattr.obj);
        rt->line = n->line;
        return jaccess_attr(rt, v, n->getattr.attr);
    case J_NODE_GETITEM:
        return eval_getitem(rt, n);
    case J_NODE_CALL:
        return eval_call(rt, n);
    case J_NODE_FILTER:
    case J_NODE_TEST:
        return apply(rt, n, jeval_expr(rt, n->apply.on));
    default:
        BUG_ON(1);
        return jval_none();
    }
}

struct jval jeval_expr(struct jrt *rt, const struct jnode *n)
{
    jrt_step(rt, 1);
    if (n->kind == J_NODE_CONST)
        return n->value;
    if (n->kind == J_NODE_NAME)
        return eval_name(rt, &n->name);
    jrt_enter(rt);
    rt->line = n->line;
    struct jval v = eval(rt, n);
    jrt_leave(rt);
    return v;
}
