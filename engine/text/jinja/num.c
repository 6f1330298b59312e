#include "num.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ustr.h"

/* Digits and decimal exponent of x = 0.d1d2d3... * 10^point, by printf with `prec` significant digits. */
static void digits_of(double x, int prec, char digit[20], int *point)
{
    char s[40];
    snprintf(s, sizeof s, "%.*e", prec - 1, x);
    int n = 0;
    const char *p = s;
    for (; *p != 'e'; p++)
        if (*p != '.')
            digit[n++] = *p;
    digit[n] = 0;
    *point = atoi(p + 1) + 1;
}

static bool reads_back(const char *digit, int point, double x)
{
    char s[48];
    snprintf(s, sizeof s, "0.%se%d", digit, point);
    return strtod(s, NULL) == x;
}

/* The next greater decimal of the same length. False if it would get longer. */
static bool digits_up(char *digit)
{
    for (size_t i = strlen(digit); i-- > 0;) {
        if (digit[i] != '9') {
            digit[i]++;
            return true;
        }
        digit[i] = '0';
    }
    return false;
}

/* The shortest digits that read back as x > 0. A power of two has a narrower gap below than above, so there the decimal
 * above may do where the nearest one does not. */
static void shortest(double x, char digit[20], int *point)
{
    int exponent;
    bool power_of_two = frexp(x, &exponent) == 0.5;
    /* Fifteen digits survive a double, so a normal number that 15 digits describe has no other shortest form. */
    int from = x >= 1e-290 ? 15 : 1;
    for (int prec = from; prec <= 17; prec++) {
        digits_of(x, prec, digit, point);
        if (reads_back(digit, *point, x))
            break;
        if (power_of_two && digits_up(digit) && reads_back(digit, *point, x))
            break;
    }
    for (size_t n = strlen(digit); n > 1 && digit[n - 1] == '0'; n--)
        digit[n - 1] = 0;
}

int jnum_repr(double x, char out[JNUM_REPR_MAX])
{
    if (isnan(x))
        return snprintf(out, JNUM_REPR_MAX, "nan");
    if (isinf(x))
        return snprintf(out, JNUM_REPR_MAX, x < 0 ? "-inf" : "inf");
    const char *sign = signbit(x) ? "-" : "";
    if (x == 0)
        return snprintf(out, JNUM_REPR_MAX, "%s0.0", sign);
    char digit[20];
    int point;
    shortest(fabs(x), digit, &point);
    int n = (int)strlen(digit);
    if (point <= -4 || point > 16)
        return snprintf(out, JNUM_REPR_MAX, "%s%c%s%se%+03d", sign, digit[0], n > 1 ? "." : "", digit + 1, point - 1);
    if (point <= 0)
        return snprintf(out, JNUM_REPR_MAX, "%s0.%.*s%s", sign, -point, "0000", digit);
    if (point >= n)
        return snprintf(out, JNUM_REPR_MAX, "%s%s%.*s.0", sign, digit, point - n, "0000000000000000");
    return snprintf(out, JNUM_REPR_MAX, "%s%.*s.%s", sign, point, digit, digit + point);
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

static int prefix_base(const char *p, size_t n)
{
    if (n < 2 || p[0] != '0')
        return 0;
    switch (p[1] | 0x20) {
    case 'x':
        return 16;
    case 'o':
        return 8;
    case 'b':
        return 2;
    default:
        return 0;
    }
}

bool jnum_parse_int(const char *p, size_t n, int base, int64_t *out, bool *overflow)
{
    size_t at = 0, end = n;
    *overflow = false;
    ustr_strip_space(p, &at, &end, true, true);
    bool negative = at < end && p[at] == '-';
    if (at < end && (p[at] == '-' || p[at] == '+'))
        at++;
    int prefix = prefix_base(p + at, end - at);
    bool underscore = false; /* one may stand between digits and after a prefix */
    bool base_from_text = base == 0;
    if (base_from_text)
        base = prefix ? prefix : 10;
    if (prefix == base) {
        at += 2;
        underscore = at < end && p[at] == '_';
        at += underscore;
    }
    if (at == end || p[at] == '_')
        return false;
    size_t digits = at;
    uint64_t value = 0, max = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
    for (; at < end; at++) {
        if (p[at] == '_') {
            if (at + 1 == end || p[at + 1] == '_')
                return false;
            continue;
        }
        int d = digit_value(p[at]);
        if (d >= base)
            return false;
        if (value > (max - (uint64_t)d) / (uint64_t)base)
            *overflow = true;
        value = value * (uint64_t)base + (uint64_t)d;
    }
    if (base_from_text && !prefix && p[digits] == '0' && value != 0)
        return false; /* 010 is no number of base 0 */
    *out = (int64_t)(negative ? 0 - value : value);
    return true;
}

/* Digits with single underscores between them; copies them without. */
static size_t copy_digits(const char *p, size_t at, size_t end, char *out, size_t *n_out)
{
    size_t from = at;
    while (at < end) {
        if (p[at] >= '0' && p[at] <= '9')
            out[(*n_out)++] = p[at];
        else if (p[at] != '_' || at == from || at + 1 == end || p[at + 1] < '0' || p[at + 1] > '9')
            break;
        at++;
    }
    return at;
}

static bool parse_special_float(const char *p, size_t n, double *out)
{
    static const char *const name[] = {"inf", "infinity", "nan"};
    for (size_t i = 0; i < 3; i++) {
        if (n != strlen(name[i]) || strncasecmp(p, name[i], n) != 0)
            continue;
        *out = i == 2 ? NAN : INFINITY;
        return true;
    }
    return false;
}

bool jnum_parse_float(struct jrt *rt, const char *p, size_t n, double *out)
{
    size_t at = 0, end = n, n_text = 0;
    ustr_strip_space(p, &at, &end, true, true);
    char *text = jrt_alloc(rt, end - at + 1);
    bool negative = at < end && p[at] == '-';
    if (at < end && (p[at] == '-' || p[at] == '+'))
        at++;
    if (parse_special_float(p + at, end - at, out)) {
        *out = negative ? -*out : *out;
        return true;
    }
    at = copy_digits(p, at, end, text, &n_text);
    size_t n_digit = n_text;
    if (at < end && p[at] == '.') {
        text[n_text++] = '.';
        at = copy_digits(p, at + 1, end, text, &n_text);
        n_digit = n_text - 1;
    }
    if (n_digit == 0)
        return false;
    if (at < end && (p[at] | 0x20) == 'e') {
        text[n_text++] = 'e';
        if (++at < end && (p[at] == '-' || p[at] == '+'))
            text[n_text++] = p[at++];
        size_t before = n_text;
        at = copy_digits(p, at, end, text, &n_text);
        if (n_text == before)
            return false;
    }
    if (at != end)
        return false;
    text[n_text] = 0;
    *out = negative ? -strtod(text, NULL) : strtod(text, NULL);
    return true;
}

double jnum_round(double x, int64_t n_digits)
{
    if (!isfinite(x) || n_digits > 323)
        return x;
    if (n_digits < -308)
        return copysign(0, x);
    if (n_digits >= 0) { /* printf rounds the exact value, half to even, as Python does */
        char s[700];
        snprintf(s, sizeof s, "%.*f", (int)n_digits, x);
        return strtod(s, NULL);
    }
    double unit = pow(10, (double)-n_digits), q = x / unit, r = nearbyint(q);
    return r * unit;
}
