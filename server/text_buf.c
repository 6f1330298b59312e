#include "text_buf.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

void tb_free(struct text_buf *b)
{
    mem_free(b->p);
    *b = (struct text_buf){0};
}

void tb_drop(struct text_buf *b, size_t n)
{
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

static bool reserve(struct text_buf *b, size_t n)
{
    if (b->cap - b->n >= n)
        return true;
    size_t cap = b->cap ? b->cap : 256;
    while (cap - b->n < n)
        cap *= 2;
    char *p = b->failed ? NULL : mem_realloc(b->p, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void tb_add(struct text_buf *b, const char *bytes, size_t n)
{
    if (!n || !reserve(b, n))
        return;
    memcpy(b->p + b->n, bytes, n);
    b->n += n;
}

void tb_str(struct text_buf *b, const char *s)
{
    tb_add(b, s, strlen(s));
}

void tb_printf(struct text_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n > 0 && reserve(b, (size_t)n + 1)) {
        vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
    va_end(ap);
}

/* Length of the UTF-8 sequence at s, 0 when it is malformed, overlong, a surrogate or cut short. */
static size_t utf8_len(const unsigned char *s, size_t n)
{
    size_t len = s[0] < 0x80                   ? 1
                 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
                 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
                 : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                               : 0;
    if (!len || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] >= 0xA0) || (s[0] == 0xF0 && s[1] < 0x90) ||
        (s[0] == 0xF4 && s[1] >= 0x90))
        return 0;
    return len;
}

void tb_escape(struct text_buf *b, const char *bytes, size_t n)
{
    static const char short_escape[32] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    const unsigned char *s = (const unsigned char *)bytes;
    size_t plain = 0; /* start of what needs no escape and is not written yet */
    for (size_t i = 0; i < n;) {
        size_t len = utf8_len(s + i, n - i);
        bool escape = len == 0 || s[i] < 0x20 || s[i] == '"' || s[i] == '\\' || s[i] == 0x7f;
        if (!escape) {
            i += len;
            continue;
        }
        tb_add(b, bytes + plain, i - plain);
        if (len == 0)
            tb_str(b, "\xEF\xBF\xBD");
        else if (s[i] == '"' || s[i] == '\\')
            tb_add(b, (char[]){'\\', (char)s[i]}, 2);
        else if (s[i] < 0x20 && short_escape[s[i]])
            tb_add(b, (char[]){'\\', short_escape[s[i]]}, 2);
        else
            tb_printf(b, "\\u%04x", s[i]);
        plain = ++i;
    }
    tb_add(b, bytes + plain, n - plain);
}

void tb_json(struct text_buf *b, const char *bytes, size_t n)
{
    tb_add(b, "\"", 1);
    tb_escape(b, bytes, n);
    tb_add(b, "\"", 1);
}

void tb_json_str(struct text_buf *b, const char *s)
{
    if (s)
        tb_json(b, s, strlen(s));
    else
        tb_str(b, "null");
}

void tb_float(struct text_buf *b, float v)
{
    char text[32];
    if (!isfinite(v))
        v = isnan(v) ? 0 : v < 0 ? -9999 : 9999;
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v)
            break;
    }
    tb_str(b, text);
}

void tb_double(struct text_buf *b, double v)
{
    char text[32];
    if (!isfinite(v))
        v = isnan(v) ? 0 : v < 0 ? -9999 : 9999;
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    tb_str(b, text);
}

void tb_int(struct text_buf *b, int64_t v)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%lld", (long long)v);
    tb_add(b, text, (size_t)n);
}
