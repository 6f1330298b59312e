#include "lex.h"

#include <stdio.h>

#include "num.h"
#include "ustr.h"

struct jlex {
    struct jrt *rt;
    const char *p;
    size_t n, at;
    int line;
    struct jtok *tok;
    size_t n_tok, cap;
    char open[256]; /* brackets awaiting their closing ones */
    int n_open;
};

static const struct {
    const char *text;
    enum jtok_kind kind;
} operators[] = {
    {"**", JTOK_POW},      {"//", JTOK_FLOORDIV}, {"==", JTOK_EQ},      {"!=", JTOK_NE},      {">=", JTOK_GE},
    {"<=", JTOK_LE},       {"+", JTOK_ADD},       {"-", JTOK_SUB},      {"/", JTOK_DIV},      {"*", JTOK_MUL},
    {"%", JTOK_MOD},       {"~", JTOK_TILDE},     {"[", JTOK_LBRACKET}, {"]", JTOK_RBRACKET}, {"(", JTOK_LPAREN},
    {")", JTOK_RPAREN},    {"{", JTOK_LBRACE},    {"}", JTOK_RBRACE},   {">", JTOK_GT},       {"<", JTOK_LT},
    {"=", JTOK_ASSIGN},    {".", JTOK_DOT},       {":", JTOK_COLON},    {"|", JTOK_PIPE},     {",", JTOK_COMMA},
    {";", JTOK_SEMICOLON},
};
enum { N_OPERATOR = sizeof operators / sizeof *operators };

const char *jlex_describe(enum jtok_kind kind)
{
    static const char *const name[] = {"end of template",
                                       "template data",
                                       "begin of statement block",
                                       "end of statement block",
                                       "begin of print statement",
                                       "end of print statement",
                                       "name",
                                       "string",
                                       "integer",
                                       "float"};
    return kind < JTOK_POW ? name[kind] : operators[kind - JTOK_POW].text;
}

static struct jtok *emit(struct jlex *lx, enum jtok_kind kind)
{
    if (lx->n_tok == lx->cap) {
        size_t cap = lx->cap ? lx->cap * 2 : 256;
        struct jtok *more = jrt_array(lx->rt, cap, sizeof *more);
        if (lx->n_tok)
            memcpy(more, lx->tok, lx->n_tok * sizeof *more);
        lx->tok = more;
        lx->cap = cap;
    }
    struct jtok *t = &lx->tok[lx->n_tok++];
    *t = (struct jtok){.kind = kind, .line = lx->line};
    return t;
}

static _Noreturn void fail(struct jlex *lx, const char *what)
{
    lx->rt->line = lx->line;
    jrt_fail(lx->rt, "%s", what);
}

/* Moves to `to`, counting lines. */
static void advance(struct jlex *lx, size_t to)
{
    for (; lx->at < to; lx->at++)
        lx->line += lx->p[lx->at] == '\n';
}

static bool here(const struct jlex *lx, size_t at, const char *z)
{
    size_t n = strlen(z);
    return lx->n - at >= n && memcmp(lx->p + at, z, n) == 0;
}

static size_t skip_space(const struct jlex *lx, size_t at)
{
    size_t end = lx->n;
    ustr_strip_space(lx->p, &at, &end, true, false);
    return at;
}

static struct jstr *counted(struct jrt *rt, const char *p, size_t n)
{
    struct jstr *s = jstr_copy(rt, p, n);
    s->n_cp = ustr_count(p, n);
    return s;
}

/* The end of a closing tag at `at` (whose last two characters are `close`), with the whitespace that goes with it, or
 * SIZE_MAX if none stands there. `plus` and `trim`: whether +%} is known and whether a newline after it goes. */
static size_t closing_tag(const struct jlex *lx, size_t at, const char *close, bool plus, bool trim)
{
    if (at < lx->n && lx->p[at] == '-' && here(lx, at + 1, close))
        return skip_space(lx, at + 3);
    if (plus && at < lx->n && lx->p[at] == '+' && here(lx, at + 1, close))
        return at + 3;
    if (!here(lx, at, close))
        return SIZE_MAX;
    at += 2;
    return at + (trim && at < lx->n && lx->p[at] == '\n');
}

/* Emits text[from, to) that a tag follows, stripped as its sign says. */
static void emit_data(struct jlex *lx, size_t from, size_t to, char sign, bool is_variable)
{
    size_t end = to;
    if (sign == '-') {
        size_t start = from;
        ustr_strip_space(lx->p, &start, &end, false, true);
    } else if (sign != '+' && !is_variable) { /* lstrip_blocks: blanks between the line's start and the tag go */
        size_t line = end;
        while (line > from && lx->p[line - 1] != '\n')
            line--;
        bool at_line_start = line > from || from == 0 || lx->p[from - 1] == '\n';
        size_t blank = line, stop = end;
        ustr_strip_space(lx->p, &blank, &stop, true, false);
        if (at_line_start && blank == end)
            end = line;
    }
    if (end > from)
        emit(lx, JTOK_DATA)->s = counted(lx->rt, lx->p + from, end - from);
    advance(lx, to);
}

/* {% raw %}: the end of the opening tag, or SIZE_MAX if another tag stands at `at`. */
static size_t raw_begin(const struct jlex *lx, size_t at, char *sign)
{
    size_t i = at + 2;
    *sign = 0;
    if (i < lx->n && (lx->p[i] == '-' || lx->p[i] == '+'))
        *sign = lx->p[i++];
    i = skip_space(lx, i);
    if (!here(lx, i, "raw"))
        return SIZE_MAX;
    return closing_tag(lx, skip_space(lx, i + 3), "%}", false, false);
}

/* {% endraw %} at `at`: where it ends, or SIZE_MAX. */
static size_t raw_end(const struct jlex *lx, size_t at, char *sign)
{
    size_t i = at + 2;
    *sign = 0;
    if (!here(lx, at, "{%"))
        return SIZE_MAX;
    if (i < lx->n && (lx->p[i] == '-' || lx->p[i] == '+'))
        *sign = lx->p[i++];
    i = skip_space(lx, i);
    return here(lx, i, "endraw") ? closing_tag(lx, skip_space(lx, i + 6), "%}", true, true) : SIZE_MAX;
}

static void lex_raw(struct jlex *lx, size_t body)
{
    char sign;
    advance(lx, body);
    for (size_t i = body; i < lx->n; i++) {
        size_t end = raw_end(lx, i, &sign);
        if (end == SIZE_MAX)
            continue;
        emit_data(lx, body, i, sign, false);
        advance(lx, end);
        return;
    }
    fail(lx, "Missing end of raw directive");
}

static void lex_comment(struct jlex *lx, size_t body)
{
    for (size_t i = body; i < lx->n; i++) {
        size_t end = closing_tag(lx, i, "#}", true, true);
        if (end == SIZE_MAX)
            continue;
        advance(lx, end);
        return;
    }
    fail(lx, "Missing end of comment tag");
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits with underscores between them: returns the end, `at` if there are none. */
static size_t skip_digits(const struct jlex *lx, size_t at)
{
    size_t end = at;
    while (end < lx->n && (is_digit(lx->p[end]) || (lx->p[end] == '_' && end > at && end + 1 < lx->n &&
                                                    is_digit(lx->p[end + 1]) && is_digit(lx->p[end - 1]))))
        end++;
    return end;
}

/* The end of a float that begins here, or SIZE_MAX. */
static size_t float_end(const struct jlex *lx, size_t at)
{
    size_t whole = skip_digits(lx, at), end = whole, exponent;
    if (at > 0 && lx->p[at - 1] == '.')
        return SIZE_MAX;
    if (end + 1 < lx->n && lx->p[end] == '.' && is_digit(lx->p[end + 1]))
        end = skip_digits(lx, end + 1);
    if (end < lx->n && (lx->p[end] | 0x20) == 'e') {
        exponent = end + 1;
        if (exponent < lx->n && (lx->p[exponent] == '-' || lx->p[exponent] == '+'))
            exponent++;
        if (exponent < lx->n && is_digit(lx->p[exponent]))
            end = skip_digits(lx, exponent);
    }
    return end > whole ? end : SIZE_MAX;
}

static size_t int_end(const struct jlex *lx, size_t at)
{
    static const char *const set[] = {"01", "01234567", "0123456789abcdefABCDEF"};
    if (lx->p[at] == '0' && at + 2 < lx->n) {
        char base = lx->p[at + 1] | 0x20;
        const char *digits = base == 'b' ? set[0] : base == 'o' ? set[1] : base == 'x' ? set[2] : NULL;
        size_t end = at + 2;
        while (digits && end < lx->n) {
            size_t digit = end + (lx->p[end] == '_');
            if (digit >= lx->n || !lx->p[digit] || !strchr(digits, lx->p[digit]))
                break;
            end = digit + 1;
        }
        if (end > at + 2)
            return end;
    }
    if (lx->p[at] != '0')
        return skip_digits(lx, at);
    size_t end = at + 1;
    while (end < lx->n && (lx->p[end] == '0' || (lx->p[end] == '_' && end + 1 < lx->n && lx->p[end + 1] == '0')))
        end++;
    return end;
}

static void lex_number(struct jlex *lx)
{
    size_t end = float_end(lx, lx->at);
    bool overflow;
    if (end != SIZE_MAX) {
        double f;
        jnum_parse_float(lx->rt, lx->p + lx->at, end - lx->at, &f);
        emit(lx, JTOK_FLOAT)->num = jval_float(f);
    } else {
        int64_t i = 0;
        end = int_end(lx, lx->at);
        jnum_parse_int(lx->p + lx->at, end - lx->at, 0, &i, &overflow);
        if (overflow)
            fail(lx, "integer does not fit 64 bits");
        emit(lx, JTOK_INT)->num = jval_int(i);
    }
    advance(lx, end);
}

static void lex_name(struct jlex *lx)
{
    size_t end = lx->at, len;
    bool valid = true;
    while (end < lx->n) {
        uint32_t cp = ustr_at(lx->p + end, &len);
        if (!ustr_is_word(cp) && !(cp >= 0x80 && ustr_is_id_continue(cp)))
            break;
        valid = valid && (end == lx->at ? ustr_is_id_start(cp) : ustr_is_id_continue(cp));
        end += len;
    }
    if (!valid)
        fail(lx, "Invalid character in identifier");
    emit(lx, JTOK_NAME)->s = counted(lx->rt, lx->p + lx->at, end - lx->at);
    advance(lx, end);
}

static uint32_t hex_escape(struct jlex *lx, size_t at, size_t end, int n_digit)
{
    uint32_t cp = 0;
    for (int i = 0; i < n_digit; i++, at++) {
        char c = at < end ? lx->p[at] : 0, low = c | 0x20;
        if (!is_digit(c) && !(low >= 'a' && low <= 'f'))
            fail(lx, "truncated escape in a string");
        cp = cp << 4 | (uint32_t)(is_digit(c) ? c - '0' : low - 'a' + 10);
    }
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
        fail(lx, "illegal Unicode character in a string");
    return cp;
}

/* What follows a backslash at `at`; returns the position after it. */
static size_t lex_escape(struct jlex *lx, struct jbuf *b, size_t at, size_t end)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    struct jrt *rt = lx->rt;
    char c = lx->p[at];
    const char *simple = c ? strchr(from, c) : NULL;
    if (simple) {
        jbuf_putc(rt, b, to[simple - from]);
        return at + 1;
    }
    if (c == '\n')
        return at + 1;
    if (c == 'x' || c == 'u' || c == 'U') {
        int n_digit = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        jbuf_cp(rt, b, hex_escape(lx, at + 1, end, n_digit));
        return at + 1 + (size_t)n_digit;
    }
    if (c >= '0' && c <= '7') {
        uint32_t cp = 0;
        for (size_t stop = at + 3; at < stop && at < end && lx->p[at] >= '0' && lx->p[at] <= '7'; at++)
            cp = cp * 8 + (uint32_t)(lx->p[at] - '0');
        jbuf_cp(rt, b, cp);
        return at;
    }
    if (c == 'N')
        fail(lx, "\\N{...} in a string is not supported");
    size_t len;
    uint32_t cp = ustr_at(lx->p + at, &len);
    jbuf_putc(rt, b, '\\');
    if (cp < 0x80) /* unknown escapes stay as they are written */
        jbuf_putc(rt, b, c);
    else /* jinja2 decodes by way of ASCII escapes, whose own backslash this one eats */
        jbuf_printf(rt, b, cp < 0x100 ? "x%02x" : cp < 0x10000 ? "u%04x" : "U%08x", cp);
    return at + len;
}

static void lex_string(struct jlex *lx)
{
    char quote = lx->p[lx->at];
    size_t end = lx->at + 1;
    while (end < lx->n && lx->p[end] != quote)
        end += lx->p[end] == '\\' ? 2 : 1;
    if (end >= lx->n)
        fail(lx, "a string is not closed");
    struct jbuf b = {0};
    for (size_t at = lx->at + 1; at < end;) {
        size_t run = at;
        while (run < end && lx->p[run] != '\\')
            run++;
        jbuf_add(lx->rt, &b, lx->p + at, run - at);
        at = run < end ? lex_escape(lx, &b, run + 1, end) : end;
    }
    emit(lx, JTOK_STRING)->s = counted(lx->rt, b.p, b.n);
    advance(lx, end + 1);
}

static void balance(struct jlex *lx, enum jtok_kind kind)
{
    static const char closing[] = "])}";
    char msg[64];
    char expect = kind == JTOK_LBRACKET ? ']' : kind == JTOK_LPAREN ? ')' : kind == JTOK_LBRACE ? '}' : 0;
    if (expect) {
        if (lx->n_open == (int)sizeof lx->open)
            fail(lx, "brackets are nested too deeply");
        lx->open[lx->n_open++] = expect;
        return;
    }
    char c = jlex_describe(kind)[0];
    if (!strchr(closing, c) || jlex_describe(kind)[1])
        return;
    if (lx->n_open && lx->open[lx->n_open - 1] == c) {
        lx->n_open--;
        return;
    }
    if (lx->n_open)
        snprintf(msg, sizeof msg, "unexpected '%c', expected '%c'", c, lx->open[lx->n_open - 1]);
    else
        snprintf(msg, sizeof msg, "unexpected '%c'", c);
    fail(lx, msg);
}

static void lex_operator(struct jlex *lx)
{
    for (int i = 0; i < N_OPERATOR; i++) {
        if (!here(lx, lx->at, operators[i].text))
            continue;
        balance(lx, operators[i].kind);
        emit(lx, operators[i].kind);
        lx->at += strlen(operators[i].text);
        return;
    }
    fail(lx, "unexpected character");
}

/* The inside of {% %} or {{ }}, up to and including the closing tag. */
static void lex_code(struct jlex *lx, bool is_variable)
{
    lx->n_open = 0;
    while (lx->at < lx->n) {
        size_t end =
            lx->n_open ? SIZE_MAX : closing_tag(lx, lx->at, is_variable ? "}}" : "%}", !is_variable, !is_variable);
        size_t len;
        if (end != SIZE_MAX) {
            emit(lx, is_variable ? JTOK_VAR_END : JTOK_BLOCK_END);
            advance(lx, end);
            return;
        }
        uint32_t cp = ustr_at(lx->p + lx->at, &len);
        if (ustr_is_space(cp))
            advance(lx, lx->at + len);
        else if (is_digit((char)cp) && cp < 0x80)
            lex_number(lx);
        else if (cp == '\'' || cp == '"')
            lex_string(lx);
        else if (ustr_is_word(cp))
            lex_name(lx);
        else
            lex_operator(lx);
    }
}

/* Text up to the next tag, and that tag. */
static void lex_root(struct jlex *lx)
{
    size_t from = lx->at, i = from;
    while (i + 1 < lx->n && !(lx->p[i] == '{' && strchr("%{#", lx->p[i + 1]) && lx->p[i + 1]))
        i++;
    if (i + 1 >= lx->n) {
        emit_data(lx, from, lx->n, '+', false);
        return;
    }
    char kind = lx->p[i + 1], sign = 0;
    size_t raw = kind == '%' ? raw_begin(lx, i, &sign) : SIZE_MAX;
    if (raw != SIZE_MAX) {
        emit_data(lx, from, i, sign, false);
        lex_raw(lx, raw);
        return;
    }
    sign = i + 2 < lx->n ? lx->p[i + 2] : 0;
    if (sign != '-' && sign != '+')
        sign = 0;
    emit_data(lx, from, i, sign, kind == '{');
    size_t inside = i + 2 + (sign != 0);
    if (kind == '#') {
        lex_comment(lx, inside);
        return;
    }
    emit(lx, kind == '{' ? JTOK_VAR_BEGIN : JTOK_BLOCK_BEGIN);
    lx->at = inside;
    lex_code(lx, kind == '{');
}

/* Newlines become \n, and one at the very end goes. */
static char *normalise(struct jrt *rt, const char *src, size_t n, size_t *n_out)
{
    char *p = jrt_alloc(rt, n + 1);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (src[i] == '\r' && i + 1 < n && src[i + 1] == '\n')
            continue;
        p[at++] = src[i] == '\r' ? '\n' : src[i];
    }
    *n_out = at - (at && p[at - 1] == '\n');
    return p;
}

struct jtok *jlex_run(struct jrt *rt, const char *src, size_t n)
{
    struct jlex lx = {.rt = rt, .line = 1};
    lx.p = normalise(rt, src, n, &lx.n);
    while (lx.at < lx.n)
        lex_root(&lx);
    emit(&lx, JTOK_EOF);
    return lx.tok;
}
