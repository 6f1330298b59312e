/* Statements. */
#include "parse.h"

static struct jblock block_of(const struct jnodes *a)
{
    return (struct jblock){.stmt = a->v, .n = a->n};
}

static void raise_to_block(struct jparse *ps, struct jnode *n, const struct jblock *b)
{
    for (size_t i = 0; i < b->n; i++)
        jparse_raise(ps, n, b->stmt[i]);
}

static bool is_end(const struct jparse *ps, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (jparse_is_name(ps, *ends))
            return true;
    return false;
}

static struct jnode *statement(struct jparse *ps);

static void flush_output(struct jparse *ps, struct jnodes *pieces, struct jnodes *body)
{
    if (!pieces->n)
        return;
    struct jnode *n = jparse_node(ps, J_NODE_OUTPUT, pieces->v[0]->line);
    n->seq.item = pieces->v;
    n->seq.n = pieces->n;
    for (size_t i = 0; i < pieces->n; i++)
        jparse_raise(ps, n, pieces->v[i]);
    jnodes_add(ps, body, n);
    *pieces = (struct jnodes){0};
}

/* Text, outputs and statements up to one of the tags in `ends`, whose name is left as the current token; or, without
 * `ends`, up to the end of the template. */
static struct jblock subparse(struct jparse *ps, const char *const *ends)
{
    struct jnodes body = {0}, pieces = {0};
    jparse_deeper(ps);
    while (ps->tok->kind != JTOK_EOF) {
        if (ps->tok->kind == JTOK_DATA) {
            struct jnode *n = jparse_node(ps, J_NODE_CONST, ps->tok->line);
            n->value = jval_str((ps->tok++)->s);
            jnodes_add(ps, &pieces, n);
        } else if (jparse_skip(ps, JTOK_VAR_BEGIN)) {
            jnodes_add(ps, &pieces, jparse_tuple(ps, true, NULL));
            jparse_expect(ps, JTOK_VAR_END);
        } else {
            flush_output(ps, &pieces, &body);
            jparse_expect(ps, JTOK_BLOCK_BEGIN);
            if (is_end(ps, ends))
                break;
            jnodes_add(ps, &body, statement(ps));
            jparse_expect(ps, JTOK_BLOCK_END);
        }
    }
    if (ends && ps->tok->kind == JTOK_EOF)
        jparse_fail(ps, "Unexpected end of template. Jinja was looking for the following tags: '%s'.", ends[0]);
    flush_output(ps, &pieces, &body);
    jrt_leave(ps->rt);
    return block_of(&body);
}

/* The body of a statement: from after its tag to one of `ends`, a NULL-terminated list. */
static struct jblock body_until(struct jparse *ps, const char *const *ends)
{
    jparse_skip(ps, JTOK_COLON);
    jparse_expect(ps, JTOK_BLOCK_END);
    return subparse(ps, ends);
}

static struct jblock body_to(struct jparse *ps, const char *end)
{
    const char *const ends[] = {end, NULL};
    struct jblock b = body_until(ps, ends);
    ps->tok++;
    return b;
}

static struct jnode *parse_for(struct jparse *ps)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    struct jnode *n = jparse_node(ps, J_NODE_FOR, (ps->tok++)->line);
    n->loop.target = jparse_target(ps, "in", false);
    if (!jparse_skip_name(ps, "in"))
        jparse_fail(ps, "expected token 'in'");
    n->loop.iter = jparse_tuple(ps, false, "recursive");
    if (jparse_skip_name(ps, "if"))
        n->loop.test = jparse_expression(ps);
    n->loop.recursive = jparse_skip_name(ps, "recursive");
    ps->n_loop++;
    n->loop.body = body_until(ps, ends);
    ps->n_loop--;
    if (jparse_skip_name(ps, "else"))
        n->loop.orelse = body_to(ps, "endfor");
    else
        ps->tok++;
    jparse_raise(ps, n, n->loop.iter);
    jparse_raise(ps, n, n->loop.test);
    jparse_raise(ps, n, n->loop.target);
    raise_to_block(ps, n, &n->loop.body);
    raise_to_block(ps, n, &n->loop.orelse);
    return n;
}

static struct jnode *parse_if(struct jparse *ps)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct jnode *n = jparse_node(ps, J_NODE_IF, (ps->tok++)->line), *branch = n;
    struct jnodes elifs = {0};
    for (;;) {
        branch->cond_stmt.test = jparse_tuple(ps, false, NULL);
        branch->cond_stmt.body = body_until(ps, ends);
        jparse_raise(ps, n, branch->cond_stmt.test);
        raise_to_block(ps, n, &branch->cond_stmt.body);
        if (!jparse_is_name(ps, "elif"))
            break;
        branch = jparse_node(ps, J_NODE_IF, (ps->tok++)->line);
        jnodes_add(ps, &elifs, branch);
    }
    if (jparse_skip_name(ps, "else"))
        n->cond_stmt.orelse = body_to(ps, "endif");
    else
        ps->tok++;
    n->cond_stmt.elif = block_of(&elifs);
    raise_to_block(ps, n, &n->cond_stmt.orelse);
    return n;
}

static struct jnode *parse_set(struct jparse *ps)
{
    int line = (ps->tok++)->line;
    struct jnode *target = jparse_target(ps, NULL, true);
    bool is_block = !jparse_skip(ps, JTOK_ASSIGN);
    struct jnode *n = jparse_node(ps, is_block ? J_NODE_SETBLOCK : J_NODE_SET, line);
    n->set.target = target;
    n->set.value = is_block ? jparse_filters(ps, NULL, false) : jparse_tuple(ps, true, NULL);
    if (is_block)
        n->set.body = body_to(ps, "endset");
    jparse_raise(ps, n, n->set.target);
    jparse_raise(ps, n, n->set.value);
    raise_to_block(ps, n, &n->set.body);
    return n;
}

/* (a, b=1) of a macro or a call block. */
static void signature(struct jparse *ps, struct jnode *n)
{
    struct jnodes param = {0}, fallback = {0};
    jparse_expect(ps, JTOK_LPAREN);
    while (ps->tok->kind != JTOK_RPAREN) {
        if (param.n)
            jparse_expect(ps, JTOK_COMMA);
        struct jnode *p = jparse_target_name(ps);
        for (size_t i = 0; i < param.n; i++)
            if (jstr_eq(param.v[i]->name.id, p->name.id))
                jparse_fail(ps, "duplicate argument '%.*s'", (int)p->name.id->n, p->name.id->p);
        if (jparse_skip(ps, JTOK_ASSIGN)) {
            jnodes_add(ps, &fallback, jparse_expression(ps));
            jparse_raise(ps, n, fallback.v[fallback.n - 1]);
        } else if (fallback.n) {
            jparse_fail(ps, "non-default argument follows default argument");
        }
        jnodes_add(ps, &param, p);
    }
    ps->tok++;
    n->macro.param = param.v;
    n->macro.n_param = param.n;
    n->macro.fallback = fallback.v;
    n->macro.n_fallback = fallback.n;
}

/* A macro's body is a function of its own: loops around it cannot be broken out of. */
static void macro_body(struct jparse *ps, struct jnode *n, const char *end)
{
    int n_loop = ps->n_loop;
    ps->n_loop = 0;
    n->macro.body = body_to(ps, end);
    ps->n_loop = n_loop;
    raise_to_block(ps, n, &n->macro.body);
}

static struct jnode *parse_macro(struct jparse *ps)
{
    struct jnode *n = jparse_node(ps, J_NODE_MACRO, (ps->tok++)->line);
    n->macro.name = jparse_target_name(ps)->name.id;
    signature(ps, n);
    macro_body(ps, n, "endmacro");
    return n;
}

static struct jnode *parse_call_block(struct jparse *ps)
{
    int line = (ps->tok++)->line;
    struct jnode *n = jparse_node(ps, J_NODE_CALLBLOCK, line), *macro = jparse_node(ps, J_NODE_MACRO, line);
    if (ps->tok->kind == JTOK_LPAREN)
        signature(ps, macro);
    n->callblock.macro = macro;
    n->callblock.call = jparse_expression(ps);
    if (n->callblock.call->kind != J_NODE_CALL)
        jparse_fail(ps, "expected call");
    macro_body(ps, macro, "endcall");
    jparse_raise(ps, n, macro);
    jparse_raise(ps, n, n->callblock.call);
    return n;
}

static struct jnode *parse_filter_block(struct jparse *ps)
{
    struct jnode *n = jparse_node(ps, J_NODE_FILTERBLOCK, (ps->tok++)->line);
    n->scope.filter = jparse_filters(ps, NULL, true);
    n->scope.body = body_to(ps, "endfilter");
    jparse_raise(ps, n, n->scope.filter);
    raise_to_block(ps, n, &n->scope.body);
    return n;
}

static struct jnode *parse_with(struct jparse *ps)
{
    struct jnode *n = jparse_node(ps, J_NODE_WITH, (ps->tok++)->line);
    struct jnodes target = {0}, value = {0};
    while (ps->tok->kind != JTOK_BLOCK_END) {
        if (target.n)
            jparse_expect(ps, JTOK_COMMA);
        jnodes_add(ps, &target, jparse_target(ps, NULL, false));
        jparse_expect(ps, JTOK_ASSIGN);
        jnodes_add(ps, &value, jparse_expression(ps));
        jparse_raise(ps, n, value.v[value.n - 1]);
    }
    n->scope.target = target.v;
    n->scope.value = value.v;
    n->scope.n_target = target.n;
    n->scope.body = body_to(ps, "endwith");
    raise_to_block(ps, n, &n->scope.body);
    return n;
}

/* {% generation %} marks what the assistant said, for training; the text is the same. */
static struct jnode *parse_generation(struct jparse *ps)
{
    struct jnode *n = jparse_node(ps, J_NODE_SCOPE, (ps->tok++)->line);
    int n_loop = ps->n_loop;
    ps->n_loop = 0;
    n->scope.body = body_to(ps, "endgeneration");
    ps->n_loop = n_loop;
    raise_to_block(ps, n, &n->scope.body);
    return n;
}

static struct jnode *parse_print(struct jparse *ps)
{
    struct jnode *n = jparse_node(ps, J_NODE_OUTPUT, (ps->tok++)->line);
    struct jnodes pieces = {0};
    while (ps->tok->kind != JTOK_BLOCK_END) {
        if (pieces.n)
            jparse_expect(ps, JTOK_COMMA);
        jnodes_add(ps, &pieces, jparse_expression(ps));
        jparse_raise(ps, n, pieces.v[pieces.n - 1]);
    }
    n->seq.item = pieces.v;
    n->seq.n = pieces.n;
    return n;
}

static struct jnode *parse_loop_control(struct jparse *ps)
{
    bool is_break = jparse_is_name(ps, "break");
    if (!ps->n_loop)
        jparse_fail(ps, "'%s' outside a loop", is_break ? "break" : "continue");
    return jparse_node(ps, is_break ? J_NODE_BREAK : J_NODE_CONTINUE, (ps->tok++)->line);
}

static struct jnode *statement(struct jparse *ps)
{
    static const struct {
        const char *tag;
        struct jnode *(*parse)(struct jparse *);
    } tags[] = {
        {"for", parse_for},
        {"if", parse_if},
        {"set", parse_set},
        {"macro", parse_macro},
        {"call", parse_call_block},
        {"filter", parse_filter_block},
        {"with", parse_with},
        {"generation", parse_generation},
        {"print", parse_print},
        {"break", parse_loop_control},
        {"continue", parse_loop_control},
    };
    static const char *const unsupported[] = {"block", "extends", "include", "import", "from", "autoescape", NULL};
    if (ps->tok->kind != JTOK_NAME)
        jparse_fail(ps, "tag name expected");
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (jparse_is_name(ps, tags[i].tag))
            return tags[i].parse(ps);
    if (is_end(ps, unsupported))
        jparse_fail(ps, "'%.*s' is not supported in chat templates", (int)ps->tok->s->n, ps->tok->s->p);
    jparse_fail(ps, "Encountered unknown tag '%.*s'.", (int)ps->tok->s->n, ps->tok->s->p);
}

struct jtree *jparse_template(struct jrt *rt, const struct jtok *tok)
{
    struct jparse ps = {.rt = rt, .tok = tok};
    struct jtree *t = jrt_alloc(rt, sizeof *t);
    t->body = subparse(&ps, NULL);
    return t;
}
