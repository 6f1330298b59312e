#include "str_ops.h"

#include "builtin.h"
#include "iter.h"
#include "text.h"

static struct jval marked(struct jval v, struct jval like)
{
    v.markup = like.markup;
    return v;
}

struct jval strop_slice(struct jrt *rt, struct jval s, size_t from, size_t to)
{
    return marked(jval_strn(rt, s.s->p + from, to - from), s);
}

static bool has_cp(const struct jstr *chars, uint32_t cp)
{
    for (size_t at = 0, len; at < chars->n; at += len)
        if (ustr_at(chars->p + at, &len) == cp)
            return true;
    return false;
}

struct jval strop_strip(struct jrt *rt, struct jval s, struct jval chars, bool left, bool right)
{
    size_t from = 0, to = s.s->n, len;
    if (jval_absent(chars)) {
        ustr_strip_space(s.s->p, &from, &to, left, right);
        return strop_slice(rt, s, from, to);
    }
    const struct jstr *set = jarg_str(rt, chars, "strip");
    while (left && from < to && has_cp(set, ustr_at(s.s->p + from, &len))) {
        jrt_charge(rt, set->n);
        from += len;
    }
    while (right && from < to && has_cp(set, ustr_before(s.s->p, to, &len))) {
        jrt_charge(rt, set->n);
        to -= len;
    }
    return strop_slice(rt, s, from, to);
}

/* Replacing nothing puts `to` between all characters and at both ends. */
static void replace_empty(struct jrt *rt, struct jbuf *b, const struct jstr *s, const struct jstr *to, int64_t n_max)
{
    size_t at = 0, len;
    for (; n_max != 0; n_max--) {
        jbuf_add(rt, b, to->p, to->n);
        if (at == s->n)
            return;
        ustr_at(s->p + at, &len);
        jbuf_add(rt, b, s->p + at, len);
        at += len;
    }
    jbuf_add(rt, b, s->p + at, s->n - at);
}

struct jval strop_replace(struct jrt *rt, struct jval v, const struct jstr *from, const struct jstr *to, int64_t n_max)
{
    const struct jstr *s = v.s;
    struct jbuf b = {0};
    size_t at = 0, hit;
    jrt_charge(rt, s->n);
    if (from->n == 0) {
        replace_empty(rt, &b, s, to, n_max);
        return marked(jval_of_buf(rt, &b), v);
    }
    for (; n_max != 0; n_max--) {
        hit = ustr_find(s->p + at, s->n - at, from->p, from->n);
        if (hit == SIZE_MAX)
            break;
        jbuf_add(rt, &b, s->p + at, hit);
        jbuf_add(rt, &b, to->p, to->n);
        at += hit + from->n;
        jrt_step(rt, 1);
    }
    if (at == 0)
        return v;
    jbuf_add(rt, &b, s->p + at, s->n - at);
    return marked(jval_of_buf(rt, &b), v);
}

struct jval strop_case(struct jrt *rt, struct jval s, enum ustr_case how)
{
    return marked(ustr_map_case(rt, s.s, how), s);
}

struct jval strop_capitalize(struct jrt *rt, struct jval s)
{
    struct jbuf b = {0};
    for (size_t at = 0, len; at < s.s->n; at += len) {
        uint32_t cp = ustr_at(s.s->p + at, &len);
        ustr_add_case(rt, &b, s.s, at, cp, at == 0 ? USTR_TITLE : USTR_LOWER);
    }
    jrt_charge(rt, s.s->n);
    return marked(jval_of_buf(rt, &b), s);
}

static bool is_cased(uint32_t cp)
{
    return ustr_is_lower(cp) || ustr_is_upper(cp) || ustr_is_title(cp);
}

struct jval strop_title(struct jrt *rt, struct jval s)
{
    struct jbuf b = {0};
    bool after_cased = false;
    for (size_t at = 0, len; at < s.s->n; at += len) {
        uint32_t cp = ustr_at(s.s->p + at, &len);
        ustr_add_case(rt, &b, s.s, at, cp, after_cased ? USTR_LOWER : USTR_TITLE);
        after_cased = is_cased(cp);
    }
    jrt_charge(rt, s.s->n);
    return marked(jval_of_buf(rt, &b), s);
}

struct jval strop_swapcase(struct jrt *rt, struct jval s)
{
    struct jbuf b = {0};
    for (size_t at = 0, len; at < s.s->n; at += len) {
        uint32_t cp = ustr_at(s.s->p + at, &len);
        if (ustr_is_upper(cp))
            ustr_add_case(rt, &b, s.s, at, cp, USTR_LOWER);
        else if (ustr_is_lower(cp))
            ustr_add_case(rt, &b, s.s, at, cp, USTR_UPPER);
        else
            jbuf_add(rt, &b, s.s->p + at, len);
    }
    jrt_charge(rt, s.s->n);
    return marked(jval_of_buf(rt, &b), s);
}

static void add_fill(struct jrt *rt, struct jbuf *b, const struct jstr *fill, int64_t n)
{
    if (n > 0 && (uint64_t)n > rt->limit.memory_bytes)
        jrt_limit(rt, "the template needs too much memory (limit: %zu bytes)", rt->limit.memory_bytes);
    for (int64_t i = 0; i < n; i++)
        jbuf_add(rt, b, fill->p, fill->n);
    jrt_step(rt, n > 0 ? (uint64_t)n / 16 : 0);
}

struct jval strop_pad(struct jrt *rt, struct jval s, int64_t width, struct jval fill, bool left, bool right)
{
    struct jstr blank = {.p = " ", .n = 1, .n_cp = 1};
    struct jstr *f = fill.kind == J_MISSING ? &blank : (struct jstr *)jarg_str(rt, fill, "fill character");
    if (fill.kind != J_MISSING && ustr_len(rt, f) != 1)
        jrt_fail(rt, "The fill character must be exactly one character long");
    if (s.markup) /* which must not be told from what it surrounds */
        f = jtext_escaped(rt, jval_str(f)).s;
    int64_t n = (int64_t)ustr_len(rt, s.s), n_pad = width > n ? width - n : 0;
    if (n_pad == 0)
        return s;
    /* Python puts the odd one left if the width is odd as well, else right. */
    int64_t n_left = !left ? 0 : !right ? n_pad : n_pad / 2 + (n_pad & width & 1);
    struct jbuf b = {0};
    add_fill(rt, &b, f, n_left);
    jbuf_add(rt, &b, s.s->p, s.s->n);
    add_fill(rt, &b, f, n_pad - n_left);
    return marked(jval_of_buf(rt, &b), s);
}

struct jlist *strop_splitlines(struct jrt *rt, struct jval s, bool keep_ends)
{
    struct jlist *l = jlist_new(rt, 0);
    size_t n = s.s->n, from = 0, at = 0, len;
    const char *p = s.s->p;
    jrt_charge(rt, n);
    while (at < n) {
        if (!ustr_is_line_end(ustr_at(p + at, &len))) {
            at += len;
            continue;
        }
        size_t end = at;
        at += p[at] == '\r' && at + 1 < n && p[at + 1] == '\n' ? 2 : len;
        jlist_add(rt, l, strop_slice(rt, s, from, keep_ends ? at : end));
        from = at;
    }
    if (from < n)
        jlist_add(rt, l, strop_slice(rt, s, from, n));
    return l;
}

static const struct jstr *separator(struct jrt *rt, struct jval sep)
{
    const struct jstr *s = jarg_str(rt, sep, "separator");
    if (s->n == 0)
        jrt_fail(rt, "empty separator");
    return s;
}

static struct jlist *split_space(struct jrt *rt, struct jval s, int64_t n_max)
{
    struct jlist *l = jlist_new(rt, 0);
    size_t at = 0, end = s.s->n, len;
    for (;;) {
        ustr_strip_space(s.s->p, &at, &end, true, false);
        if (at == end)
            return l;
        if (n_max-- == 0) {
            jlist_add(rt, l, strop_slice(rt, s, at, end));
            return l;
        }
        size_t from = at;
        while (at < end && !ustr_is_space(ustr_at(s.s->p + at, &len)))
            at += len;
        jlist_add(rt, l, strop_slice(rt, s, from, at));
    }
}

struct jlist *strop_split(struct jrt *rt, struct jval s, struct jval sep, int64_t n_max)
{
    jrt_charge(rt, s.s->n);
    if (jval_absent(sep))
        return split_space(rt, s, n_max);
    const struct jstr *by = separator(rt, sep);
    struct jlist *l = jlist_new(rt, 0);
    size_t at = 0, hit;
    for (; n_max != 0; n_max--) {
        hit = ustr_find(s.s->p + at, s.s->n - at, by->p, by->n);
        if (hit == SIZE_MAX)
            break;
        jlist_add(rt, l, strop_slice(rt, s, at, at + hit));
        at += hit + by->n;
    }
    jlist_add(rt, l, strop_slice(rt, s, at, s.s->n));
    return l;
}

static void reverse(struct jlist *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        struct jval v = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = v;
    }
}

static void rsplit_space(struct jrt *rt, struct jlist *l, struct jval s, int64_t n_max)
{
    size_t start = 0, end = s.s->n, len;
    for (;;) {
        ustr_strip_space(s.s->p, &start, &end, false, true);
        if (end == 0)
            return;
        if (n_max-- == 0) {
            jlist_add(rt, l, strop_slice(rt, s, start, end));
            return;
        }
        size_t to = end;
        while (end > 0 && !ustr_is_space(ustr_before(s.s->p, end, &len)))
            end -= len;
        jlist_add(rt, l, strop_slice(rt, s, end, to));
    }
}

struct jlist *strop_rsplit(struct jrt *rt, struct jval s, struct jval sep, int64_t n_max)
{
    struct jlist *l = jlist_new(rt, 0);
    jrt_charge(rt, s.s->n);
    if (jval_absent(sep)) {
        rsplit_space(rt, l, s, n_max);
    } else {
        const struct jstr *by = separator(rt, sep);
        size_t end = s.s->n, hit;
        for (; n_max != 0; n_max--) {
            hit = ustr_rfind(rt, s.s->p, end, by->p, by->n);
            if (hit == SIZE_MAX)
                break;
            jlist_add(rt, l, strop_slice(rt, s, hit + by->n, end));
            end = hit;
        }
        jlist_add(rt, l, strop_slice(rt, s, 0, end));
    }
    reverse(l);
    return l;
}

struct jval strop_join(struct jrt *rt, const struct jstr *sep, struct jval items)
{
    struct jiter *it = jiter_open(rt, items);
    struct jbuf b = {0};
    struct jval v;
    for (bool first = true; jiter_next(rt, it, &v); first = false) {
        if (!first)
            jbuf_add(rt, &b, sep->p, sep->n);
        jtext_str(rt, &b, v);
    }
    return jval_of_buf(rt, &b);
}
