/* Strings as Python sees them: sequences of code points, with Python's character classes and case mappings.
 * All strings are valid UTF-8. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_USTR_H
#define GALLEY_JINJA_USTR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "value.h"

/* One code point at p (valid UTF-8); *len is its number of bytes. */
static inline uint32_t ustr_at(const char *text, size_t *len)
{
    const uint8_t *p = (const uint8_t *)text;
    if (p[0] < 0x80)
        return *len = 1, p[0];
    if (p[0] < 0xE0)
        return *len = 2, (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    if (p[0] < 0xF0)
        return *len = 3, (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    return *len = 4, (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

/* The code point that ends at text[at); *len is its number of bytes. */
static inline uint32_t ustr_before(const char *text, size_t at, size_t *len)
{
    size_t from = at - 1, n;
    while (((uint8_t)text[from] & 0xC0) == 0x80)
        from--;
    uint32_t cp = ustr_at(text + from, &n);
    *len = at - from;
    return cp;
}

size_t ustr_count(const char *p, size_t n);                          /* code points */
size_t ustr_len(struct jrt *rt, struct jstr *s);                     /* the same, remembered */
size_t ustr_offset(struct jrt *rt, struct jstr *s, size_t cp_index); /* in bytes */
struct jval ustr_char(struct jrt *rt, struct jstr *s, size_t cp_index);
struct jval ustr_of_cp(struct jrt *rt, uint32_t cp);

/* Bytes: the first or last place of a needle in p[0..n), or SIZE_MAX. An empty needle is found at the ends. */
size_t ustr_find(const char *p, size_t n, const char *needle, size_t n_needle);
size_t ustr_rfind(struct jrt *rt, const char *p, size_t n, const char *needle, size_t n_needle);

bool ustr_is_space(uint32_t cp);
bool ustr_is_line_end(uint32_t cp); /* for str.splitlines */
bool ustr_is_alpha(uint32_t cp);
bool ustr_is_decimal(uint32_t cp);
bool ustr_is_digit(uint32_t cp);
bool ustr_is_numeric(uint32_t cp);
bool ustr_is_lower(uint32_t cp);
bool ustr_is_upper(uint32_t cp);
bool ustr_is_title(uint32_t cp);
bool ustr_is_printable(uint32_t cp);
bool ustr_is_word(uint32_t cp); /* \w of a regular expression */
bool ustr_is_id_start(uint32_t cp);
bool ustr_is_id_continue(uint32_t cp);

enum ustr_case { USTR_LOWER, USTR_UPPER, USTR_TITLE, USTR_FOLD };
/* One character's mapping; `text[at)` is what it stands in, for the final sigma of Greek words. */
void ustr_add_case(struct jrt *rt, struct jbuf *b, const struct jstr *s, size_t at, uint32_t cp, enum ustr_case how);
struct jval ustr_map_case(struct jrt *rt, const struct jstr *s, enum ustr_case how); /* every character */

/* Narrows [*from, *to) of p to what is left without whitespace. */
void ustr_strip_space(const char *p, size_t *from, size_t *to, bool left, bool right);

#endif
