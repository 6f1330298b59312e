/* Layout of single values, for both ways of formatting. */
#include "format.h"

#include <math.h>
#include <stdio.h>

#include "num.h"
#include "text.h"
#include "ustr.h"

enum { PRECISION_MAX = 2000 };

static void fill(struct jrt *rt, struct jbuf *b, uint32_t cp, int64_t n)
{
    jrt_step(rt, (uint64_t)n / 16);
    for (int64_t i = 0; i < n; i++)
        jbuf_cp(rt, b, cp);
}

/* `head` (sign and prefix) and `body`, padded to the width. */
static void lay_out(struct jrt *rt, struct jbuf *b, const struct jformat_spec *spec, const struct jbuf *head,
                    const struct jbuf *body, char align)
{
    int64_t n = (int64_t)(ustr_count(head->p, head->n) + ustr_count(body->p, body->n));
    int64_t pad = spec->width > n ? spec->width - n : 0;
    if (pad > (int64_t)rt->limit.memory_bytes)
        jrt_limit(rt, "the template needs too much memory (limit: %zu bytes)", rt->limit.memory_bytes);
    int64_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0, middle = align == '=' ? pad : 0;
    fill(rt, b, spec->fill, left);
    jbuf_add(rt, b, head->p, head->n);
    fill(rt, b, spec->fill, middle);
    jbuf_add(rt, b, body->p, body->n);
    fill(rt, b, spec->fill, pad - left - middle);
}

/* Digits with a separator every `every` places; with '=' and '0' Python also groups the padding, up to the width. */
static void group(struct jrt *rt, struct jbuf *out, const char *digit, size_t n, const struct jformat_spec *spec,
                  size_t n_around, size_t every)
{
    size_t n_zero = 0;
    jrt_step(rt, (uint64_t)spec->width / 16);
    if (spec->align == '=' && spec->fill == '0' && spec->width < (int64_t)rt->limit.memory_bytes)
        while ((n + n_zero) + (n + n_zero - 1) / every + n_around < (size_t)spec->width)
            n_zero++;
    for (size_t i = 0; i < n + n_zero; i++) {
        if (i && (n + n_zero - i) % every == 0)
            jbuf_putc(rt, out, spec->group);
        jbuf_putc(rt, out, i < n_zero ? '0' : digit[i - n_zero]);
    }
}

static void add_sign(struct jrt *rt, struct jbuf *head, bool negative, char sign)
{
    if (negative)
        jbuf_putc(rt, head, '-');
    else if (sign == '+' || sign == ' ')
        jbuf_putc(rt, head, sign);
}

void jformat_int(struct jrt *rt, struct jbuf *b, const struct jformat_spec *spec, int64_t i)
{
    struct jbuf head = {0}, body = {0}, digits = {0};
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    char type = spec->type ? spec->type : 'd', text[72];
    unsigned base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
    size_t at = sizeof text;
    do {
        text[--at] = (type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[u % base];
        u /= base;
    } while (u);
    add_sign(rt, &head, i < 0, spec->sign);
    if (spec->alternate && base != 10) {
        jbuf_putc(rt, &head, '0');
        jbuf_putc(rt, &head, type);
    }
    if (spec->min_digits > (int64_t)(sizeof text - at))
        jbuf_fill(rt, &digits, '0', (size_t)(spec->min_digits - (int64_t)(sizeof text - at)));
    jbuf_add(rt, &digits, text + at, sizeof text - at);
    if (spec->group)
        group(rt, &body, digits.p, digits.n, spec, head.n, base == 10 ? 3 : 4);
    else
        body = digits;
    lay_out(rt, b, spec, &head, &body, spec->align ? spec->align : '>');
}

/* str(f) with a limited number of digits: %g that always shows it is a float. */
static void general(struct jrt *rt, struct jbuf *b, double f, int precision)
{
    size_t before = b->n;
    jbuf_printf(rt, b, "%.*g", precision, f);
    char *p = b->p + before;
    size_t n = b->n - before;
    if (!isfinite(f) || memchr(p, '.', n))
        return;
    const char *e = memchr(p, 'e', n);
    if (!e && (int)n >= precision && precision > 0 && f != 0) { /* no room for a decimal: exponent form */
        b->n = before;
        jbuf_printf(rt, b, "%.*e", precision - 1, f);
        return;
    }
    if (!e)
        jbuf_puts(rt, b, ".0");
}

static void float_digits(struct jrt *rt, struct jbuf *b, const struct jformat_spec *spec, double f)
{
    int precision = spec->precision < 0 ? 6 : (int)spec->precision;
    char num[JNUM_REPR_MAX];
    char type = spec->type == '%' ? 'f' : spec->type == 'n' ? 'g' : spec->type;
    if (spec->precision > PRECISION_MAX)
        jrt_fail(rt, "precision too big");
    if (!type && spec->precision < 0) {
        jbuf_add(rt, b, num, (size_t)jnum_repr(f, num));
        return;
    }
    if (!type) {
        general(rt, b, f, precision ? precision : 1);
        return;
    }
    size_t n = (size_t)precision + 400; /* a double has at most 309 digits before the point */
    char *text = jrt_alloc(rt, n);
    bool alt = spec->alternate;
    switch (type) { /* literal formats, so that the compiler checks them */
    case 'e':
        snprintf(text, n, alt ? "%#.*e" : "%.*e", precision, f);
        break;
    case 'E':
        snprintf(text, n, alt ? "%#.*E" : "%.*E", precision, f);
        break;
    case 'g':
        snprintf(text, n, alt ? "%#.*g" : "%.*g", precision, f);
        break;
    case 'G':
        snprintf(text, n, alt ? "%#.*G" : "%.*G", precision, f);
        break;
    case 'F':
        snprintf(text, n, alt ? "%#.*F" : "%.*F", precision, f);
        break;
    default:
        snprintf(text, n, alt ? "%#.*f" : "%.*f", precision, f);
    }
    jbuf_puts(rt, b, text);
}

void jformat_float(struct jrt *rt, struct jbuf *b, const struct jformat_spec *spec, double f)
{
    struct jbuf head = {0}, body = {0}, digits = {0};
    bool negative = signbit(f) && !isnan(f);
    double shown = fabs(f);
    add_sign(rt, &head, negative, spec->sign);
    float_digits(rt, &digits, spec, spec->type == '%' ? shown * 100 : shown);
    if (spec->type == '%')
        jbuf_putc(rt, &digits, '%');
    if (spec->group && isfinite(f)) {
        size_t n_whole = 0;
        while (n_whole < digits.n && digits.p[n_whole] >= '0' && digits.p[n_whole] <= '9')
            n_whole++;
        group(rt, &body, digits.p, n_whole, spec, head.n + digits.n - n_whole, 3);
        jbuf_add(rt, &body, digits.p + n_whole, digits.n - n_whole);
    } else {
        body = digits;
    }
    lay_out(rt, b, spec, &head, &body, spec->align ? spec->align : '>');
}

void jformat_text(struct jrt *rt, struct jbuf *b, const struct jformat_spec *spec, const struct jstr *s)
{
    struct jbuf head = {0}, body = {.p = (char *)s->p, .n = s->n};
    if (spec->precision >= 0) {
        struct jstr whole = *s;
        body.n = ustr_offset(rt, &whole, (size_t)spec->precision);
    }
    lay_out(rt, b, spec, &head, &body, spec->align ? spec->align : '<');
}

void jformat_ascii(struct jrt *rt, struct jbuf *b, struct jval v)
{
    struct jbuf r = {0};
    jtext_repr(rt, &r, v);
    for (size_t at = 0, len; at < r.n; at += len) {
        uint32_t cp = ustr_at(r.p + at, &len);
        if (cp < 0x80)
            jbuf_putc(rt, b, (char)cp);
        else
            jbuf_printf(rt, b, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
    }
}
