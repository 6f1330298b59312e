/* One step of UTF-8 decoding, for everything in engine/ that meets bytes from outside. Ill-formed input is cut as the
 * Unicode standard recommends (chapter 3, "substitution of maximal subparts"), as WHATWG and Python's
 * errors='replace' do: so all of Galley replaces, splits and validates at the same places. */
#ifndef GALLEY_UTF8_H
#define GALLEY_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { UTF8_BAD = -1, UTF8_MORE = -2 };

/* Reads p[0..n), n > 0. Returns the code point; UTF8_BAD for a maximal ill-formed subpart; or UTF8_MORE when all n
 * bytes are a proper prefix of a well-formed character (at the end of a text that counts as bad). *len is the
 * number of bytes covered, at least 1 in every case. */
static inline int32_t utf8_next(const uint8_t *p, size_t n, size_t *len)
{
    uint8_t c = p[0], lo = 0x80, hi = 0xbf;
    *len = 1;
    if (c < 0x80)
        return c;
    int n_more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    if (c < 0xc2 || c > 0xf4)
        return UTF8_BAD;
    /* The second byte's range excludes overlong forms, surrogates and what lies beyond U+10FFFF. */
    if (c == 0xe0)
        lo = 0xa0;
    else if (c == 0xed)
        hi = 0x9f;
    else if (c == 0xf0)
        lo = 0x90;
    else if (c == 0xf4)
        hi = 0x8f;
    int32_t cp = c & (0x3f >> n_more);
    for (int i = 1; i <= n_more; i++) {
        if ((size_t)i == n)
            return UTF8_MORE;
        if (p[i] < lo || p[i] > hi)
            return UTF8_BAD;
        cp = cp << 6 | (p[i] & 0x3f);
        lo = 0x80;
        hi = 0xbf;
        *len = (size_t)i + 1;
    }
    return cp;
}

/* Length of the longest prefix of whole, well-formed characters. */
static inline size_t utf8_valid_prefix(const void *text, size_t n)
{
    const uint8_t *p = text;
    size_t at = 0, len;
    while (at < n) {
        uint64_t eight;
        if (n - at >= 8) { /* most text is ASCII */
            memcpy(&eight, p + at, 8);
            if (!(eight & 0x8080808080808080u)) {
                at += 8;
                continue;
            }
        }
        if (utf8_next(p + at, n - at, &len) < 0)
            break;
        at += len;
    }
    return at;
}

static inline bool utf8_valid(const void *text, size_t n)
{
    return utf8_valid_prefix(text, n) == n;
}

/* Writes cp (valid) to out[0..4); returns the number of bytes. */
static inline int utf8_put(int32_t cp, uint8_t *out)
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (uint8_t)(0xc0 | cp >> 6);
        out[1] = (uint8_t)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (uint8_t)(0xe0 | cp >> 12);
        out[1] = (uint8_t)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | cp >> 18);
    out[1] = (uint8_t)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (cp & 0x3f));
    return 4;
}

#endif
