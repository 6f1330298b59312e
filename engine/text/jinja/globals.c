/* Global functions. The table is at the end. */
#include <time.h>

#include "builtin.h"
#include "iter.h"
#include "text.h"

#define GLOBAL(name)                                                                                                   \
    static struct jval g_##name(struct jrt *rt, struct jval self, const struct jval *arg, const struct jargs *all)

GLOBAL(range)
{
    int64_t a = jarg_int(rt, arg[0], 0), b = jarg_int(rt, arg[1], 0), step = jarg_int(rt, arg[2], 1);
    if (arg[1].kind == J_MISSING) {
        b = a;
        a = 0;
    }
    if (step == 0)
        jrt_fail(rt, "range() arg 3 must not be zero");
    struct jrange *r = jrt_alloc(rt, sizeof *r);
    *r = (struct jrange){a, b, step, 0};
    /* Unsigned: the distance may exceed INT64_MAX. */
    uint64_t n = 0;
    if (step > 0 && b > a)
        n = ((uint64_t)b - (uint64_t)a - 1) / (uint64_t)step + 1;
    else if (step < 0 && a > b)
        n = ((uint64_t)a - (uint64_t)b - 1) / (0 - (uint64_t)step) + 1;
    if (n > (uint64_t)rt->limit.range_items)
        jrt_limit(rt, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%lld).",
                  (long long)rt->limit.range_items);
    r->n = (int64_t)n;
    return (struct jval){.kind = J_RANGE, .r = r};
}

static void add_pairs(struct jrt *rt, struct jdict *d, struct jval from)
{
    struct jiter *it;
    struct jval pair;
    if (from.kind == J_DICT) {
        for (size_t i = 0; i < from.d->n; i++)
            jdict_set(rt, d, from.d->e[i].k, from.d->e[i].v);
        return;
    }
    it = jiter_open(rt, from);
    while (jiter_next(rt, it, &pair)) {
        struct jlist *l = jiter_can(pair) ? jiter_items(rt, pair) : NULL;
        if (!l || l->n != 2)
            jrt_fail(rt, "dictionary update sequence element has the wrong length; 2 is required");
        jdict_set(rt, d, l->v[0], l->v[1]);
    }
}

/* dict(mapping or pairs, **more) */
static struct jdict *dict_of_args(struct jrt *rt, const struct jargs *all)
{
    struct jdict *d = jdict_new(rt, all->n_kw);
    if (all->n_pos > 1)
        jrt_fail(rt, "dict expected at most 1 argument, got %zu", all->n_pos);
    if (all->n_pos)
        add_pairs(rt, d, all->pos[0]);
    for (size_t i = 0; i < all->n_kw; i++)
        jdict_set(rt, d, jval_strn(rt, all->kw[i].name->p, all->kw[i].name->n), all->kw[i].v);
    return d;
}

GLOBAL(dict)
{
    return jval_dict(dict_of_args(rt, all));
}

GLOBAL(namespace)
{
    struct jdict *d = dict_of_args(rt, all);
    for (size_t i = 0; i < d->n; i++)
        if (d->e[i].k.kind == J_STR && d->e[i].k.s->n && d->e[i].k.s->p[0] == '_')
            jrt_fail(rt,
                     "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '%.*s'. "
                     "Please rename the attribute.",
                     (int)d->e[i].k.s->n, d->e[i].k.s->p);
    return (struct jval){.kind = J_NAMESPACE, .d = d};
}

GLOBAL(cycler)
{
    struct jlist args = {.v = all->pos, .n = all->n_pos};
    if (!all->n_pos)
        jrt_fail(rt, "at least one item has to be provided");
    struct jcycler *c = jrt_alloc(rt, sizeof *c);
    c->item = jiter_collect(rt, jval_tuple(&args));
    return (struct jval){.kind = J_CYCLER, .cycler = c};
}

GLOBAL(joiner)
{
    struct jjoiner *j = jrt_alloc(rt, sizeof *j);
    j->sep = arg[0].kind == J_MISSING ? jval_cstr(rt, ", ").s : jtext_of(rt, arg[0]);
    return (struct jval){.kind = J_JOINER, .joiner = j};
}

GLOBAL(raise_exception)
{
    const struct jstr *s = jtext_of(rt, arg[0]);
    jrt_raise(rt, s->p, s->n);
}

static void now(struct jrt *rt, struct tm *tm)
{
    time_t t = time(NULL);
    if (!rt->opts || !rt->opts->fixed_now) {
        localtime_r(&t, tm);
        return;
    }
    t = (time_t)(rt->opts->now_unix_s + rt->opts->utc_offset_s);
    gmtime_r(&t, tm);
}

/* datetime.now().strftime(format): the local time without a zone, so %z and %Z are empty. */
GLOBAL(strftime_now)
{
    const struct jstr *s = jarg_str(rt, arg[0], "strftime_now()");
    struct jbuf b = {0};
    struct tm tm;
    now(rt, &tm);
    for (size_t at = 0; at < s->n; at++) {
        char directive[4] = {'%', 0}, text[128];
        size_t n = 1;
        if (s->p[at] != '%' || at + 1 == s->n) {
            jbuf_putc(rt, &b, s->p[at]);
            continue;
        }
        at++;
        if (strchr("-_0^#EO", s->p[at]) && s->p[at] && at + 1 < s->n) /* glibc's flags */
            directive[n++] = s->p[at++];
        directive[n] = s->p[at];
        if (s->p[at] == 'f')
            jbuf_puts(rt, &b, "000000");
        else if (s->p[at] != 'z' && s->p[at] != 'Z' && (uint8_t)s->p[at] < 0x80)
            jbuf_add(rt, &b, text, strftime(text, sizeof text, directive, &tm));
        else if ((uint8_t)s->p[at] >= 0x80) {
            jbuf_add(rt, &b, directive, n);
            at--; /* the character that follows is text */
        }
    }
    return jval_of_buf(rt, &b);
}

static const struct jbuiltin rows[] = {
    {"cycler", g_cycler, 0, JBUILTIN_ANY, NULL},
    {"dict", g_dict, 0, JBUILTIN_ANY, NULL},
    {"joiner", g_joiner, 0, 1, "sep"},
    {"namespace", g_namespace, 0, JBUILTIN_ANY, NULL},
    {"raise_exception", g_raise_exception, 1, 1, "message"},
    {"range", g_range, 1, 3, NULL},
    {"strftime_now", g_strftime_now, 1, 1, "format"},
};
const struct jbuiltin_table jbuiltin_globals = JBUILTIN_TABLE(rows);
