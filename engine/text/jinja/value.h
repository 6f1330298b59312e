/* The values of the template language: Python's, as far as templates can see them. For engine/text/jinja only.
 * Everything but iterators, loops, namespaces, cyclers and joiners is immutable once built. */
#ifndef GALLEY_JINJA_VALUE_H
#define GALLEY_JINJA_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "rt.h"

enum jkind {
    J_MISSING = 0, /* an unset variable slot or an argument that was not given: templates never see it */
    J_UNDEF,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STR,
    J_LIST,
    J_TUPLE,
    J_DICT,
    J_RANGE,
    J_VIEW,      /* dict.keys(), .values(), .items() */
    J_ITER,      /* a generator: consumed as it is read */
    J_NAMESPACE, /* namespace(): its dict is what {% set ns.x %} changes */
    J_MACRO,
    J_FUNC,   /* a global function */
    J_METHOD, /* a method bound to its object */
    J_LOOP,   /* the `loop` variable */
    J_CYCLER,
    J_JOINER,
};

struct jstr {
    const char *p; /* valid UTF-8, not NUL-terminated */
    size_t n;      /* bytes */
    size_t n_cp;   /* code points; SIZE_MAX: not counted yet. Strings of a compiled template are always counted, so that
                      rendering never writes to them. */
};

struct jval {
    uint8_t kind;   /* enum jkind */
    uint8_t markup; /* J_STR: a markupsafe.Markup, which escapes what is added to it */
    uint8_t group;  /* J_TUPLE: made by the groupby filter, so it has .grouper and .list */
    union {
        bool b;
        int64_t i;
        double f;
        struct jstr *s;
        struct jlist *l; /* J_LIST, J_TUPLE */
        struct jdict *d; /* J_DICT, J_NAMESPACE */
        struct jrange *r;
        struct jview *w;
        struct jiter *it;
        struct jmacro *m;
        struct jloop *loop;
        struct jbound *bound;
        struct jcycler *cycler;
        struct jjoiner *joiner;
        const struct jundef *u;
        const struct jbuiltin *fn;
    };
};

struct jlist {
    struct jval *v;
    size_t n, cap;
};

struct jentry {
    struct jval k, v;
};

struct jdict { /* in insertion order */
    struct jentry *e;
    size_t n, cap;
    uint32_t *index; /* open addressing over string keys, entry + 1; NULL while the dict is small */
    size_t n_index;  /* a power of two */
    bool in_repr;    /* being printed: a namespace can contain itself */
};

struct jrange {
    int64_t start, stop, step;
    int64_t n;
};

enum jview_kind { JVIEW_KEYS, JVIEW_VALUES, JVIEW_ITEMS };
struct jview {
    enum jview_kind kind;
    struct jdict *d;
};

struct jundef {
    const char *hint; /* the whole message, or NULL */
    struct jval obj;  /* what lacked it; J_MISSING for a variable */
    struct jval name; /* J_STR or any subscript */
};

struct jbound {
    struct jval self;
    const struct jbuiltin *method;
};

struct jmacro {
    const struct jstr *name;  /* NULL: the body of a call block */
    const struct jnode *node; /* J_NODE_MACRO */
    struct jact *up;          /* what its body sees around it */
};

struct jcycler {
    struct jlist *item;
    size_t pos;
};

struct jjoiner {
    struct jstr *sep;
    bool used;
};

static inline struct jval jval_none(void)
{
    return (struct jval){.kind = J_NONE};
}

static inline struct jval jval_missing(void)
{
    return (struct jval){.kind = J_MISSING};
}

static inline struct jval jval_bool(bool b)
{
    return (struct jval){.kind = J_BOOL, .b = b};
}

static inline struct jval jval_int(int64_t i)
{
    return (struct jval){.kind = J_INT, .i = i};
}

static inline struct jval jval_float(double f)
{
    return (struct jval){.kind = J_FLOAT, .f = f};
}

static inline struct jval jval_str(struct jstr *s)
{
    return (struct jval){.kind = J_STR, .s = s};
}

static inline struct jval jval_list(struct jlist *l)
{
    return (struct jval){.kind = J_LIST, .l = l};
}

static inline struct jval jval_tuple(struct jlist *l)
{
    return (struct jval){.kind = J_TUPLE, .l = l};
}

static inline struct jval jval_dict(struct jdict *d)
{
    return (struct jval){.kind = J_DICT, .d = d};
}

/* An integer in Python's eyes: bool is one. */
static inline bool jval_is_int(struct jval v)
{
    return v.kind == J_INT || v.kind == J_BOOL;
}

static inline int64_t jval_as_int(struct jval v)
{
    return v.kind == J_BOOL ? v.b : v.i;
}

static inline bool jval_is_num(struct jval v)
{
    return jval_is_int(v) || v.kind == J_FLOAT;
}

static inline double jval_as_float(struct jval v)
{
    return v.kind == J_FLOAT ? v.f : (double)jval_as_int(v);
}

/* Not given, or given as None. */
static inline bool jval_absent(struct jval v)
{
    return v.kind == J_MISSING || v.kind == J_NONE;
}

/* Strings: jstr_ref keeps the pointer, which must outlive the rendering. */
struct jstr *jstr_ref(struct jrt *rt, const char *p, size_t n);
struct jstr *jstr_copy(struct jrt *rt, const char *p, size_t n);
struct jstr *jstr_of_buf(struct jrt *rt, const struct jbuf *b);
struct jval jval_cstr(struct jrt *rt, const char *s); /* a literal of this source */
struct jval jval_strn(struct jrt *rt, const char *p, size_t n);
struct jval jval_of_buf(struct jrt *rt, const struct jbuf *b);
bool jstr_eq(const struct jstr *a, const struct jstr *b);
bool jstr_is(const struct jstr *s, const char *z);
int jstr_cmp(const struct jstr *a, const struct jstr *b); /* by code point, which is by byte in UTF-8 */

struct jlist *jlist_new(struct jrt *rt, size_t cap);
void jlist_add(struct jrt *rt, struct jlist *l, struct jval v);
struct jval jval_pair(struct jrt *rt, struct jval a, struct jval b); /* a tuple */

struct jdict *jdict_new(struct jrt *rt, size_t cap);
/* Replaces an equal key's value, as Python does; fails on an unhashable key. */
void jdict_set(struct jrt *rt, struct jdict *d, struct jval k, struct jval v);
/* NULL when absent. */
struct jval *jdict_get(struct jrt *rt, const struct jdict *d, struct jval k);
struct jval *jdict_get_str(struct jrt *rt, const struct jdict *d, const struct jstr *k);

struct jval jundef_hint(struct jrt *rt, const char *hint);
struct jval jundef_name(struct jrt *rt, struct jstr *name);
struct jval jundef_attr(struct jrt *rt, struct jval obj, struct jval name);
/* An operation that an undefined value does not bear: fails with the message jinja2 gives. */
_Noreturn void jundef_fail(struct jrt *rt, const struct jundef *u);

bool jval_truth(struct jval v);
bool jval_hashable(struct jval v);
const char *jval_type(struct jval v);         /* Python's type name */
bool jval_same(struct jval a, struct jval b); /* Python's `is`, as far as it is meaningful */

#endif
