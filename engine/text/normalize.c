/* Unicode NFC, which some models' tokenizers apply before anything else. */
#include <string.h>
#include <utf8proc.h>

#include "mem.h"
#include "text/utf8.h"
#include "tok_impl.h"

/* utf8proc sorts a run of combining marks by insertion, so an endless run would take quadratic time. Real text has a
 * handful (Unicode's stream-safe format allows 30); text with more than this stays as it is. */
enum { MAX_MARKS = 256 };

/* Whether NFC can differ from the text at all: below U+0300 every character is NFC on its own. */
static bool may_change(struct slice in)
{
    for (size_t i = 0; i < in.len; i++)
        if ((uint8_t)in.p[i] >= 0xcc)
            return true;
    return false;
}

static bool has_endless_marks(const int32_t *cp, size_t n)
{
    size_t run = 0;
    for (size_t i = 0; i < n; i++) {
        run = utf8proc_get_property(cp[i])->combining_class ? run + 1 : 0;
        if (run > MAX_MARKS)
            return true;
    }
    return false;
}

static int grow(void **p, size_t *cap, size_t need, size_t each)
{
    if (need <= *cap)
        return 0;
    size_t more = need + need / 2;
    void *q = mem_realloc(*p, more * each);
    if (!q)
        return -ERR_NOMEM;
    *p = q;
    *cap = more;
    return 0;
}

/* Canonical decomposition by single characters; the marks are not in order yet. `out` has room for two code points a
 * byte: U+0390, of two bytes, becomes three, and nothing grows more. Returns how many. */
static size_t decompose(struct slice in, int32_t *out)
{
    size_t n = 0;
    for (size_t at = 0, len; at < in.len; at += len) {
        int32_t cp = utf8_next((const uint8_t *)in.p + at, in.len - at, &len);
        int unused = 0;
        utf8proc_ssize_t made = utf8proc_decompose_char(cp, out + n, 4, UTF8PROC_DECOMPOSE, &unused);
        n += made > 0 ? (size_t)made : 0;
    }
    return n;
}

/* Marks in the order of their combining classes, by insertion: the runs are short. */
static void marks_sort(int32_t *cp, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        int32_t c = cp[i];
        int class = utf8proc_get_property(c)->combining_class;
        size_t k = i;
        for (; class && k > 0 && utf8proc_get_property(cp[k - 1])->combining_class > class; k--)
            cp[k] = cp[k - 1];
        cp[k] = c;
    }
}

/* Appends the NFC of one stretch to s->text. */
static int stretch_nfc(struct normal_scratch *s, struct slice in, size_t *n_text)
{
    if (grow((void **)&s->cp, &s->cp_cap, 2 * in.len + 4, sizeof *s->cp))
        return -ERR_NOMEM;
    size_t n = decompose(in, s->cp);
    bool is_kept = has_endless_marks(s->cp, n);
    if (!is_kept) {
        marks_sort(s->cp, n);
        n = (size_t)utf8proc_normalize_utf32(s->cp, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    }
    if (grow((void **)&s->text, &s->text_cap, *n_text + (is_kept ? in.len : 4 * n), 1))
        return -ERR_NOMEM;
    if (is_kept) {
        memcpy(s->text + *n_text, in.p, in.len);
        *n_text += in.len;
        return 0;
    }
    for (size_t i = 0; i < n; i++)
        *n_text += (size_t)utf8_put(s->cp[i], (uint8_t *)s->text + *n_text);
    return 0;
}

static bool is_ascii(char c)
{
    return !((uint8_t)c & 0x80);
}

int normalize_spaces(struct normal_scratch *s, struct slice in, bool prefix, struct slice *out)
{
    static const char space[3] = "\xe2\x96\x81"; /* U+2581 */
    size_t n = 0;
    if (grow((void **)&s->text, &s->text_cap, in.len + 1, 1))
        return -ERR_NOMEM;
    if (prefix)
        s->text[n++] = ' ';
    for (size_t at = 0; at < in.len; at++) {
        bool is_space = in.len - at >= sizeof space && !memcmp(in.p + at, space, sizeof space);
        s->text[n++] = is_space ? ' ' : in.p[at];
        at += is_space ? sizeof space - 1 : 0;
    }
    *out = (struct slice){s->text, n};
    return 0;
}

int normalize_nfc(struct normal_scratch *s, struct slice in, struct slice *out)
{
    *out = in;
    if (!may_change(in))
        return 0;
    size_t n_text = 0;
    for (size_t at = 0, end; at < in.len; at = end) {
        size_t start = at;
        while (at < in.len && is_ascii(in.p[at]))
            at++;
        for (end = at; end < in.len && !is_ascii(in.p[end]);)
            end++;
        /* ASCII is copied, except for a last character that the next stretch may put marks on. */
        size_t n_copy = at - start - (at > start && end > at);
        if (grow((void **)&s->text, &s->text_cap, n_text + n_copy, 1))
            return -ERR_NOMEM;
        if (n_copy)
            memcpy(s->text + n_text, in.p + start, n_copy);
        n_text += n_copy;
        struct slice stretch = {in.p + start + n_copy, end - start - n_copy};
        if (stretch.len && stretch_nfc(s, stretch, &n_text))
            return -ERR_NOMEM;
    }
    *out = (struct slice){s->text, n_text};
    return 0;
}
