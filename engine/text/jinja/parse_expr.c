/* Expressions: the operators, loosest-binding rule last; tuples and targets of assignments. */
#include "parse.h"

static bool is_literal(const struct jnode *n)
{
    return n->kind == J_NODE_CONST || (n->kind == J_NODE_UNARY && n->bin.left->kind == J_NODE_CONST);
}

static struct jnode *power(struct jparse *ps) /* left-associative, unlike Python's */
{
    int line = ps->tok->line;
    struct jnode *n = jparse_unary_expr(ps, true);
    while (jparse_skip(ps, JTOK_POW)) {
        struct jnode *right = jparse_unary_expr(ps, true);
        /* jinja2 turns -2 ** x into Python code that means -(2 ** x), unless it can compute the value itself. */
        bool negated = n->kind == J_NODE_UNARY && n->op == JOP_NEG && is_literal(n) && !is_literal(right);
        n = jparse_binary(ps, J_NODE_BINARY, JOP_POW, line, negated ? n->bin.left : n, right);
        if (negated)
            n = jparse_unary(ps, JOP_NEG, line, n);
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
        n = jparse_binary(ps, J_NODE_BINARY, op, line, n, power(ps));
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
    return jparse_seq(ps, J_NODE_CONCAT, line, &items);
}

static struct jnode *sum(struct jparse *ps)
{
    int line = ps->tok->line;
    struct jnode *n = concat(ps);
    while (ps->tok->kind == JTOK_ADD || ps->tok->kind == JTOK_SUB) {
        enum jop op = (ps->tok++)->kind == JTOK_ADD ? JOP_ADD : JOP_SUB;
        n = jparse_binary(ps, J_NODE_BINARY, op, line, n, concat(ps));
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
    struct jnode *n = jparse_seq(ps, J_NODE_COMPARE, line, &items);
    n->seq.op = (uint8_t *)ops.p;
    return n;
}

static struct jnode *not_expr(struct jparse *ps)
{
    if (!jparse_is_name(ps, "not"))
        return comparison(ps);
    int line = (ps->tok++)->line;
    jparse_deeper(ps);
    struct jnode *n = jparse_unary(ps, JOP_NOT, line, not_expr(ps));
    jrt_leave(ps->rt);
    return n;
}

static struct jnode *and_expr(struct jparse *ps)
{
    int line = ps->tok->line;
    struct jnode *n = not_expr(ps);
    while (jparse_skip_name(ps, "and"))
        n = jparse_binary(ps, J_NODE_AND, JOP_AND, line, n, not_expr(ps));
    return n;
}

struct jnode *jparse_or(struct jparse *ps)
{
    int line = ps->tok->line;
    struct jnode *n = and_expr(ps);
    while (jparse_skip_name(ps, "or"))
        n = jparse_binary(ps, J_NODE_OR, JOP_OR, line, n, and_expr(ps));
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
    return jparse_seq(ps, J_NODE_TUPLE, line, &items);
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

struct jnode *jparse_parenthesised(struct jparse *ps)
{
    ps->tok++;
    struct jnode *n = tuple_of(ps, tuple_ends, NULL, jparse_expression, true);
    jparse_expect(ps, JTOK_RPAREN);
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

static struct jnode *target_item_or_nsref(struct jparse *ps)
{
    if (ps->tok->kind != JTOK_NAME || ps->tok[1].kind != JTOK_DOT)
        return jparse_primary(ps);
    struct jnode *n = jparse_node(ps, J_NODE_NSREF, ps->tok->line);
    n->nsref.obj.id = ps->tok->s;
    n->nsref.obj.undef.name = jval_str(ps->tok->s);
    ps->tok += 2;
    n->nsref.attr = jparse_expect(ps, JTOK_NAME)->s;
    return n;
}

struct jnode *jparse_target(struct jparse *ps, const char *end_name, bool ns)
{
    struct jnode *n = tuple_of(ps, tuple_ends, end_name, ns ? target_item_or_nsref : jparse_primary, false);
    check_target(ps, n);
    return n;
}

struct jnode *jparse_target_name(struct jparse *ps)
{
    return jparse_name(ps, jparse_expect(ps, JTOK_NAME));
}
