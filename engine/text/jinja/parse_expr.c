/* Expressions, tightest-binding rule last. */
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

static struct jnode *binary(struct jparse *ps, enum jnode_kind kind, enum jop op, int line, struct jnode *l,
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

static struct jnode *unary(struct jparse *ps, enum jop op, int line, struct jnode *on)
{
    return binary(ps, J_NODE_UNARY, op, line, on, NULL);
}

static struct jnode *seq_node(struct jparse *ps, enum jnode_kind kind, int line, const struct jnodes *items)
{
    struct jnode *n = jparse_node(ps, kind, line);
    n->seq.item = items->v;
    n->seq.n = items->n;
    for (size_t i = 0; i < items->n; i++)
        jparse_raise(ps, n, items->v[i]);
    return n;
}

static struct jnode *const_node(struct jparse *ps, int line, struct jval v)
{
    struct jnode *n = jparse_node(ps, J_NODE_CONST, line);
    n->value = v;
    return n;
}

static struct jnode *name_node(struct jparse *ps, const struct jtok *t)
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
    return seq_node(ps, J_NODE_LIST, line, &items);
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
    return seq_node(ps, J_NODE_DICT, line, &items);
}

static struct jnode *tuple_of(struct jparse *ps, bool (*ends)(const struct jparse *, const char *),
                              const char *end_name, struct jnode *(*item)(struct jparse *), bool may_be_empty)
{
    int line = ps->tok->line;
    struct jnodes items = {0};
    bool is_tuple = false;
    for (;;) {
        if (items.n)
            jparse_expect(ps, JTOK_COMMA);
        if (ends(ps, end_name))
            break;
        jnodes_add(ps, &items, item(ps));
        if (ps->tok->kind != JTOK_COMMA)
            break;
        is_tuple = true;
        line = ps->tok->line;
    }
    if (!is_tuple && items.n)
        return items.v[0];
    if (!is_tuple && !may_be_empty)
        jparse_fail(ps, "Expected an expression, got '%s'", jlex_describe(ps->tok->kind));
    return seq_node(ps, J_NODE_TUPLE, line, &items);
}

static bool tuple_ends(const struct jparse *ps, const char *end_name)
{
    return ps->tok->kind == JTOK_VAR_END || ps->tok->kind == JTOK_BLOCK_END || ps->tok->kind == JTOK_RPAREN ||
           (end_name && jparse_is_name(ps, end_name));
}

struct jnode *jparse_tuple(struct jparse *ps, bool cond, const char *end_name)
{
    return tuple_of(ps, tuple_ends, end_name, cond ? jparse_expression : jparse_or, false);
}

static struct jnode *parenthesised(struct jparse *ps)
{
    ps->tok++;
    struct jnode *n = tuple_of(ps, tuple_ends, NULL, jparse_expression, true);
    jparse_expect(ps, JTOK_RPAREN);
    return n;
}

static struct jnode *primary(struct jparse *ps)
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
        return name_node(ps, t);
    case JTOK_STRING:
        return strings(ps);
    case JTOK_INT:
    case JTOK_FLOAT:
        ps->tok++;
        return const_node(ps, t->line, t->num);
    case JTOK_LPAREN:
        return parenthesised(ps);
    case JTOK_LBRACKET:
        return list_literal(ps);
    case JTOK_LBRACE:
        return dict_literal(ps);
    default:
        jparse_fail(ps, "unexpected '%s'", jlex_describe(t->kind));
    }
}

static void keyword_arg(struct jparse *ps, struct jcall_args *args, struct jnodes *kw, struct jnodes *names)
{
    const struct jtok *t = ps->tok;
    for (size_t i = 0; i < names->n; i++)
        if (jstr_eq(names->v[i]->name.id, t->s))
            jparse_fail(ps, "keyword argument repeated: %.*s", (int)t->s->n, t->s->p);
    jnodes_add(ps, names, name_node(ps, t));
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
            keyword_arg(ps, args, &kw, &names);
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
    return getitem(ps, line, obj, seq_node(ps, J_NODE_TUPLE, line, &subs));
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
    jnodes_add(ps, &arg, postfix(ps, primary(ps)));
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
    return negated ? unary(ps, JOP_NOT, line, n) : n;
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

static struct jnode *unary_expr(struct jparse *ps, bool with_filter)
{
    int line = ps->tok->line;
    struct jnode *n;
    jparse_deeper(ps);
    if (jparse_skip(ps, JTOK_SUB))
        n = unary(ps, JOP_NEG, line, unary_expr(ps, false));
    else if (jparse_skip(ps, JTOK_ADD))
        n = unary(ps, JOP_POS, line, unary_expr(ps, false));
    else
        n = primary(ps);
    n = postfix(ps, n);
    if (with_filter)
        n = filters_and_tests(ps, n);
    jrt_leave(ps->rt);
    return n;
}

static bool is_literal(const struct jnode *n)
{
    return n->kind == J_NODE_CONST || (n->kind == J_NODE_UNARY && n->bin.left->kind == J_NODE_CONST);
}

static struct jnode *power(struct jparse *ps) /* left-associative, unlike Python's */
{
    int line = ps->tok->line;
    struct jnode *n = unary_expr(ps, true);
    while (jparse_skip(ps, JTOK_POW)) {
        struct jnode *right = unary_expr(ps, true);
        /* jinja2 turns -2 ** x into Python code that means -(2 ** x), unless it can compute the value itself. */
        bool negated = n->kind == J_NODE_UNARY && n->op == JOP_NEG && is_literal(n) && !is_literal(right);
        n = binary(ps, J_NODE_BINARY, JOP_POW, line, negated ? n->bin.left : n, right);
        if (negated)
            n = unary(ps, JOP_NEG, line, n);
    }
    return n;
}

static struct jnode *product(struct jparse *ps)
{
    int line = ps->tok->line;
    struct jnode *n = power(ps);
    for (;;) {
        enum jop op;
        if (ps->tok->kind == JTOK_MUL)
            op = JOP_MUL;
        else if (ps->tok->kind == JTOK_DIV)
            op = JOP_DIV;
        else if (ps->tok->kind == JTOK_FLOORDIV)
            op = JOP_FLOORDIV;
        else if (ps->tok->kind == JTOK_MOD)
            op = JOP_MOD;
        else
            return n;
        ps->tok++;
        n = binary(ps, J_NODE_BINARY, op, line, n, power(ps));
    }
}

static struct jnode *concat(struct jparse *ps)
{
    int line = ps->tok->line;
    struct jnodes items = {0};
    struct jnode *first = product(ps);
    if (ps->tok->kind != JTOK_TILDE)
        return first;
    jnodes_add(ps, &items, first);
    while (jparse_skip(ps, JTOK_TILDE))
        jnodes_add(ps, &items, product(ps));
    return seq_node(ps, J_NODE_CONCAT, line, &items);
}

static struct jnode *sum(struct jparse *ps)
{
    int line = ps->tok->line;
    struct jnode *n = concat(ps);
    while (ps->tok->kind == JTOK_ADD || ps->tok->kind == JTOK_SUB) {
        enum jop op = (ps->tok++)->kind == JTOK_ADD ? JOP_ADD : JOP_SUB;
        n = binary(ps, J_NODE_BINARY, op, line, n, concat(ps));
    }
    return n;
}

/* The comparison that stands here, its tokens consumed; JOP_ADD for none. */
static enum jop comparison_op(struct jparse *ps)
{
    static const struct {
        enum jtok_kind kind;
        enum jop op;
    } ops[] = {{JTOK_EQ, JOP_EQ}, {JTOK_NE, JOP_NE}, {JTOK_LT, JOP_LT},
               {JTOK_LE, JOP_LE}, {JTOK_GT, JOP_GT}, {JTOK_GE, JOP_GE}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (jparse_skip(ps, ops[i].kind))
            return ops[i].op;
    if (jparse_skip_name(ps, "in"))
        return JOP_IN;
    if (jparse_is_name(ps, "not") && ps->tok[1].kind == JTOK_NAME && jstr_is(ps->tok[1].s, "in")) {
        ps->tok += 2;
        return JOP_NOTIN;
    }
    return JOP_ADD;
}

static struct jnode *comparison(struct jparse *ps)
{
    int line = ps->tok->line;
    struct jnodes items = {0};
    struct jbuf ops = {0};
    struct jnode *first = sum(ps);
    for (enum jop op; (op = comparison_op(ps)) != JOP_ADD;) {
        if (!items.n)
            jnodes_add(ps, &items, first);
        jbuf_putc(ps->rt, &ops, (char)op);
        jnodes_add(ps, &items, sum(ps));
    }
    if (!items.n)
        return first;
    struct jnode *n = seq_node(ps, J_NODE_COMPARE, line, &items);
    n->seq.op = (uint8_t *)ops.p;
    return n;
}

static struct jnode *not_expr(struct jparse *ps)
{
    if (!jparse_is_name(ps, "not"))
        return comparison(ps);
    int line = (ps->tok++)->line;
    jparse_deeper(ps);
    struct jnode *n = unary(ps, JOP_NOT, line, not_expr(ps));
    jrt_leave(ps->rt);
    return n;
}

static struct jnode *and_expr(struct jparse *ps)
{
    int line = ps->tok->line;
    struct jnode *n = not_expr(ps);
    while (jparse_skip_name(ps, "and"))
        n = binary(ps, J_NODE_AND, JOP_AND, line, n, not_expr(ps));
    return n;
}

struct jnode *jparse_or(struct jparse *ps)
{
    int line = ps->tok->line;
    struct jnode *n = and_expr(ps);
    while (jparse_skip_name(ps, "or"))
        n = binary(ps, J_NODE_OR, JOP_OR, line, n, and_expr(ps));
    return n;
}

struct jnode *jparse_expression(struct jparse *ps)
{
    int line = ps->tok->line;
    jparse_deeper(ps);
    struct jnode *n = jparse_or(ps);
    while (jparse_skip_name(ps, "if")) {
        struct jnode *c = jparse_node(ps, J_NODE_COND, line);
        c->cond.yes = n;
        c->cond.test = jparse_or(ps);
        if (jparse_skip_name(ps, "else"))
            c->cond.no = jparse_expression(ps);
        jparse_raise(ps, c, c->cond.yes);
        jparse_raise(ps, c, c->cond.test);
        jparse_raise(ps, c, c->cond.no);
        n = c;
        line = ps->tok->line;
    }
    jrt_leave(ps->rt);
    return n;
}

static void check_target(struct jparse *ps, const struct jnode *n)
{
    if (n->kind == J_NODE_TUPLE)
        for (size_t i = 0; i < n->seq.n; i++)
            check_target(ps, n->seq.item[i]);
    else if (n->kind != J_NODE_NAME && n->kind != J_NODE_NSREF)
        jparse_fail(ps, "can't assign to this expression");
}

static struct jnode *target_item(struct jparse *ps)
{
    return primary(ps);
}

static struct jnode *target_item_or_nsref(struct jparse *ps)
{
    if (ps->tok->kind != JTOK_NAME || ps->tok[1].kind != JTOK_DOT)
        return primary(ps);
    struct jnode *n = jparse_node(ps, J_NODE_NSREF, ps->tok->line);
    n->nsref.obj.id = ps->tok->s;
    n->nsref.obj.undef.name = jval_str(ps->tok->s);
    ps->tok += 2;
    n->nsref.attr = jparse_expect(ps, JTOK_NAME)->s;
    return n;
}

struct jnode *jparse_target(struct jparse *ps, const char *end_name, bool ns)
{
    struct jnode *n = tuple_of(ps, tuple_ends, end_name, ns ? target_item_or_nsref : target_item, false);
    check_target(ps, n);
    return n;
}

struct jnode *jparse_target_name(struct jparse *ps)
{
    return name_node(ps, jparse_expect(ps, JTOK_NAME));
}
