/* Evaluation of a compiled template. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_EVAL_H
#define GALLEY_JINJA_EVAL_H

#include "ast.h"
#include "loop.h"

/* The variables of the running template, macro or recursive loop. Macros keep the one they were defined in. */
struct jact {
    struct jact *up;
    struct jval slot[]; /* J_MISSING: not set */
};

void jeval_template(struct jrt *rt, const struct jtree *t); /* writes to rt->out */

struct jval jeval_expr(struct jrt *rt, const struct jnode *n);
struct jval jeval_filter(struct jrt *rt, const struct jnode *n,
                         struct jval on); /* J_NODE_FILTER, whose innermost input is `on` */
void jeval_args(struct jrt *rt, const struct jcall_args *a, struct jargs *out);
void jeval_assign(struct jrt *rt, const struct jnode *target, struct jval v);
struct jval *jeval_slot(struct jrt *rt, struct jslot s);
void jeval_enter(struct jrt *rt, const struct jframe *f); /* sets the variables of a block to how they start out */
void jeval_exit(struct jrt *rt, const struct jframe *f);

/* Statements, for calls back from expressions. */
struct jval jeval_call_macro(struct jrt *rt, struct jmacro *m, const struct jargs *args);
struct jval jeval_recurse(struct jrt *rt, struct jloop *l, struct jval iterable);

/* call.c */
struct jval jcall(struct jrt *rt, struct jval callee, const struct jargs *args);
/* A filter or a test by its name, as map('upper') and select('odd') do. */
struct jval jcall_filter(struct jrt *rt, const struct jstr *name, struct jval on, const struct jargs *args);
bool jcall_test(struct jrt *rt, const struct jstr *name, struct jval on, const struct jargs *args);

/* access.c: obj.name, obj[sub], obj[a:b:c] as jinja2's sandbox resolves them. Undefined when there is nothing. */
struct jval jaccess_attr(struct jrt *rt, struct jval obj, struct jstr *name);
struct jval jaccess_item(struct jrt *rt, struct jval obj, struct jval sub);
struct jval jaccess_slice(struct jrt *rt, struct jval obj, struct jval start, struct jval stop, struct jval step);

#endif
