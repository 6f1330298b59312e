/* str() and repr() of values, HTML escaping. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_TEXT_H
#define GALLEY_JINJA_TEXT_H

#include "value.h"

void jtext_str(struct jrt *rt, struct jbuf *b, struct jval v); /* what {{ v }} prints */
void jtext_repr(struct jrt *rt, struct jbuf *b, struct jval v);
struct jstr *jtext_of(struct jrt *rt, struct jval v); /* str(v), no copy if v is a string */

/* HTML escaping as markupsafe does it. */
void jtext_escape(struct jrt *rt, struct jbuf *b, const struct jstr *s);
struct jval jtext_escaped(struct jrt *rt, struct jval v); /* a Markup of str(v); a Markup stays as it is */

#endif
