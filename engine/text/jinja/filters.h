/* The filters, for the table in filters.c. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_FILTERS_H
#define GALLEY_JINJA_FILTERS_H

#include "builtin.h"

#define JFILTER(name)                                                                                                  \
    struct jval jfilter_##name(struct jrt *rt, struct jval self, const struct jval *arg, const struct jargs *all)

/* filters_text.c */
JFILTER(capitalize);
JFILTER(center);
JFILTER(escape);
JFILTER(forceescape);
JFILTER(format);
JFILTER(indent);
JFILTER(lower);
JFILTER(replace);
JFILTER(safe);
JFILTER(string);
JFILTER(striptags);
JFILTER(title);
JFILTER(tojson);
JFILTER(trim);
JFILTER(truncate);
JFILTER(upper);
JFILTER(urlencode);
JFILTER(wordcount);

/* filters_num.c */
JFILTER(abs);
JFILTER(float);
JFILTER(int);
JFILTER(round);
JFILTER(sum);

/* filters_seq.c */
JFILTER(attr);
JFILTER(default);
JFILTER(dictsort);
JFILTER(first);
JFILTER(groupby);
JFILTER(join);
JFILTER(last);
JFILTER(length);
JFILTER(list);
JFILTER(max);
JFILTER(min);
JFILTER(reverse);
JFILTER(sort);

/* filters_lazy.c */
JFILTER(batch);
JFILTER(items);
JFILTER(map);
JFILTER(reject);
JFILTER(rejectattr);
JFILTER(select);
JFILTER(selectattr);
JFILTER(slice);
JFILTER(unique);

/* "a.b.0" as sort(attribute=...) and others take it: a path of subscripts, with what to do to the value found. */
struct jpath {
    struct jval *part;
    size_t n;
    bool fold;           /* strings compare without case */
    struct jval missing; /* stands for what is undefined on the way; J_MISSING: undefined stays */
};
struct jpath jpath_of(struct jrt *rt, struct jval attribute, bool fold);
struct jval jpath_get(struct jrt *rt, const struct jpath *path, struct jval item);

#endif
