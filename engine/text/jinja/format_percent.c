/* '%s and %d' % (a, b): printf-style formatting. */
#include <math.h>

#include "format.h"
#include "text.h"
#include "ustr.h"

struct percent {
    struct jrt *rt;
    struct jbuf out;
    const struct jstr *format;
    size_t at;
    const struct jval *arg; /* positional */
    size_t n_arg, i_arg;
    struct jval mapping; /* %(name)s looks here; J_MISSING if the argument is no mapping */
    bool markup;         /* the format is a Markup: arguments are escaped */
};

static char peek(const struct percent *f)
{
    return f->at < f->format->n ? f->format->p[f->at] : 0;
}

static struct jval next_arg(struct percent *f)
{
    if (f->i_arg >= f->n_arg)
        jrt_fail(f->rt, "not enough arguments for format string");
    return f->arg[f->i_arg++];
}

static struct jval named_arg(struct percent *f)
{
    size_t from = ++f->at, depth = 1;
    for (; f->at < f->format->n; f->at++) {
        char c = f->format->p[f->at];
        depth += c == '(';
        depth -= c == ')';
        if (depth == 0)
            break;
    }
    if (depth)
        jrt_fail(f->rt, "incomplete format key");
    struct jstr *key = jstr_ref(f->rt, f->format->p + from, f->at++ - from);
    if (f->mapping.kind == J_UNDEF)
        jundef_fail(f->rt, f->mapping.u);
    if (f->mapping.kind != J_DICT)
        jrt_fail(f->rt, "format requires a mapping");
    const struct jval *v = jdict_get_str(f->rt, f->mapping.d, key);
    if (!v)
        jrt_fail(f->rt, "'%.*s'", (int)key->n, key->p);
    return *v;
}

static int64_t number(struct percent *f)
{
    int64_t n = 0;
    if (peek(f) == '*') {
        f->at++;
        struct jval v = next_arg(f);
        if (!jval_is_int(v))
            jrt_fail(f->rt, "* wants int");
        return jval_as_int(v);
    }
    for (; peek(f) >= '0' && peek(f) <= '9'; f->at++) {
        n = n * 10 + (peek(f) - '0');
        if (n > INT32_MAX)
            jrt_fail(f->rt, "width too big");
    }
    return n;
}

static int64_t as_integer(struct percent *f, struct jval v, char type)
{
    if (v.kind == J_FLOAT && (type == 'd' || type == 'i' || type == 'u')) {
        if (!(fabs(v.f) < 0x1p63))
            jrt_fail(f->rt, "cannot convert float to a 64-bit integer");
        return (int64_t)v.f;
    }
    if (v.kind == J_UNDEF)
        jundef_fail(f->rt, v.u);
    if (!jval_is_int(v))
        jrt_fail(f->rt, "%%%c format: %s is required, not %s", type,
                 type == 'd' || type == 'i' || type == 'u' ? "a real number" : "an integer", jval_type(v));
    return jval_as_int(v);
}

static void character(struct percent *f, const struct jformat_spec *spec, struct jval v)
{
    struct jstr *s = v.s;
    if (jval_is_int(v)) {
        int64_t cp = jval_as_int(v);
        if (cp < 0 || cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
            jrt_fail(f->rt, "%%c arg not in range(0x110000)");
        s = ustr_of_cp(f->rt, (uint32_t)cp).s;
    } else if (v.kind != J_STR || ustr_len(f->rt, s) != 1) {
        jrt_fail(f->rt, "%%c requires int or char");
    }
    jformat_text(f->rt, &f->out, spec, s);
}

static void text(struct percent *f, const struct jformat_spec *spec, struct jval v, char type)
{
    struct jbuf b = {0};
    if (type == 's')
        jtext_str(f->rt, &b, v);
    else if (type == 'r')
        jtext_repr(f->rt, &b, v);
    else
        jformat_ascii(f->rt, &b, v);
    struct jval s = jval_of_buf(f->rt, &b);
    if (f->markup && !(type == 's' && v.kind == J_STR && v.markup))
        s = jtext_escaped(f->rt, s);
    jformat_text(f->rt, &f->out, spec, s.s);
}

static void convert(struct percent *f, struct jformat_spec *spec, struct jval v, char type)
{
    bool zero = spec->align == '=';
    switch (type) {
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        spec->type = type == 'i' || type == 'u' ? 'd' : type;
        spec->min_digits = spec->precision;
        jformat_int(f->rt, &f->out, spec, as_integer(f, v, type));
        return;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        spec->type = type;
        if (v.kind == J_UNDEF)
            jundef_fail(f->rt, v.u);
        if (!jval_is_num(v))
            jrt_fail(f->rt, "must be real number, not %s", jval_type(v));
        jformat_float(f->rt, &f->out, spec, jval_as_float(v));
        return;
    case 'c':
    case 's':
    case 'r':
    case 'a':
        if (zero) {
            spec->align = '>';
            spec->fill = ' ';
        }
        if (type == 'c')
            character(f, spec, v);
        else
            text(f, spec, v, type);
        return;
    default:
        jrt_fail(f->rt, "unsupported format character '%c'", type >= 32 && type < 127 ? type : '?');
    }
}

static void flags(struct percent *f, struct jformat_spec *spec)
{
    bool left = false;
    for (;; f->at++) {
        switch (peek(f)) {
        case '-':
            left = true;
            continue;
        case '+':
            spec->sign = '+';
            continue;
        case ' ':
            spec->sign = spec->sign == '+' ? '+' : ' ';
            continue;
        case '#':
            spec->alternate = true;
            continue;
        case '0':
            spec->align = '=';
            spec->fill = '0';
            continue;
        default:
            break;
        }
        break;
    }
    if (left) {
        spec->align = '<';
        spec->fill = ' ';
    }
}

static void directive(struct percent *f)
{
    struct jformat_spec spec = {.fill = ' ', .align = '>', .precision = -1};
    struct jval v = jval_missing();
    if (peek(f) == '(')
        v = named_arg(f);
    flags(f, &spec);
    spec.width = number(f);
    if (spec.width < 0) {
        spec.align = '<';
        spec.fill = ' ';
        spec.width = spec.width == INT64_MIN ? INT64_MAX : -spec.width;
    }
    if (peek(f) == '.') {
        f->at++;
        spec.precision = number(f);
        if (spec.precision < 0)
            spec.precision = 0;
    }
    while (peek(f) == 'h' || peek(f) == 'l' || peek(f) == 'L')
        f->at++;
    if (f->at == f->format->n)
        jrt_fail(f->rt, "incomplete format");
    char type = f->format->p[f->at++];
    if (type == '%') {
        jbuf_putc(f->rt, &f->out, '%');
        return;
    }
    if (v.kind == J_MISSING)
        v = next_arg(f);
    convert(f, &spec, v, type);
}

struct jval jformat_percent(struct jrt *rt, struct jval format, struct jval args)
{
    struct percent f = {.rt = rt, .format = format.s, .markup = format.markup};
    bool subscriptable = args.kind == J_DICT || args.kind == J_LIST || args.kind == J_UNDEF || args.kind == J_RANGE;
    f.mapping = subscriptable ? args : jval_missing();
    f.arg = args.kind == J_TUPLE ? args.l->v : &args;
    f.n_arg = args.kind == J_TUPLE ? args.l->n : 1;
    while (f.at < f.format->n) {
        const char *p = f.format->p + f.at, *hit = memchr(p, '%', f.format->n - f.at);
        size_t n = hit ? (size_t)(hit - p) : f.format->n - f.at;
        jbuf_add(rt, &f.out, p, n);
        f.at += n;
        if (hit) {
            f.at++;
            directive(&f);
        }
    }
    if (f.i_arg < f.n_arg && f.mapping.kind == J_MISSING)
        jrt_fail(rt, "not all arguments converted during string formatting");
    struct jval v = jval_of_buf(rt, &f.out);
    v.markup = format.markup;
    return v;
}
