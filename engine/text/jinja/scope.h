/* Which variable a name means: gives every name of the tree a slot, and finds filters and tests. For engine/text/jinja
 * only.
 *
 * jinja2 decides this when it compiles a template (idtracking.py), not while it runs, and templates can tell: a loop
 * body that sets a name has a variable of its own, fresh in each turn, which starts as a copy of the outer one; a name
 * that is set without ever being read first starts unset, even if the caller passed a variable of that name. */
#ifndef GALLEY_JINJA_SCOPE_H
#define GALLEY_JINJA_SCOPE_H

#include "ast.h"

void jscope_resolve(struct jrt *rt, struct jtree *t);

/* Does anything in the block, inner blocks included, read `name` before something sets it? (scope_mention.c) */
bool jscope_mentions(const struct jblock *b, const char *name);

#endif
