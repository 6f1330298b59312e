/* str(), repr() and JSON of values. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_TEXT_H
#define GALLEY_JINJA_TEXT_H

#include "value.h"

void jtext_str(struct jrt *rt, struct jbuf *b, struct jval v);  /* what {{ v }} prints */
void jtext_repr(struct jrt *rt, struct jbuf *b, struct jval v);
struct jstr *jtext_of(struct jrt *rt, struct jval v); /* str(v), no copy if v is a string */

/* HTML escaping as markupsafe does it. */
void jtext_escape(struct jrt *rt, struct jbuf *b, const struct jstr *s);
struct jval jtext_escaped(struct jrt *rt, struct jval v); /* a Markup of str(v); a Markup stays as it is */

struct jtext_json {
    bool ascii, sort_keys;
    const struct jstr *indent; /* NULL: all on one line */
    const struct jstr *item_sep, *key_sep;
};
void jtext_to_json(struct jrt *rt, struct jbuf *b, struct jval v, const struct jtext_json *how);

struct jval jtext_from_json(struct jrt *rt, json_t *j); /* strings are referenced, not copied */

#endif
