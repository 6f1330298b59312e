/* '{} and {name!r:>8}'.format(a, name=b). */
#include "eval.h"
#include "format.h"
#include "num.h"
#include "text.h"
#include "ustr.h"

struct braces {
    struct jrt *rt;
    const struct jval *pos;
    size_t n_pos;
    const struct jargs *named;
    int64_t auto_index; /* -1: fields are numbered by hand */
    bool any_auto;
    bool markup;
};

static void expand(struct braces *f, struct jbuf *out, const struct jstr *format, int depth);

static bool is_number(const struct jstr *s, int64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->p[i] < '0' || s->p[i] > '9' || *out > INT32_MAX)
            return false;
        *out = *out * 10 + (s->p[i] - '0');
    }
    return s->n > 0;
}

static struct jval positional(struct braces *f, int64_t i)
{
    if (i >= (int64_t)f->n_pos)
        jrt_fail(f->rt, "Replacement index %lld out of range for positional args tuple", (long long)i);
    return f->pos[i];
}

static struct jval first_part(struct braces *f, const struct jstr *name)
{
    int64_t i;
    if (name->n == 0) {
        if (f->auto_index < 0)
            jrt_fail(f->rt, "cannot switch from manual field specification to automatic field numbering");
        f->any_auto = true;
        return positional(f, f->auto_index++);
    }
    if (is_number(name, &i)) {
        if (f->any_auto)
            jrt_fail(f->rt, "cannot switch from automatic field numbering to manual field specification");
        f->auto_index = -1;
        return positional(f, i);
    }
    for (size_t k = 0; k < f->named->n_kw; k++)
        if (jstr_eq(f->named->kw[k].name, name))
            return f->named->kw[k].v;
    jrt_fail(f->rt, "'%.*s'", (int)name->n, name->p);
}

/* name.attr[key].attr ... */
static struct jval field_value(struct braces *f, const char *p, size_t n)
{
    size_t at = 0;
    while (at < n && p[at] != '.' && p[at] != '[')
        at++;
    struct jval v = first_part(f, jstr_ref(f->rt, p, at));
    while (at < n) {
        bool is_attr = p[at] == '.';
        size_t from = ++at;
        while (at < n && (is_attr ? p[at] != '.' && p[at] != '[' : p[at] != ']'))
            at++;
        struct jstr *key = jstr_ref(f->rt, p + from, at - from);
        int64_t i;
        if (!key->n)
            jrt_fail(f->rt, "Empty attribute in format string");
        if (is_attr)
            v = jaccess_attr(f->rt, v, key);
        else
            v = jaccess_item(f->rt, v, is_number(key, &i) ? jval_int(i) : jval_str(key));
        if (is_attr)
            continue;
        if (at++ == n)
            jrt_fail(f->rt, "Missing ']' in format string");
        if (at < n && p[at] != '.' && p[at] != '[')
            jrt_fail(f->rt, "Only '.' or '[' may follow ']' in format field specifier");
    }
    return v;
}

static bool is_align(uint32_t c)
{
    return c == '<' || c == '>' || c == '=' || c == '^';
}

static int64_t spec_number(struct braces *f, const struct jstr *s, size_t *at)
{
    int64_t n = 0;
    for (; *at < s->n && s->p[*at] >= '0' && s->p[*at] <= '9'; ++*at) {
        n = n * 10 + (s->p[*at] - '0');
        if (n > INT32_MAX)
            jrt_fail(f->rt, "Too many decimal digits in format string");
    }
    return n;
}

/* [[fill]align][sign][#][0][width][grouping][.precision][type] */
static struct jformat_spec parse_spec(struct braces *f, const struct jstr *s, struct jval v)
{
    struct jformat_spec spec = {.fill = ' ', .precision = -1, .sign = '-'};
    size_t at = 0, len = 0;
    uint32_t first = s->n ? ustr_at(s->p, &len) : 0;
    if (s->n > len && len && is_align((uint8_t)s->p[len])) {
        spec.fill = first;
        spec.align = s->p[len];
        at = len + 1;
    } else if (is_align(first)) {
        spec.align = s->p[at++];
    }
    if (at < s->n && (s->p[at] == '+' || s->p[at] == '-' || s->p[at] == ' '))
        spec.sign = s->p[at++];
    if (at < s->n && s->p[at] == '#')
        spec.alternate = at++ < s->n;
    if (at < s->n && s->p[at] == '0') {
        if (!spec.align) {
            spec.fill = '0';
            spec.align = v.kind == J_STR ? '<' : '=';
        }
        at++;
    }
    spec.width = spec_number(f, s, &at);
    if (at < s->n && (s->p[at] == ',' || s->p[at] == '_'))
        spec.group = s->p[at++];
    if (at < s->n && s->p[at] == '.') {
        size_t from = ++at;
        spec.precision = spec_number(f, s, &at);
        if (at == from)
            jrt_fail(f->rt, "Format specifier missing precision");
    }
    if (at < s->n)
        spec.type = s->p[at++];
    if (at != s->n)
        jrt_fail(f->rt, "Invalid format specifier");
    return spec;
}

static _Noreturn void unknown_code(struct braces *f, char type, struct jval v)
{
    jrt_fail(f->rt, "Unknown format code '%c' for object of type '%s'", type >= 32 && type < 127 ? type : '?',
             jval_type(v));
}

static void format_string(struct braces *f, struct jbuf *b, const struct jformat_spec *spec, struct jval v)
{
    if (spec->type && spec->type != 's')
        unknown_code(f, spec->type, v);
    if (spec->sign != '-' || spec->alternate || spec->group || spec->align == '=')
        jrt_fail(f->rt, "this format specifier is not allowed in string format specifier");
    jformat_text(f->rt, b, spec, v.s);
}

static void format_int(struct braces *f, struct jbuf *b, const struct jformat_spec *spec, struct jval v)
{
    int64_t i = jval_as_int(v);
    if (spec->type == 'c') {
        if (i < 0 || i > 0x10FFFF || (i >= 0xD800 && i < 0xE000))
            jrt_fail(f->rt, "%%c arg not in range(0x110000)");
        jformat_text(f->rt, b, spec, ustr_of_cp(f->rt, (uint32_t)i).s);
    } else if (!spec->type || strchr("dbxXon", spec->type)) {
        struct jformat_spec plain = *spec;
        plain.type = spec->type == 'n' ? 'd' : spec->type;
        if (spec->precision >= 0)
            jrt_fail(f->rt, "Precision not allowed in integer format specifier");
        jformat_int(f->rt, b, &plain, i);
    } else if (strchr("eEfFgG%", spec->type)) {
        jformat_float(f->rt, b, spec, (double)i);
    } else {
        unknown_code(f, spec->type, v);
    }
}

static void format_value(struct braces *f, struct jbuf *b, struct jval v, const struct jstr *s)
{
    if (!s->n) {
        jtext_str(f->rt, b, v);
        return;
    }
    if (v.kind != J_STR && !jval_is_num(v))
        jrt_fail(f->rt, "unsupported format string passed to %s.__format__", jval_type(v));
    struct jformat_spec spec = parse_spec(f, s, v);
    if (v.kind == J_STR) {
        format_string(f, b, &spec, v);
    } else if (jval_is_int(v)) {
        format_int(f, b, &spec, v);
    } else {
        if (spec.type && !strchr("eEfFgGn%", spec.type))
            unknown_code(f, spec.type, v);
        jformat_float(f->rt, b, &spec, v.f);
    }
}

static struct jval convert(struct braces *f, struct jval v, char conversion)
{
    struct jbuf b = {0};
    if (conversion == 'r')
        jtext_repr(f->rt, &b, v);
    else if (conversion == 's')
        jtext_str(f->rt, &b, v);
    else if (conversion == 'a')
        jformat_ascii(f->rt, &b, v);
    else
        jrt_fail(f->rt, "Unknown conversion specifier");
    return jval_of_buf(f->rt, &b);
}

/* The inside of one pair of braces. */
static void field(struct braces *f, struct jbuf *out, const char *p, size_t n, int depth)
{
    size_t name = 0, at;
    bool in_key = false;
    while (name < n && (in_key || (p[name] != ':' && p[name] != '!'))) {
        in_key = p[name] == '[' ? true : p[name] == ']' ? false : in_key;
        name++;
    }
    struct jval v = field_value(f, p, name);
    at = name;
    if (at < n && p[at] == '!') {
        if (at + 1 >= n || (at + 2 < n && p[at + 2] != ':'))
            jrt_fail(f->rt, "expected ':' after conversion specifier");
        v = convert(f, v, p[at + 1]);
        at += 2;
    }
    struct jbuf spec = {0}, text = {0};
    if (at < n)
        expand(f, &spec, jstr_ref(f->rt, p + at + 1, n - at - 1), depth - 1);
    format_value(f, &text, v, jstr_of_buf(f->rt, &spec));
    if (f->markup && !(v.kind == J_STR && v.markup))
        jtext_escape(f->rt, out, jstr_of_buf(f->rt, &text));
    else
        jbuf_add(f->rt, out, text.p, text.n);
}

/* The end of the field that begins at `at`: the position of its closing brace. */
static size_t field_end(struct braces *f, const struct jstr *s, size_t at)
{
    int open = 1;
    for (; at < s->n; at++) {
        open += s->p[at] == '{';
        open -= s->p[at] == '}';
        if (!open)
            return at;
    }
    jrt_fail(f->rt, "expected '}' before end of string");
}

static void expand(struct braces *f, struct jbuf *out, const struct jstr *s, int depth)
{
    if (depth < 0)
        jrt_fail(f->rt, "Max string recursion exceeded");
    for (size_t at = 0; at < s->n;) {
        char c = s->p[at];
        if (c != '{' && c != '}') {
            jbuf_putc(f->rt, out, c);
            at++;
        } else if (at + 1 < s->n && s->p[at + 1] == c) {
            jbuf_putc(f->rt, out, c);
            at += 2;
        } else if (c == '}' || at + 1 == s->n) {
            jrt_fail(f->rt, "Single '%c' encountered in format string", c);
        } else {
            size_t end = field_end(f, s, at + 1);
            field(f, out, s->p + at + 1, end - at - 1, depth);
            at = end + 1;
        }
    }
}

struct jval jformat_braces(struct jrt *rt, struct jval format, const struct jval *pos, size_t n_pos,
                           const struct jargs *named)
{
    struct braces f = {.rt = rt, .pos = pos, .n_pos = n_pos, .named = named, .markup = format.markup};
    struct jbuf out = {0};
    expand(&f, &out, format.s, 1);
    struct jval v = jval_of_buf(rt, &out);
    v.markup = format.markup;
    return v;
}
