#include "answer.h"

#include <ctype.h>
#include <string.h>

static bool is_space(char c)
{
    return isspace((unsigned char)c) != 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static struct slice trim(struct slice t)
{
    while (t.len && is_space(t.p[0]))
        t.p++, t.len--;
    while (t.len && is_space(t.p[t.len - 1]))
        t.len--;
    return t;
}

/* ---- Numbers ---- */

struct number { /* as it is written: whole . fraction */
    bool negative;
    struct slice whole, fraction;
};

/* Whether s[at..] is a comma and exactly three digits. */
static bool is_thousands(struct slice s, size_t at)
{
    return at + 3 < s.len && s.p[at] == ',' && is_digit(s.p[at + 1]) && is_digit(s.p[at + 2]) &&
           is_digit(s.p[at + 3]) && !(at + 4 < s.len && is_digit(s.p[at + 4]));
}

/* Whether what stands before s[at] is a minus: - or U+2212, a dollar sign between allowed, and nothing before it that
 * would make it a dash or a subtraction. */
static bool has_minus(struct slice s, size_t at)
{
    if (at > 0 && s.p[at - 1] == '$')
        at--;
    size_t len = at >= 1 && s.p[at - 1] == '-' ? 1 : at >= 3 && !memcmp(s.p + at - 3, "\xE2\x88\x92", 3) ? 3 : 0;
    if (!len)
        return false;
    char before = at > len ? s.p[at - len - 1] : ' ';
    return !isalnum((unsigned char)before) && before != ')' && before != ']';
}

static size_t digits_end(struct slice s, size_t at)
{
    while (at < s.len && is_digit(s.p[at]))
        at++;
    return at;
}

/* The number that begins at `at`; returns its end, or `at` when there is none. */
static size_t scan_number(struct slice s, size_t at, struct number *out)
{
    size_t end = digits_end(s, at), first = end - at;
    while (first >= 1 && first <= 3 && is_thousands(s, end))
        end += 4;
    struct number found = {.negative = has_minus(s, at), .whole = {s.p + at, end - at}};
    if (end + 1 < s.len && s.p[end] == '.' && is_digit(s.p[end + 1])) {
        size_t dot = end;
        end = digits_end(s, dot + 1);
        found.fraction = (struct slice){s.p + dot + 1, end - dot - 1};
    }
    if (end > at)
        *out = found;
    return end;
}

static void write_number(struct number v, struct text_buf *out)
{
    char digit[2] = {0};
    struct text_buf whole = {0};
    for (size_t i = 0; i < v.whole.len; i++) {
        digit[0] = v.whole.p[i];
        if (digit[0] != ',' && (whole.n || digit[0] != '0'))
            tb_str(&whole, digit);
    }
    while (v.fraction.len && v.fraction.p[v.fraction.len - 1] == '0')
        v.fraction.len--;
    if (v.negative && (whole.n || v.fraction.len))
        tb_str(out, "-");
    tb_add(out, whole.n ? whole.p : "0", whole.n ? whole.n : 1);
    if (v.fraction.len) {
        tb_str(out, ".");
        tb_add(out, v.fraction.p, v.fraction.len);
    }
    out->failed |= whole.failed;
    tb_free(&whole);
}

static struct slice last_line(struct slice s)
{
    s = trim(s);
    for (size_t i = s.len; i > 0; i--)
        if (s.p[i - 1] == '\n')
            return (struct slice){s.p + i, s.len - i};
    return s;
}

static bool extract_number(struct slice s, struct text_buf *out)
{
    struct number found;
    bool any = false;
    s = last_line(s);
    for (size_t at = 0; at < s.len;) {
        size_t end = scan_number(s, at, &found);
        any |= end > at;
        at = end > at ? end : at + 1;
    }
    if (any)
        write_number(found, out);
    return any;
}

/* ---- Texts ---- */

static bool extract_after(struct slice s, const char *marker, struct text_buf *out)
{
    size_t n_marker = strlen(marker), at = s.len + 1;
    for (size_t i = s.len < n_marker ? 0 : s.len - n_marker + 1; i > 0 && at > s.len; i--)
        if (!memcmp(s.p + i - 1, marker, n_marker))
            at = i - 1 + n_marker;
    if (at > s.len)
        return false;
    const char *end = memchr(s.p + at, '\n', s.len - at);
    struct slice rest = trim((struct slice){s.p + at, end ? (size_t)(end - s.p) - at : s.len - at});
    tb_add(out, rest.p, rest.len);
    return rest.len > 0;
}

bool answer_extract(const struct answer_rule *rule, const char *text, size_t n, struct text_buf *out)
{
    struct slice s = {n ? text : "", n};
    if (rule->kind == ANSWER_NUMBER)
        return extract_number(s, out);
    if (rule->kind == ANSWER_AFTER)
        return extract_after(s, rule->after, out);
    s = trim(s);
    tb_add(out, s.p, s.len);
    return s.len > 0;
}

/* ---- Steps ---- */

static int32_t count_lines(struct slice s)
{
    int32_t n = 0;
    bool blank = true;
    for (size_t i = 0; i < s.len; i++) {
        if (blank && !is_space(s.p[i]))
            n++;
        blank = s.p[i] == '\n' || (blank && is_space(s.p[i]));
    }
    return n;
}

static int32_t count_sentences(struct slice s)
{
    int32_t n = 0;
    bool open = false; /* a sentence has begun */
    s = trim(s);
    for (size_t i = 0; i < s.len; i++) {
        bool stop = strchr(".!?", s.p[i]) && s.p[i] && (i + 1 == s.len || is_space(s.p[i + 1]));
        bool ends = stop || s.p[i] == ';';
        n += open && ends;
        open = !ends && (open || isalnum((unsigned char)s.p[i]) || (unsigned char)s.p[i] >= 0x80);
    }
    return n + open;
}

void answer_steps(const struct slice *text, int32_t n, int32_t *steps)
{
    bool has_lines = false;
    for (int32_t i = 0; i < n; i++) {
        steps[i] = count_lines(text[i]);
        has_lines |= steps[i] > 1;
    }
    for (int32_t i = 0; !has_lines && i < n; i++)
        steps[i] = count_sentences(text[i]);
}
