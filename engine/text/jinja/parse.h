/* From tokens to the syntax tree. The grammar is jinja2's (parser.py), one function per rule. For engine/text/jinja
 * only. */
#ifndef GALLEY_JINJA_PARSE_H
#define GALLEY_JINJA_PARSE_H

#include "ast.h"
#include "lex.h"

enum { JPARSE_HEIGHT_MAX = 400, JPARSE_DEPTH_MAX = 150 };

struct jparse {
    struct jrt *rt;
    const struct jtok *tok; /* the current one */
    int n_loop;             /* loops around the current statement, within the same macro */
};

struct jtree *jparse_template(struct jrt *rt, const struct jtok *tok);

/* parse.c: shared. */
_Noreturn void jparse_fail(struct jparse *ps, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct jnode *jparse_node(struct jparse *ps, enum jnode_kind kind, int line);
void jparse_raise(struct jparse *ps, struct jnode *n, const struct jnode *child); /* n is at least one higher */
void jparse_deeper(struct jparse *ps); /* with jrt_leave(): bounds the recursion of the parser */
bool jparse_is_name(const struct jparse *ps, const char *name);
bool jparse_skip_name(struct jparse *ps, const char *name);
bool jparse_skip(struct jparse *ps, enum jtok_kind kind);
const struct jtok *jparse_expect(struct jparse *ps, enum jtok_kind kind);

struct jnode *jparse_binary(struct jparse *ps, enum jnode_kind kind, enum jop op, int line, struct jnode *l,
                            struct jnode *r);
struct jnode *jparse_unary(struct jparse *ps, enum jop op, int line, struct jnode *on);
struct jnode *jparse_name(struct jparse *ps, const struct jtok *t);

/* parse_primary.c */
struct jnode *jparse_primary(struct jparse *ps);
struct jnode *jparse_unary_expr(struct jparse *ps, bool with_filter);
/* Filters after a value: `on` may be NULL, for the text of a block; `inline_start`: the first has no | before it. */
struct jnode *jparse_filters(struct jparse *ps, struct jnode *on, bool inline_start);

/* parse_expr.c */
struct jnode *jparse_parenthesised(struct jparse *ps);
struct jnode *jparse_expression(struct jparse *ps);
struct jnode *jparse_or(struct jparse *ps); /* an expression that is not a bare conditional */
/* One expression, or a tuple without parentheses. `cond`: whether a conditional expression may stand there;
 * `end_name`: a name that ends it ("in", "recursive"), or NULL. */
struct jnode *jparse_tuple(struct jparse *ps, bool cond, const char *end_name);
/* What may be assigned to. `ns`: ns.attr is allowed. */
struct jnode *jparse_target(struct jparse *ps, const char *end_name, bool ns);
struct jnode *jparse_target_name(struct jparse *ps);
/* Growing arrays of nodes while parsing. */
struct jnodes {
    struct jnode **v;
    size_t n, cap;
};
void jnodes_add(struct jparse *ps, struct jnodes *a, struct jnode *n);
struct jnode *jparse_seq(struct jparse *ps, enum jnode_kind kind, int line, const struct jnodes *items);

#endif
