/* Python's two ways of formatting: '%s' % x and '{}'.format(x). For engine/text/jinja only. */
#ifndef GALLEY_JINJA_FORMAT_H
#define GALLEY_JINJA_FORMAT_H

#include "builtin.h"

struct jval jformat_percent(struct jrt *rt, struct jval format, struct jval args);
struct jval jformat_braces(struct jrt *rt, struct jval format, const struct jval *pos, size_t n_pos,
                           const struct jargs *named);

/* Shared by both: one value, laid out. */
struct jformat_spec {
    uint32_t fill;  /* code point, ' ' by default */
    char align;     /* '<' '>' '^', '=' (padding after the sign), or 0 for the type's own */
    char sign;      /* '+' ' ' or '-' */
    bool alternate; /* '#' */
    char group;     /* ',' '_' or 0 */
    char type;      /* 0: by the value */
    int64_t width;
    int64_t precision;  /* -1: not given */
    int64_t min_digits; /* of an integer */
};
void jformat_int(struct jrt *rt, struct jbuf *b, const struct jformat_spec *spec, int64_t i);
void jformat_float(struct jrt *rt, struct jbuf *b, const struct jformat_spec *spec, double f);
void jformat_text(struct jrt *rt, struct jbuf *b, const struct jformat_spec *spec, const struct jstr *s);
void jformat_ascii(struct jrt *rt, struct jbuf *b, struct jval v); /* ascii(v) */

#endif
