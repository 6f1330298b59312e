#include "json.h"

#include <inttypes.h>
#include <math.h>

#include "num.h"
#include "ops.h"
#include "ustr.h"

static void write_string(struct jrt *rt, struct jbuf *b, const struct jstr *s, bool ascii)
{
    jbuf_grow(rt, b, s->n + 2);
    jbuf_putc(rt, b, '"');
    size_t plain = 0; /* start of the run that needs no escape */
    for (size_t at = 0, len; at < s->n; at += len) {
        uint32_t cp = ustr_at(s->p + at, &len);
        if (cp >= 0x20 && cp != '"' && cp != '\\' && !(ascii && cp >= 0x80))
            continue;
        static const char short_of[] = {[8] = 'b', [9] = 't', [10] = 'n', [12] = 'f', [13] = 'r'};
        jbuf_add(rt, b, s->p + plain, at - plain);
        plain = at + len;
        if (cp == '"' || cp == '\\')
            jbuf_printf(rt, b, "\\%c", (int)cp);
        else if (cp < sizeof short_of && short_of[cp])
            jbuf_printf(rt, b, "\\%c", short_of[cp]);
        else if (cp < 0x10000)
            jbuf_printf(rt, b, "\\u%04x", cp);
        else
            jbuf_printf(rt, b, "\\u%04x\\u%04x", 0xD7C0 + (cp >> 10), 0xDC00 + (cp & 0x3FF));
    }
    jbuf_add(rt, b, s->p + plain, s->n - plain);
    jbuf_putc(rt, b, '"');
}

static void write_float(struct jrt *rt, struct jbuf *b, double f)
{
    char num[JNUM_REPR_MAX];
    if (isnan(f))
        jbuf_puts(rt, b, "NaN");
    else if (isinf(f))
        jbuf_puts(rt, b, f < 0 ? "-Infinity" : "Infinity");
    else
        jbuf_add(rt, b, num, (size_t)jnum_repr(f, num));
}

static bool write_scalar(struct jrt *rt, struct jbuf *b, struct jval v)
{
    switch (v.kind) {
    case J_NONE:
        jbuf_puts(rt, b, "null");
        return true;
    case J_BOOL:
        jbuf_puts(rt, b, v.b ? "true" : "false");
        return true;
    case J_INT:
        jbuf_printf(rt, b, "%" PRId64, v.i);
        return true;
    case J_FLOAT:
        write_float(rt, b, v.f);
        return true;
    default:
        return false;
    }
}

static void write_key(struct jrt *rt, struct jbuf *b, struct jval k, const struct jjson_style *how)
{
    if (k.kind == J_STR) {
        write_string(rt, b, k.s, how->ascii);
        return;
    }
    jbuf_putc(rt, b, '"');
    if (!write_scalar(rt, b, k))
        jrt_fail(rt, "keys must be str, int, float, bool or None, not %s", jval_type(k));
    jbuf_putc(rt, b, '"');
}

static void write_newline(struct jrt *rt, struct jbuf *b, const struct jjson_style *how, int level)
{
    if (!how->indent)
        return;
    jbuf_putc(rt, b, '\n');
    for (int i = 0; i < level; i++)
        jbuf_add(rt, b, how->indent->p, how->indent->n);
}

static void write_value(struct jrt *rt, struct jbuf *b, struct jval v, const struct jjson_style *how, int level);

static void write_list(struct jrt *rt, struct jbuf *b, const struct jlist *l, const struct jjson_style *how, int level)
{
    jbuf_putc(rt, b, '[');
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            jbuf_add(rt, b, how->item_sep->p, how->item_sep->n);
        write_newline(rt, b, how, level + 1);
        write_value(rt, b, l->v[i], how, level + 1);
    }
    if (l->n)
        write_newline(rt, b, how, level);
    jbuf_putc(rt, b, ']');
}

/* The dict with its entries sorted as sorted(d.items()) does. */
static const struct jdict *sorted_by_key(struct jrt *rt, const struct jdict *d)
{
    struct jlist *pairs = jlist_new(rt, d->n);
    for (size_t i = 0; i < d->n; i++)
        jlist_add(rt, pairs, jval_pair(rt, d->e[i].k, d->e[i].v));
    jops_sort(rt, pairs->v, pairs->v, pairs->n, false);
    struct jdict *out = jdict_new(rt, d->n);
    for (size_t i = 0; i < d->n; i++)
        out->e[out->n++] = (struct jentry){pairs->v[i].l->v[0], pairs->v[i].l->v[1]};
    return out;
}

static void write_dict(struct jrt *rt, struct jbuf *b, const struct jdict *d, const struct jjson_style *how, int level)
{
    if (how->sort_keys)
        d = sorted_by_key(rt, d);
    jbuf_putc(rt, b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            jbuf_add(rt, b, how->item_sep->p, how->item_sep->n);
        write_newline(rt, b, how, level + 1);
        write_key(rt, b, d->e[i].k, how);
        jbuf_add(rt, b, how->key_sep->p, how->key_sep->n);
        write_value(rt, b, d->e[i].v, how, level + 1);
    }
    if (d->n)
        write_newline(rt, b, how, level);
    jbuf_putc(rt, b, '}');
}

static void write_value(struct jrt *rt, struct jbuf *b, struct jval v, const struct jjson_style *how, int level)
{
    jrt_step(rt, 1);
    jrt_enter(rt);
    if (v.kind == J_STR)
        write_string(rt, b, v.s, how->ascii);
    else if (v.kind == J_LIST || v.kind == J_TUPLE)
        write_list(rt, b, v.l, how, level);
    else if (v.kind == J_DICT)
        write_dict(rt, b, v.d, how, level);
    else if (!write_scalar(rt, b, v))
        jrt_fail(rt, "Object of type %s is not JSON serializable", jval_type(v));
    jrt_leave(rt);
}

void jjson_write(struct jrt *rt, struct jbuf *b, struct jval v, const struct jjson_style *how)
{
    write_value(rt, b, v, how, 0);
}

static struct jval list_from_json(struct jrt *rt, json_t *j)
{
    struct jlist *l = jlist_new(rt, json_array_size(j));
    size_t i;
    json_t *item;
    json_array_foreach(j, i, item) l->v[l->n++] = jjson_read(rt, item);
    return jval_list(l);
}

static struct jval dict_from_json(struct jrt *rt, json_t *j)
{
    struct jdict *d = jdict_new(rt, json_object_size(j));
    const char *key;
    size_t n_key;
    json_t *item;
    json_object_keylen_foreach(j, key, n_key, item) jdict_set(rt, d, jval_strn(rt, key, n_key), jjson_read(rt, item));
    return jval_dict(d);
}

struct jval jjson_read(struct jrt *rt, json_t *j)
{
    struct jval v = jval_none();
    jrt_step(rt, 1);
    jrt_enter(rt);
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        v = dict_from_json(rt, j);
        break;
    case JSON_ARRAY:
        v = list_from_json(rt, j);
        break;
    case JSON_STRING:
        v = jval_strn(rt, json_string_value(j), json_string_length(j));
        break;
    case JSON_INTEGER:
        v = jval_int(json_integer_value(j));
        break;
    case JSON_REAL:
        v = jval_float(json_real_value(j));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = jval_bool(json_is_true(j));
        break;
    case JSON_NULL:
        break;
    }
    jrt_leave(rt);
    return v;
}
