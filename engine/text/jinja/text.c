#include "text.h"

#include <inttypes.h>

#include "builtin.h"
#include "loop.h"
#include "num.h"
#include "ustr.h"

static void repr_string(struct jrt *rt, struct jbuf *b, const struct jstr *s)
{
    char quote = memchr(s->p, '\'', s->n) && !memchr(s->p, '"', s->n) ? '"' : '\'';
    jbuf_putc(rt, b, quote);
    for (size_t at = 0, len; at < s->n; at += len) {
        uint32_t cp = ustr_at(s->p + at, &len);
        if (cp == (uint32_t)quote || cp == '\\')
            jbuf_printf(rt, b, "\\%c", (int)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            jbuf_puts(rt, b, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t");
        else if (ustr_is_printable(cp))
            jbuf_add(rt, b, s->p + at, len);
        else
            jbuf_printf(rt, b, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
    }
    jbuf_putc(rt, b, quote);
}

static void repr_items(struct jrt *rt, struct jbuf *b, const struct jlist *l)
{
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            jbuf_puts(rt, b, ", ");
        jtext_repr(rt, b, l->v[i]);
    }
}

static void repr_dict(struct jrt *rt, struct jbuf *b, struct jdict *d)
{
    if (d->in_repr) {
        jbuf_puts(rt, b, "{...}");
        return;
    }
    d->in_repr = true;
    jbuf_putc(rt, b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            jbuf_puts(rt, b, ", ");
        jtext_repr(rt, b, d->e[i].k);
        jbuf_puts(rt, b, ": ");
        jtext_repr(rt, b, d->e[i].v);
    }
    jbuf_putc(rt, b, '}');
    d->in_repr = false;
}

static void repr_view(struct jrt *rt, struct jbuf *b, const struct jview *w)
{
    static const char *const open[] = {"dict_keys([", "dict_values([", "dict_items(["};
    jbuf_puts(rt, b, open[w->kind]);
    for (size_t i = 0; i < w->d->n; i++) {
        const struct jentry *e = &w->d->e[i];
        if (i)
            jbuf_puts(rt, b, ", ");
        jtext_repr(rt, b, w->kind == JVIEW_KEYS ? e->k : w->kind == JVIEW_VALUES ? e->v : jval_pair(rt, e->k, e->v));
    }
    jbuf_puts(rt, b, "])");
}

static void repr_range(struct jrt *rt, struct jbuf *b, const struct jrange *r)
{
    jbuf_printf(rt, b, "range(%" PRId64 ", %" PRId64, r->start, r->stop);
    if (r->step != 1)
        jbuf_printf(rt, b, ", %" PRId64, r->step);
    jbuf_putc(rt, b, ')');
}

static void repr_callable(struct jrt *rt, struct jbuf *b, struct jval v)
{
    if (v.kind == J_FUNC) {
        jbuf_printf(rt, b, "<function %s>", v.fn->name);
    } else if (v.kind == J_METHOD) {
        jbuf_printf(rt, b, "<built-in method %s of %s object>", v.bound->method->name, jval_type(v.bound->self));
    } else if (!v.m->name) {
        jbuf_puts(rt, b, "<Macro anonymous>");
    } else {
        jbuf_puts(rt, b, "<Macro ");
        repr_string(rt, b, v.m->name);
        jbuf_putc(rt, b, '>');
    }
}

static void repr_nested(struct jrt *rt, struct jbuf *b, struct jval v)
{
    switch (v.kind) {
    case J_LIST:
        jbuf_putc(rt, b, '[');
        repr_items(rt, b, v.l);
        jbuf_putc(rt, b, ']');
        break;
    case J_TUPLE:
        jbuf_putc(rt, b, '(');
        repr_items(rt, b, v.l);
        jbuf_puts(rt, b, v.l->n == 1 ? ",)" : ")");
        break;
    case J_DICT:
        repr_dict(rt, b, v.d);
        break;
    case J_NAMESPACE:
        jbuf_puts(rt, b, "<Namespace ");
        repr_dict(rt, b, v.d);
        jbuf_putc(rt, b, '>');
        break;
    case J_VIEW:
        repr_view(rt, b, v.w);
        break;
    default:
        break;
    }
}

void jtext_repr(struct jrt *rt, struct jbuf *b, struct jval v)
{
    char num[JNUM_REPR_MAX];
    jrt_step(rt, 1);
    switch (v.kind) {
    case J_MISSING:
    case J_UNDEF:
        jbuf_puts(rt, b, "Undefined");
        break;
    case J_NONE:
        jbuf_puts(rt, b, "None");
        break;
    case J_BOOL:
        jbuf_puts(rt, b, v.b ? "True" : "False");
        break;
    case J_INT:
        jbuf_printf(rt, b, "%" PRId64, v.i);
        break;
    case J_FLOAT:
        jbuf_add(rt, b, num, (size_t)jnum_repr(v.f, num));
        break;
    case J_STR:
        if (v.markup)
            jbuf_puts(rt, b, "Markup(");
        repr_string(rt, b, v.s);
        if (v.markup)
            jbuf_putc(rt, b, ')');
        break;
    case J_RANGE:
        repr_range(rt, b, v.r);
        break;
    case J_MACRO:
    case J_FUNC:
    case J_METHOD:
        repr_callable(rt, b, v);
        break;
    case J_LOOP:
        jbuf_printf(rt, b, "<LoopContext %" PRId64 "/%" PRId64 ">", v.loop->index0 + 1, jloop_length(rt, v.loop));
        break;
    case J_ITER:
    case J_CYCLER:
    case J_JOINER: /* Python shows their address */
        jbuf_printf(rt, b, "<%s object>", jval_type(v));
        break;
    default:
        jrt_enter(rt);
        repr_nested(rt, b, v);
        jrt_leave(rt);
    }
}

void jtext_str(struct jrt *rt, struct jbuf *b, struct jval v)
{
    if (v.kind == J_STR)
        jbuf_add(rt, b, v.s->p, v.s->n);
    else if (v.kind != J_UNDEF)
        jtext_repr(rt, b, v);
}

struct jstr *jtext_of(struct jrt *rt, struct jval v)
{
    if (v.kind == J_STR)
        return v.s;
    struct jbuf b = {0};
    jtext_str(rt, &b, v);
    return jstr_of_buf(rt, &b);
}

void jtext_escape(struct jrt *rt, struct jbuf *b, const struct jstr *s)
{
    jrt_charge(rt, s->n);
    jbuf_grow(rt, b, s->n);
    for (size_t i = 0; i < s->n; i++) {
        switch (s->p[i]) {
        case '&':
            jbuf_puts(rt, b, "&amp;");
            break;
        case '<':
            jbuf_puts(rt, b, "&lt;");
            break;
        case '>':
            jbuf_puts(rt, b, "&gt;");
            break;
        case '\'':
            jbuf_puts(rt, b, "&#39;");
            break;
        case '"':
            jbuf_puts(rt, b, "&#34;");
            break;
        default:
            jbuf_putc(rt, b, s->p[i]);
        }
    }
}

struct jval jtext_escaped(struct jrt *rt, struct jval v)
{
    if (v.kind == J_STR && v.markup)
        return v;
    struct jbuf b = {0};
    jtext_escape(rt, &b, jtext_of(rt, v));
    v = jval_of_buf(rt, &b);
    v.markup = true;
    return v;
}
