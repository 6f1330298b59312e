/* What string methods and string filters have in common. Results keep the Markup mark of their input unless said
 * otherwise. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_STR_OPS_H
#define GALLEY_JINJA_STR_OPS_H

#include "ustr.h"

struct jval strop_slice(struct jrt *rt, struct jval s, size_t from, size_t to); /* bytes */
/* chars absent: whitespace. */
struct jval strop_strip(struct jrt *rt, struct jval s, struct jval chars, bool left, bool right);
/* n_max < 0: all. */
struct jval strop_replace(struct jrt *rt, struct jval s, const struct jstr *from, const struct jstr *to, int64_t n_max);
struct jval strop_case(struct jrt *rt, struct jval s, enum ustr_case how);
struct jval strop_capitalize(struct jrt *rt, struct jval s);
struct jval strop_title(struct jrt *rt, struct jval s);
struct jval strop_swapcase(struct jrt *rt, struct jval s);
/* To a width in code points, `left` and `right` of the text: both is center(). */
struct jval strop_pad(struct jrt *rt, struct jval s, int64_t width, struct jval fill, bool left, bool right);
struct jlist *strop_splitlines(struct jrt *rt, struct jval s, bool keep_ends);
/* sep absent: runs of whitespace. n_max < 0: all. */
struct jlist *strop_split(struct jrt *rt, struct jval s, struct jval sep, int64_t n_max);
struct jlist *strop_rsplit(struct jrt *rt, struct jval s, struct jval sep, int64_t n_max);
struct jval strop_join(struct jrt *rt, const struct jstr *sep, struct jval items);

#endif
