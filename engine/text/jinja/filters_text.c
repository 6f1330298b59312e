#include "filters.h"
#include "format.h"
#include "iter.h"
#include "json.h"
#include "ops.h"
#include "str_ops.h"
#include "text.h"

/* markupsafe.soft_str: a Markup stays one, everything else becomes its str(). */
static struct jval soft_str(struct jrt *rt, struct jval v)
{
    return v.kind == J_STR ? v : jval_str(jtext_of(rt, v));
}

JFILTER(string)
{
    return soft_str(rt, self);
}

JFILTER(upper)
{
    return strop_case(rt, soft_str(rt, self), USTR_UPPER);
}

JFILTER(lower)
{
    return strop_case(rt, soft_str(rt, self), USTR_LOWER);
}

JFILTER(capitalize)
{
    return strop_capitalize(rt, soft_str(rt, self));
}

JFILTER(trim)
{
    return strop_strip(rt, soft_str(rt, self), arg[0], true, true);
}

JFILTER(center)
{
    return strop_pad(rt, soft_str(rt, self), jarg_int(rt, arg[0], 80), jval_missing(), true, true);
}

/* Words begin after blanks, hyphens and opening brackets, unlike those of str.title(). */
JFILTER(title)
{
    const struct jstr *s = jtext_of(rt, self);
    struct jbuf out = {0};
    bool start = true;
    for (size_t at = 0, len; at < s->n; at += len) {
        uint32_t cp = ustr_at(s->p + at, &len);
        bool between = ustr_is_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (int)cp));
        if (between)
            jbuf_add(rt, &out, s->p + at, len);
        else
            ustr_add_case(rt, &out, s, at, cp, start ? USTR_UPPER : USTR_LOWER);
        start = between;
    }
    return jval_of_buf(rt, &out);
}

JFILTER(replace)
{
    const struct jstr *from = jtext_of(rt, arg[0]), *to = jtext_of(rt, arg[1]);
    int64_t n = jval_absent(arg[2]) ? -1 : jarg_int(rt, arg[2], -1);
    return strop_replace(rt, jval_str(jtext_of(rt, self)), from, to, n);
}

JFILTER(escape)
{
    return jtext_escaped(rt, self);
}

JFILTER(forceescape)
{
    return jtext_escaped(rt, jval_str(jtext_of(rt, self)));
}

JFILTER(safe)
{
    struct jval v = jval_str(jtext_of(rt, self));
    v.markup = true;
    return v;
}

JFILTER(format)
{
    struct jlist pos = {.v = all->pos, .n = all->n_pos};
    if (all->n_pos && all->n_kw)
        jrt_fail(rt, "can't handle positional and keyword arguments at the same time");
    if (!all->n_kw)
        return jformat_percent(rt, soft_str(rt, self), jval_tuple(&pos));
    struct jdict *d = jdict_new(rt, all->n_kw);
    for (size_t i = 0; i < all->n_kw; i++)
        jdict_set(rt, d, jval_strn(rt, all->kw[i].name->p, all->kw[i].name->n), all->kw[i].v);
    return jformat_percent(rt, soft_str(rt, self), jval_dict(d));
}

/* width: a number of blanks, or the text itself. */
JFILTER(indent)
{
    struct jval blanks = arg[0];
    bool first = jarg_bool(arg[1], false), blank = jarg_bool(arg[2], false);
    if (self.kind == J_UNDEF)
        jundef_fail(rt, self.u);
    if (self.kind != J_STR)
        jrt_fail(rt, "unsupported operand type(s) for +=: '%s' and 'str'", jval_type(self));
    if (blanks.kind != J_STR) {
        int64_t n = jarg_int(rt, blanks, 4);
        blanks = jops_binary(rt, JOP_MUL, jval_cstr(rt, " "), jval_int(n));
    }
    struct jval whole = jops_concat_str(rt, jval_str(self.s), jval_cstr(rt, "\n"));
    struct jlist *line = strop_splitlines(rt, whole, false);
    struct jbuf b = {0};
    for (size_t i = 0; i < line->n; i++) {
        if (i)
            jbuf_putc(rt, &b, '\n');
        if (i ? blank || line->v[i].s->n : first)
            jbuf_add(rt, &b, blanks.s->p, blanks.s->n);
        jbuf_add(rt, &b, line->v[i].s->p, line->v[i].s->n);
    }
    struct jval v = jval_of_buf(rt, &b);
    v.markup = self.markup;
    return v;
}

JFILTER(truncate)
{
    struct jval end = arg[2].kind == J_MISSING ? jval_cstr(rt, "...") : arg[2];
    int64_t n_end = (int64_t)ustr_len(rt, (struct jstr *)jarg_str(rt, end, "truncate() end"));
    int64_t length = jarg_int(rt, arg[0], 255), leeway = jval_absent(arg[3]) ? 5 : jarg_int(rt, arg[3], 5);
    if (length < n_end)
        jrt_fail(rt, "expected length >= %lld, got %lld", (long long)n_end, (long long)length);
    if (leeway < 0)
        jrt_fail(rt, "expected leeway >= 0, got %lld", (long long)leeway);
    int64_t n = jiter_len(rt, self);
    if (n >= 0 && n - leeway <= length)
        return self;
    if (self.kind != J_STR)
        jrt_fail(rt, "object of type '%s' cannot be truncated", jval_type(self));
    struct jval cut = strop_slice(rt, self, 0, ustr_offset(rt, self.s, (size_t)(length - n_end)));
    if (!jarg_bool(arg[1], false))
        cut = strop_rsplit(rt, cut, jval_cstr(rt, " "), 1)->v[0];
    return jops_concat_str(rt, cut, end);
}

JFILTER(wordcount)
{
    const struct jstr *s = jtext_of(rt, self);
    int64_t n = 0;
    bool in_word = false;
    for (size_t at = 0, len; at < s->n; at += len) {
        bool word = ustr_is_word(ustr_at(s->p + at, &len));
        n += word && !in_word;
        in_word = word;
    }
    return jval_int(n);
}

/* Without tags and comments, blanks collapsed, entities as characters. */
static void add_unescaped(struct jrt *rt, struct jbuf *b, const struct jstr *s)
{
    static const struct {
        const char *entity, *text;
    } known[] = {{"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&#39;", "'"}, {"&#34;", "\""}, {"&quot;", "\""}};
    for (size_t at = 0; at < s->n;) {
        size_t i = 0, n = sizeof known / sizeof *known;
        if (s->p[at] == '&')
            for (; i < n; i++)
                if (s->n - at >= strlen(known[i].entity) &&
                    !memcmp(s->p + at, known[i].entity, strlen(known[i].entity)))
                    break;
        if (s->p[at] != '&' || i == n) {
            jbuf_putc(rt, b, s->p[at++]);
        } else {
            jbuf_puts(rt, b, known[i].text);
            at += strlen(known[i].entity);
        }
    }
}

JFILTER(striptags)
{
    const struct jstr *s = jtext_of(rt, self);
    struct jbuf plain = {0}, out = {0};
    size_t at = 0;
    for (;;) {
        size_t open = ustr_find(s->p + at, s->n - at, "<", 1);
        if (open == SIZE_MAX)
            break;
        open += at;
        bool comment = s->n - open >= 4 && memcmp(s->p + open, "<!--", 4) == 0;
        size_t from = open + (comment ? 4 : 0);
        size_t close = ustr_find(s->p + from, s->n - from, comment ? "-->" : ">", comment ? 3 : 1);
        if (close == SIZE_MAX)
            break;
        jbuf_add(rt, &plain, s->p + at, open - at);
        at = from + close + (comment ? 3 : 1);
    }
    jbuf_add(rt, &plain, s->p + at, s->n - at);
    struct jlist *word = strop_split(rt, jval_of_buf(rt, &plain), jval_missing(), -1);
    for (size_t i = 0; i < word->n; i++) {
        if (i)
            jbuf_putc(rt, &out, ' ');
        add_unescaped(rt, &out, word->v[i].s);
    }
    return jval_of_buf(rt, &out);
}

static void url_quote(struct jrt *rt, struct jbuf *b, struct jval v, bool in_query)
{
    const struct jstr *s = jtext_of(rt, v);
    for (size_t i = 0; i < s->n; i++) {
        uint8_t c = (uint8_t)s->p[i];
        if (c < 0x80 && (ustr_is_word(c) || strchr("-.~", c)) && c)
            jbuf_putc(rt, b, (char)c);
        else if (c == '/' && !in_query)
            jbuf_putc(rt, b, '/');
        else if (c == ' ' && in_query)
            jbuf_putc(rt, b, '+');
        else
            jbuf_printf(rt, b, "%%%02X", c);
    }
}

JFILTER(urlencode)
{
    struct jbuf b = {0};
    struct jval pair;
    if (self.kind == J_STR || !jiter_can(self)) {
        url_quote(rt, &b, self, false);
        return jval_of_buf(rt, &b);
    }
    struct jiter *it = jiter_open(rt, self.kind == J_DICT ? jfilter_items(rt, self, NULL, NULL) : self);
    while (jiter_next(rt, it, &pair)) {
        struct jlist *l = jiter_can(pair) ? jiter_items(rt, pair) : NULL;
        if (!l || l->n != 2)
            jrt_fail(rt, "not enough or too many values to unpack (expected 2)");
        if (b.n)
            jbuf_putc(rt, &b, '&');
        url_quote(rt, &b, l->v[0], true);
        jbuf_putc(rt, &b, '=');
        url_quote(rt, &b, l->v[1], true);
    }
    return jval_of_buf(rt, &b);
}

static const struct jstr *json_indent(struct jrt *rt, struct jval v)
{
    if (jval_absent(v))
        return NULL;
    if (v.kind == J_STR)
        return v.s;
    return jops_binary(rt, JOP_MUL, jval_cstr(rt, " "), jval_int(jarg_int(rt, v, 0))).s;
}

JFILTER(tojson)
{
    struct jjson_style how = {.ascii = jarg_bool(arg[0], false), .sort_keys = jarg_bool(arg[3], false)};
    how.indent = json_indent(rt, arg[1]);
    how.item_sep = jval_cstr(rt, how.indent ? "," : ", ").s;
    how.key_sep = jval_cstr(rt, ": ").s;
    if (!jval_absent(arg[2])) {
        if ((arg[2].kind != J_LIST && arg[2].kind != J_TUPLE) || arg[2].l->n != 2)
            jrt_fail(rt, "separators must be two strings");
        how.item_sep = jarg_str(rt, arg[2].l->v[0], "separator");
        how.key_sep = jarg_str(rt, arg[2].l->v[1], "separator");
    }
    struct jbuf b = {0};
    jjson_write(rt, &b, self, &how);
    return jval_of_buf(rt, &b);
}
