/* The tightest-binding expressions: literals, names, calls, subscripts, filters and tests, signs. */
#include "parse.h"

static struct jnode *const_node(struct jparse *ps, int line, struct jval v)
{
    struct jnode *n = jparse_node(ps, J_NODE_CONST, line);
    n->value = v;
    return n;
}

struct jnode *jparse_name(struct jparse *ps, const struct jtok *t)
{
    struct jnode *n = jparse_node(ps, J_NODE_NAME, t->line);
    n->name.id = t->s;
    n->name.undef.name = jval_str(t->s);
    return n;
}

static struct jnode *strings(struct jparse *ps) /* adjacent literals are one */
{
    const struct jtok *t = ps->tok++;
    struct jval v = jval_str(t->s);
    while (ps->tok->kind == JTOK_STRING)
        v = jops_concat_str(ps->rt, v, jval_str((ps->tok++)->s));
    return const_node(ps, t->line, v);
}

static struct jnode *list_literal(struct jparse *ps)
{
    int line = (ps->tok++)->line;
    struct jnodes items = {0};
    while (ps->tok->kind != JTOK_RBRACKET) {
        if (items.n)
            jparse_expect(ps, JTOK_COMMA);
        if (ps->tok->kind != JTOK_RBRACKET)
            jnodes_add(ps, &items, jparse_expression(ps));
    }
    ps->tok++;
    return jparse_seq(ps, J_NODE_LIST, line, &items);
}

static struct jnode *dict_literal(struct jparse *ps)
{
    int line = (ps->tok++)->line;
    struct jnodes items = {0};
    while (ps->tok->kind != JTOK_RBRACE) {
        if (items.n)
            jparse_expect(ps, JTOK_COMMA);
        if (ps->tok->kind == JTOK_RBRACE)
            break;
        jnodes_add(ps, &items, jparse_expression(ps));
        jparse_expect(ps, JTOK_COLON);
        jnodes_add(ps, &items, jparse_expression(ps));
    }
    ps->tok++;
    return jparse_seq(ps, J_NODE_DICT, line, &items);
}

struct jnode *jparse_primary(struct jparse *ps)
{
    const struct jtok *t = ps->tok;
    switch (t->kind) {
    case JTOK_NAME:
        ps->tok++;
        if (jstr_is(t->s, "true") || jstr_is(t->s, "True"))
            return const_node(ps, t->line, jval_bool(true));
        if (jstr_is(t->s, "false") || jstr_is(t->s, "False"))
            return const_node(ps, t->line, jval_bool(false));
        if (jstr_is(t->s, "none") || jstr_is(t->s, "None"))
            return const_node(ps, t->line, jval_none());
        return jparse_name(ps, t);
    case JTOK_STRING:
        return strings(ps);
    case JTOK_INT:
    case JTOK_FLOAT:
        ps->tok++;
        return const_node(ps, t->line, t->num);
    case JTOK_LPAREN:
        return jparse_parenthesised(ps);
    case JTOK_LBRACKET:
        return list_literal(ps);
    case JTOK_LBRACE:
        return dict_literal(ps);
    default:
        jparse_fail(ps, "unexpected '%s'", jlex_describe(t->kind));
    }
}

static void keyword_arg(struct jparse *ps, struct jnodes *kw, struct jnodes *names)
{
    const struct jtok *t = ps->tok;
    for (size_t i = 0; i < names->n; i++)
        if (jstr_eq(names->v[i]->name.id, t->s))
            jparse_fail(ps, "keyword argument repeated: %.*s", (int)t->s->n, t->s->p);
    jnodes_add(ps, names, jparse_name(ps, t));
    ps->tok += 2;
    jnodes_add(ps, kw, jparse_expression(ps));
}

static void call_args(struct jparse *ps, struct jnode *n, struct jcall_args *args)
{
    struct jnodes pos = {0}, kw = {0}, names = {0};
    bool first = true, ok = true;
    jparse_expect(ps, JTOK_LPAREN);
    while (ps->tok->kind != JTOK_RPAREN) {
        if (!first) {
            jparse_expect(ps, JTOK_COMMA);
            if (ps->tok->kind == JTOK_RPAREN)
                break;
        }
        first = false;
        if (jparse_skip(ps, JTOK_MUL)) {
            ok = ok && !args->star && !args->star_star;
            args->star = jparse_expression(ps);
        } else if (jparse_skip(ps, JTOK_POW)) {
            ok = ok && !args->star_star;
            args->star_star = jparse_expression(ps);
        } else if (ps->tok->kind == JTOK_NAME && ps->tok[1].kind == JTOK_ASSIGN) {
            ok = ok && !args->star_star;
            keyword_arg(ps, &kw, &names);
        } else {
            ok = ok && !args->star && !args->star_star && !kw.n;
            jnodes_add(ps, &pos, jparse_expression(ps));
        }
        if (!ok)
            jparse_fail(ps, "invalid syntax for function call expression");
    }
    jparse_expect(ps, JTOK_RPAREN);
    args->pos = pos.v;
    args->n_pos = pos.n;
    args->kw = kw.v;
    args->n_kw = kw.n;
    args->kw_name = jrt_array(ps->rt, kw.n + 1, sizeof(struct jstr *));
    for (size_t i = 0; i < kw.n; i++) {
        args->kw_name[i] = names.v[i]->name.id;
        jparse_raise(ps, n, kw.v[i]);
    }
    for (size_t i = 0; i < pos.n; i++)
        jparse_raise(ps, n, pos.v[i]);
    jparse_raise(ps, n, args->star);
    jparse_raise(ps, n, args->star_star);
}

static struct jnode *call(struct jparse *ps, struct jnode *on)
{
    struct jnode *n = jparse_node(ps, J_NODE_CALL, ps->tok->line);
    n->apply.on = on;
    jparse_raise(ps, n, on);
    call_args(ps, n, &n->apply.args);
    return n;
}

static struct jnode *slice_or_index(struct jparse *ps)
{
    int line = ps->tok->line;
    struct jnode *start = NULL;
    if (ps->tok->kind != JTOK_COLON) {
        start = jparse_expression(ps);
        if (ps->tok->kind != JTOK_COLON)
            return start;
    }
    ps->tok++;
    struct jnode *n = jparse_node(ps, J_NODE_SLICE, line);
    n->slice.start = start;
    if (ps->tok->kind != JTOK_COLON && ps->tok->kind != JTOK_RBRACKET && ps->tok->kind != JTOK_COMMA)
        n->slice.stop = jparse_expression(ps);
    if (jparse_skip(ps, JTOK_COLON) && ps->tok->kind != JTOK_RBRACKET && ps->tok->kind != JTOK_COMMA)
        n->slice.step = jparse_expression(ps);
    jparse_raise(ps, n, n->slice.start);
    jparse_raise(ps, n, n->slice.stop);
    jparse_raise(ps, n, n->slice.step);
    return n;
}

static struct jnode *getitem(struct jparse *ps, int line, struct jnode *obj, struct jnode *sub)
{
    struct jnode *n = jparse_node(ps, J_NODE_GETITEM, line);
    n->getitem.obj = obj;
    n->getitem.sub = sub;
    jparse_raise(ps, n, obj);
    jparse_raise(ps, n, sub);
    return n;
}

static struct jnode *subscript(struct jparse *ps, struct jnode *obj)
{
    struct jnodes subs = {0};
    int line = (ps->tok++)->line;
    while (ps->tok->kind != JTOK_RBRACKET) {
        if (subs.n)
            jparse_expect(ps, JTOK_COMMA);
        jnodes_add(ps, &subs, slice_or_index(ps));
    }
    ps->tok++;
    if (subs.n == 1)
        return getitem(ps, line, obj, subs.v[0]);
    for (size_t i = 0; i < subs.n; i++)
        if (subs.v[i]->kind == J_NODE_SLICE)
            jparse_fail(ps, "slices in several dimensions are not supported");
    return getitem(ps, line, obj, jparse_seq(ps, J_NODE_TUPLE, line, &subs));
}

static struct jnode *attribute(struct jparse *ps, struct jnode *obj)
{
    int line = (ps->tok++)->line;
    const struct jtok *t = ps->tok++;
    if (t->kind == JTOK_INT)
        return getitem(ps, line, obj, const_node(ps, t->line, t->num));
    if (t->kind != JTOK_NAME) {
        ps->tok--;
        jparse_fail(ps, "expected name or number");
    }
    struct jnode *n = jparse_node(ps, J_NODE_GETATTR, line);
    n->getattr.obj = obj;
    n->getattr.attr = t->s;
    jparse_raise(ps, n, obj);
    return n;
}

static struct jnode *postfix(struct jparse *ps, struct jnode *n)
{
    for (;;) {
        if (ps->tok->kind == JTOK_DOT)
            n = attribute(ps, n);
        else if (ps->tok->kind == JTOK_LBRACKET)
            n = subscript(ps, n);
        else if (ps->tok->kind == JTOK_LPAREN)
            n = call(ps, n);
        else
            return n;
    }
}

/* The name of a filter or test: dotted names exist in the grammar, though in no template. */
static struct jstr *dotted_name(struct jparse *ps)
{
    struct jval name = jval_str(jparse_expect(ps, JTOK_NAME)->s);
    while (jparse_skip(ps, JTOK_DOT)) {
        name = jops_concat_str(ps->rt, name, jval_cstr(ps->rt, "."));
        name = jops_concat_str(ps->rt, name, jval_str(jparse_expect(ps, JTOK_NAME)->s));
    }
    return name.s;
}

struct jnode *jparse_filters(struct jparse *ps, struct jnode *on, bool inline_start)
{
    while (inline_start || jparse_skip(ps, JTOK_PIPE)) {
        inline_start = false;
        struct jnode *n = jparse_node(ps, J_NODE_FILTER, ps->tok->line);
        n->apply.on = on;
        n->apply.name = dotted_name(ps);
        jparse_raise(ps, n, on);
        if (ps->tok->kind == JTOK_LPAREN)
            call_args(ps, n, &n->apply.args);
        on = n;
    }
    return on;
}

/* `x is divisibleby 3`: a single argument may stand without parentheses. */
static void bare_test_arg(struct jparse *ps, struct jnode *n)
{
    switch (ps->tok->kind) {
    case JTOK_NAME:
        if (jparse_is_name(ps, "else") || jparse_is_name(ps, "or") || jparse_is_name(ps, "and"))
            return;
        break;
    case JTOK_STRING:
    case JTOK_INT:
    case JTOK_FLOAT:
    case JTOK_LBRACKET:
    case JTOK_LBRACE:
        break;
    default:
        return;
    }
    if (jparse_is_name(ps, "is"))
        jparse_fail(ps, "You cannot chain multiple tests with is");
    struct jnodes arg = {0};
    jnodes_add(ps, &arg, postfix(ps, jparse_primary(ps)));
    n->apply.args.pos = arg.v;
    n->apply.args.n_pos = 1;
    jparse_raise(ps, n, arg.v[0]);
}

static struct jnode *test(struct jparse *ps, struct jnode *on)
{
    int line = (ps->tok++)->line;
    bool negated = jparse_skip_name(ps, "not");
    struct jnode *n = jparse_node(ps, J_NODE_TEST, line);
    n->apply.on = on;
    n->apply.name = dotted_name(ps);
    jparse_raise(ps, n, on);
    if (ps->tok->kind == JTOK_LPAREN)
        call_args(ps, n, &n->apply.args);
    else
        bare_test_arg(ps, n);
    return negated ? jparse_unary(ps, JOP_NOT, line, n) : n;
}

static struct jnode *filters_and_tests(struct jparse *ps, struct jnode *n)
{
    for (;;) {
        if (ps->tok->kind == JTOK_PIPE)
            n = jparse_filters(ps, n, false);
        else if (jparse_is_name(ps, "is"))
            n = test(ps, n);
        else if (ps->tok->kind == JTOK_LPAREN)
            n = call(ps, n);
        else
            return n;
    }
}

struct jnode *jparse_unary_expr(struct jparse *ps, bool with_filter)
{
    int line = ps->tok->line;
    struct jnode *n;
    jparse_deeper(ps);
    if (jparse_skip(ps, JTOK_SUB))
        n = jparse_unary(ps, JOP_NEG, line, jparse_unary_expr(ps, false));
    else if (jparse_skip(ps, JTOK_ADD))
        n = jparse_unary(ps, JOP_POS, line, jparse_unary_expr(ps, false));
    else
        n = jparse_primary(ps);
    n = postfix(ps, n);
    if (with_filter)
        n = filters_and_tests(ps, n);
    jrt_leave(ps->rt);
    return n;
}
