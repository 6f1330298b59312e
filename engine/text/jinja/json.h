/* JSON in (the caller's variables) and out (the tojson filter, as Python's json.dumps writes). For engine/text/jinja
 * only. */
#ifndef GALLEY_JINJA_JSON_H
#define GALLEY_JINJA_JSON_H

#include "value.h"

struct jjson_style {
    bool ascii, sort_keys;
    const struct jstr *indent; /* NULL: all on one line */
    const struct jstr *item_sep, *key_sep;
};

void jjson_write(struct jrt *rt, struct jbuf *b, struct jval v, const struct jjson_style *how);
struct jval jjson_read(struct jrt *rt, json_t *j); /* strings are referenced, not copied */

#endif
