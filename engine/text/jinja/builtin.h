/* What templates call by name: filters, tests, methods and global functions share one shape and one way of binding
 * arguments to parameters. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_BUILTIN_H
#define GALLEY_JINJA_BUILTIN_H

#include "value.h"

struct jkw {
    const struct jstr *name;
    struct jval v;
};

struct jargs {
    struct jval *pos;
    size_t n_pos;
    struct jkw *kw;
    size_t n_kw;
};

enum { JBUILTIN_ARG_MAX = 8, JBUILTIN_ANY = 127 };

struct jbuiltin {
    const char *name;
    /* `arg` holds one value for each parameter, J_MISSING where none was given; with JBUILTIN_ANY parameters it is NULL
     * and the arguments are as they were passed, in `all`. `self` is what the filter, test or method applies to. */
    struct jval (*call)(struct jrt *rt, struct jval self, const struct jval *arg, const struct jargs *all);
    int8_t n_min, n_max;
    const char *params; /* names, space-separated, for keyword arguments; NULL: positional only */
};

struct jbuiltin_table {
    const struct jbuiltin *row; /* sorted by name */
    size_t n;
};

#define JBUILTIN_TABLE(rows)                                                                                           \
    {                                                                                                                  \
        rows, sizeof(rows) / sizeof *(rows)                                                                            \
    }

const struct jbuiltin *jbuiltin_find(const struct jbuiltin_table *t, const struct jstr *name); /* NULL: unknown */
struct jval jbuiltin_call(struct jrt *rt, const struct jbuiltin *b, struct jval self, const struct jargs *args);
const struct jval *jargs_kw(const struct jargs *a, const char *name); /* NULL: not given */

extern const struct jbuiltin_table jbuiltin_filters; /* filters.c */
extern const struct jbuiltin_table jbuiltin_tests;   /* tests.c */
extern const struct jbuiltin_table jbuiltin_globals; /* globals.c */
extern const struct jbuiltin_table jbuiltin_str_methods;
extern const struct jbuiltin_table jbuiltin_list_methods, jbuiltin_tuple_methods, jbuiltin_dict_methods,
    jbuiltin_range_methods, jbuiltin_loop_methods, jbuiltin_cycler_methods, jbuiltin_dict_type_methods;

/* Arguments as C values; they fail with Python's kind of message. */
int64_t jarg_int(struct jrt *rt, struct jval v, int64_t if_missing);
const struct jstr *jarg_str(struct jrt *rt, struct jval v, const char *who);
bool jarg_bool(struct jval v, bool if_missing);

/* str_methods.c: Python's islower and isupper, which the tests `lower` and `upper` are as well: some character is of
 * the one case and none of the other. */
struct jval jstr_one_case(const struct jstr *s, bool (*is)(uint32_t), bool (*is_other)(uint32_t));

#endif
