#include "ustr.h"

#include <utf8proc.h>

#include "special_case.h"

size_t ustr_count(const char *p, size_t n)
{
    size_t n_cp = 0;
    for (size_t i = 0; i < n; i++)
        n_cp += ((uint8_t)p[i] & 0xC0) != 0x80;
    return n_cp;
}

size_t ustr_len(struct jrt *rt, struct jstr *s)
{
    if (s->n_cp == SIZE_MAX) {
        jrt_charge(rt, s->n);
        s->n_cp = ustr_count(s->p, s->n);
    }
    return s->n_cp;
}

size_t ustr_offset(struct jrt *rt, struct jstr *s, size_t cp_index)
{
    if (ustr_len(rt, s) == s->n) /* ASCII */
        return cp_index < s->n ? cp_index : s->n;
    if (cp_index >= s->n_cp)
        return s->n;
    jrt_charge(rt, s->n);
    size_t at = 0;
    for (size_t len; cp_index; cp_index--, at += len)
        ustr_at(s->p + at, &len);
    return at;
}

struct jval ustr_char(struct jrt *rt, struct jstr *s, size_t cp_index)
{
    size_t at = ustr_offset(rt, s, cp_index), len;
    ustr_at(s->p + at, &len);
    return jval_strn(rt, s->p + at, len);
}

struct jval ustr_of_cp(struct jrt *rt, uint32_t cp)
{
    struct jbuf b = {0};
    jbuf_cp(rt, &b, cp);
    return jval_of_buf(rt, &b);
}

size_t ustr_find(const char *p, size_t n, const char *needle, size_t n_needle)
{
    if (n_needle == 0)
        return 0;
    const char *hit = n_needle <= n ? memmem(p, n, needle, n_needle) : NULL;
    return hit ? (size_t)(hit - p) : SIZE_MAX;
}

size_t ustr_rfind(struct jrt *rt, const char *p, size_t n, const char *needle, size_t n_needle)
{
    if (n_needle == 0)
        return n;
    if (n_needle > n)
        return SIZE_MAX;
    for (size_t at = n - n_needle + 1; at-- > 0;) {
        if (p[at] != needle[0])
            continue;
        jrt_charge(rt, n_needle); /* the naive search is quadratic at worst: let the limit see it */
        if (memcmp(p + at, needle, n_needle) == 0)
            return at;
    }
    return SIZE_MAX;
}

struct range {
    uint32_t from, to;
};

static bool in_ranges(uint32_t cp, const struct range *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (cp >= r[i].from && cp <= r[i].to)
            return true;
    return false;
}

#define IN_RANGES(cp, table) in_ranges(cp, table, sizeof(table) / sizeof *(table))

static utf8proc_category_t category(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp);
}

bool ustr_is_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 0x1C && cp <= 0x1F);
    return cp == 0x85 || category(cp) == UTF8PROC_CATEGORY_ZS || cp == 0x2028 || cp == 0x2029;
}

bool ustr_is_line_end(uint32_t cp)
{
    return (cp >= 10 && cp <= 13) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
}

bool ustr_is_alpha(uint32_t cp)
{
    utf8proc_category_t c = category(cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool ustr_is_decimal(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_ND;
}

bool ustr_is_digit(uint32_t cp)
{
    static const struct range other[] = {
        {0xb2, 0xb3},     {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},   {0x2070, 0x2070},
        {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247c},   {0x2488, 0x2490},
        {0x24ea, 0x24ea}, {0x24f5, 0x24fd},   {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},
        {0x278a, 0x2792}, {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a},
    };
    return ustr_is_decimal(cp) || IN_RANGES(cp, other);
}

bool ustr_is_numeric(uint32_t cp)
{
    /* Ideographs that are numbers are letters as well; of the numeric predicates only isnumeric() tells them apart. */
    static const uint32_t ideograph[] = {
        0x3405,  0x3483,  0x382a,  0x3b4d,  0x4e00,  0x4e03,  0x4e07,  0x4e09,  0x4e5d,  0x4e8c,  0x4e94,  0x4e96,
        0x4ebf,  0x4ec0,  0x4edf,  0x4ee8,  0x4f0d,  0x4f70,  0x5104,  0x5146,  0x5169,  0x516b,  0x516d,  0x5341,
        0x5343,  0x5344,  0x5345,  0x534c,  0x53c1,  0x53c2,  0x53c3,  0x53c4,  0x56db,  0x58f1,  0x58f9,  0x5e7a,
        0x5efe,  0x5eff,  0x5f0c,  0x5f0d,  0x5f0e,  0x5f10,  0x62fe,  0x634c,  0x67d2,  0x6f06,  0x7396,  0x767e,
        0x8086,  0x842c,  0x8cae,  0x8cb3,  0x8d30,  0x9621,  0x9646,  0x964c,  0x9678,  0x96f6,  0xf96b,  0xf973,
        0xf978,  0xf9b2,  0xf9d1,  0xf9d3,  0xf9fd,  0x20001, 0x20064, 0x200e2, 0x20121, 0x2092a, 0x20983, 0x2098c,
        0x2099c, 0x20aea, 0x20afd, 0x20b19, 0x22390, 0x22998, 0x23b1b, 0x2626d, 0x2f890};
    utf8proc_category_t c = category(cp);
    if (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO)
        return true;
    for (size_t i = 0; i < sizeof ideograph / sizeof *ideograph; i++)
        if (ideograph[i] == cp)
            return true;
    return false;
}

bool ustr_is_lower(uint32_t cp)
{
    static const struct range other[] = {
        {0xaa, 0xaa},       {0xba, 0xba},       {0x2b0, 0x2b8},     {0x2c0, 0x2c1},     {0x2e0, 0x2e4},
        {0x345, 0x345},     {0x37a, 0x37a},     {0x1d2c, 0x1d6a},   {0x1d78, 0x1d78},   {0x1d9b, 0x1dbf},
        {0x2071, 0x2071},   {0x207f, 0x207f},   {0x2090, 0x209c},   {0x2170, 0x217f},   {0x24d0, 0x24e9},
        {0x2c7c, 0x2c7d},   {0xa69c, 0xa69d},   {0xa770, 0xa770},   {0xa7f8, 0xa7f9},   {0xab5c, 0xab5f},
        {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba},
    };
    return category(cp) == UTF8PROC_CATEGORY_LL || (cp >= 0xaa && IN_RANGES(cp, other));
}

bool ustr_is_upper(uint32_t cp)
{
    static const struct range other[] = {
        {0x2160, 0x216f}, {0x24b6, 0x24cf}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}};
    return category(cp) == UTF8PROC_CATEGORY_LU || (cp >= 0x2160 && IN_RANGES(cp, other));
}

bool ustr_is_title(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_LT;
}

bool ustr_is_printable(uint32_t cp)
{
    if (cp < 0x7F)
        return cp >= 0x20;
    switch (category(cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

bool ustr_is_word(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z') || (cp >= '0' && cp <= '9') || cp == '_';
    return ustr_is_alpha(cp) || ustr_is_numeric(cp);
}

bool ustr_is_id_start(uint32_t cp)
{
    return cp == '_' || ustr_is_alpha(cp) || category(cp) == UTF8PROC_CATEGORY_NL;
}

bool ustr_is_id_continue(uint32_t cp)
{
    utf8proc_category_t c = category(cp);
    return ustr_is_id_start(cp) || c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_MN ||
           c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_PC;
}

static bool is_cased(uint32_t cp)
{
    return ustr_is_lower(cp) || ustr_is_upper(cp) || ustr_is_title(cp);
}

/* Characters that case rules look through (Unicode's Case_Ignorable). */
static bool is_case_ignorable(uint32_t cp)
{
    switch (category(cp)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return cp == '\'' || cp == '.' || cp == ':' || cp == 0xb7 || cp == 0x2018 || cp == 0x2019;
    }
}

/* A capital sigma that ends a word: a cased character before it, none after. */
static bool is_final_sigma(const struct jstr *s, size_t at)
{
    size_t len, i;
    uint32_t cp = 0;
    for (i = at; i > 0; i -= len) {
        cp = ustr_before(s->p, i, &len);
        if (!is_case_ignorable(cp))
            break;
    }
    if (i == 0 || !is_cased(cp))
        return false;
    ustr_at(s->p + at, &len);
    for (i = at + len; i < s->n; i += len) {
        cp = ustr_at(s->p + i, &len);
        if (!is_case_ignorable(cp))
            return !is_cased(cp);
    }
    return true;
}

static const struct special_case *special_find(uint32_t cp)
{
    size_t lo = 0, hi = sizeof special_cases / sizeof *special_cases;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (special_cases[mid].cp == cp)
            return &special_cases[mid];
        if (special_cases[mid].cp < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static void add_folded(struct jrt *rt, struct jbuf *b, uint32_t cp)
{
    utf8proc_int32_t out[8];
    int boundary = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, out, 8, UTF8PROC_CASEFOLD, &boundary);
    for (utf8proc_ssize_t i = 0; i < n; i++)
        jbuf_cp(rt, b, (uint32_t)out[i]);
}

void ustr_add_case(struct jrt *rt, struct jbuf *b, const struct jstr *s, size_t at, uint32_t cp, enum ustr_case how)
{
    if (how == USTR_FOLD) {
        add_folded(rt, b, cp);
    } else if (how == USTR_LOWER) {
        if (cp == 0x3A3)
            jbuf_cp(rt, b, is_final_sigma(s, at) ? 0x3C2 : 0x3C3);
        else if (cp == 0x130)
            jbuf_puts(rt, b, "i\xcc\x87");
        else
            jbuf_cp(rt, b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
    } else {
        const struct special_case *sc = cp >= 0xDF ? special_find(cp) : NULL;
        if (!sc) {
            utf8proc_int32_t c = (utf8proc_int32_t)cp;
            jbuf_cp(rt, b, (uint32_t)(how == USTR_UPPER ? utf8proc_toupper(c) : utf8proc_totitle(c)));
            return;
        }
        const uint16_t *to = how == USTR_UPPER ? sc->upper : sc->title;
        for (int i = 0; i < 3 && to[i]; i++)
            jbuf_cp(rt, b, to[i]);
    }
}

struct jval ustr_map_case(struct jrt *rt, const struct jstr *s, enum ustr_case how)
{
    struct jbuf b = {0};
    jrt_charge(rt, s->n);
    jbuf_grow(rt, &b, s->n);
    for (size_t at = 0, len; at < s->n; at += len) {
        uint32_t cp = ustr_at(s->p + at, &len);
        if (cp >= 0x80)
            ustr_add_case(rt, &b, s, at, cp, how);
        else if (how == USTR_LOWER || how == USTR_FOLD)
            jbuf_putc(rt, &b, (char)(cp >= 'A' && cp <= 'Z' ? cp + 32 : cp));
        else
            jbuf_putc(rt, &b, (char)(cp >= 'a' && cp <= 'z' ? cp - 32 : cp));
    }
    return jval_of_buf(rt, &b);
}

void ustr_strip_space(const char *p, size_t *from, size_t *to, bool left, bool right)
{
    size_t len;
    while (left && *from < *to && ustr_is_space(ustr_at(p + *from, &len)))
        *from += len;
    while (right && *from < *to && ustr_is_space(ustr_before(p, *to, &len)))
        *to -= len;
}
