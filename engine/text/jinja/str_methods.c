/* Methods of strings. Lookups by code point, as everywhere in Python. */
#include "builtin.h"
#include "format.h"
#include "iter.h"
#include "ops.h"
#include "str_ops.h"
#include "text.h"

#define METHOD(name)                                                                                                   \
    static struct jval m_##name(struct jrt *rt, struct jval self, const struct jval *arg, const struct jargs *all)

METHOD(capitalize)
{
    return strop_capitalize(rt, self);
}

METHOD(casefold)
{
    return strop_case(rt, self, USTR_FOLD);
}

METHOD(lower)
{
    return strop_case(rt, self, USTR_LOWER);
}

METHOD(upper)
{
    return strop_case(rt, self, USTR_UPPER);
}

METHOD(title)
{
    return strop_title(rt, self);
}

METHOD(swapcase)
{
    return strop_swapcase(rt, self);
}

METHOD(strip)
{
    return strop_strip(rt, self, arg[0], true, true);
}

METHOD(lstrip)
{
    return strop_strip(rt, self, arg[0], true, false);
}

METHOD(rstrip)
{
    return strop_strip(rt, self, arg[0], false, true);
}

METHOD(center)
{
    return strop_pad(rt, self, jarg_int(rt, arg[0], 0), arg[1], true, true);
}

METHOD(ljust)
{
    return strop_pad(rt, self, jarg_int(rt, arg[0], 0), arg[1], false, true);
}

METHOD(rjust)
{
    return strop_pad(rt, self, jarg_int(rt, arg[0], 0), arg[1], true, false);
}

METHOD(zfill)
{
    const struct jstr *s = self.s;
    size_t sign = s->n && (s->p[0] == '-' || s->p[0] == '+');
    struct jval rest = strop_slice(rt, self, sign, s->n);
    int64_t width = jarg_int(rt, arg[0], 0);
    if (width > INT32_MAX)
        jrt_limit(rt, "zfill() is too wide");
    rest = strop_pad(rt, rest, width - (int64_t)sign, jval_cstr(rt, "0"), true, false);
    return jops_concat_str(rt, strop_slice(rt, self, 0, sign), rest);
}

METHOD(split)
{
    return jval_list(strop_split(rt, self, arg[0], jarg_int(rt, arg[1], -1)));
}

METHOD(rsplit)
{
    return jval_list(strop_rsplit(rt, self, arg[0], jarg_int(rt, arg[1], -1)));
}

METHOD(splitlines)
{
    return jval_list(strop_splitlines(rt, self, jarg_bool(arg[0], false)));
}

static struct jval triple(struct jrt *rt, struct jval self, size_t cut, size_t n_sep)
{
    struct jlist *l = jlist_new(rt, 3);
    jlist_add(rt, l, strop_slice(rt, self, 0, cut));
    jlist_add(rt, l, strop_slice(rt, self, cut, cut + n_sep));
    jlist_add(rt, l, strop_slice(rt, self, cut + n_sep, self.s->n));
    return jval_tuple(l);
}

static const struct jstr *partition_sep(struct jrt *rt, struct jval v)
{
    const struct jstr *sep = jarg_str(rt, v, "partition()");
    if (!sep->n)
        jrt_fail(rt, "empty separator");
    return sep;
}

METHOD(partition)
{
    const struct jstr *sep = partition_sep(rt, arg[0]);
    size_t hit = ustr_find(self.s->p, self.s->n, sep->p, sep->n);
    jrt_charge(rt, self.s->n);
    return hit == SIZE_MAX ? triple(rt, self, self.s->n, 0) : triple(rt, self, hit, sep->n);
}

METHOD(rpartition)
{
    const struct jstr *sep = partition_sep(rt, arg[0]);
    size_t hit = ustr_rfind(rt, self.s->p, self.s->n, sep->p, sep->n);
    jrt_charge(rt, self.s->n);
    return hit == SIZE_MAX ? triple(rt, self, 0, 0) : triple(rt, self, hit, sep->n);
}

METHOD(replace)
{
    const struct jstr *from = jarg_str(rt, arg[0], "replace()"), *to = jarg_str(rt, arg[1], "replace()");
    if (self.markup)
        to = jtext_escaped(rt, arg[1]).s;
    return strop_replace(rt, self, from, to, jarg_int(rt, arg[2], -1));
}

METHOD(removeprefix)
{
    const struct jstr *x = jarg_str(rt, arg[0], "removeprefix()");
    bool has = x->n <= self.s->n && memcmp(self.s->p, x->p, x->n) == 0;
    return has ? strop_slice(rt, self, x->n, self.s->n) : self;
}

METHOD(removesuffix)
{
    const struct jstr *x = jarg_str(rt, arg[0], "removesuffix()");
    bool has = x->n <= self.s->n && memcmp(self.s->p + self.s->n - x->n, x->p, x->n) == 0;
    return has ? strop_slice(rt, self, 0, self.s->n - x->n) : self;
}

/* The part [start, end) of a string that a search looks at. */
struct part {
    size_t from, to; /* bytes */
    bool valid;      /* start is not beyond the end */
};

static struct part part_of(struct jrt *rt, struct jstr *s, struct jval start, struct jval end)
{
    int64_t n = (int64_t)ustr_len(rt, s), a = jval_absent(start) ? 0 : jarg_int(rt, start, 0);
    int64_t b = jval_absent(end) ? n : jarg_int(rt, end, n);
    a = a < 0 ? a + n < 0 ? 0 : a + n : a;
    b = b < 0 ? b + n < 0 ? 0 : b + n : b > n ? n : b;
    if (a > b)
        return (struct part){0};
    return (struct part){ustr_offset(rt, s, (size_t)a), ustr_offset(rt, s, (size_t)b), true};
}

static int64_t find(struct jrt *rt, struct jval self, const struct jval *arg, bool from_right)
{
    const struct jstr *x = jarg_str(rt, arg[0], "find()");
    struct part part = part_of(rt, self.s, arg[1], arg[2]);
    const char *p = self.s->p + part.from;
    size_t n = part.to - part.from;
    jrt_charge(rt, n);
    size_t hit = !part.valid ? SIZE_MAX : from_right ? ustr_rfind(rt, p, n, x->p, x->n) : ustr_find(p, n, x->p, x->n);
    return hit == SIZE_MAX ? -1 : (int64_t)ustr_count(self.s->p, part.from + hit);
}

METHOD(find)
{
    return jval_int(find(rt, self, arg, false));
}

METHOD(rfind)
{
    return jval_int(find(rt, self, arg, true));
}

static struct jval found(struct jrt *rt, int64_t at)
{
    if (at < 0)
        jrt_fail(rt, "substring not found");
    return jval_int(at);
}

METHOD(index)
{
    return found(rt, find(rt, self, arg, false));
}

METHOD(rindex)
{
    return found(rt, find(rt, self, arg, true));
}

METHOD(count)
{
    const struct jstr *x = jarg_str(rt, arg[0], "count()");
    struct part part = part_of(rt, self.s, arg[1], arg[2]);
    int64_t n = 0;
    jrt_charge(rt, part.to - part.from);
    if (part.valid && !x->n)
        return jval_int((int64_t)ustr_count(self.s->p + part.from, part.to - part.from) + 1);
    for (size_t hit; part.valid; part.from += hit + x->n, n++) {
        hit = ustr_find(self.s->p + part.from, part.to - part.from, x->p, x->n);
        if (hit == SIZE_MAX)
            break;
    }
    return jval_int(n);
}

static bool affix(struct jrt *rt, const struct jstr *s, struct part part, struct jval x, bool at_end)
{
    const struct jstr *z = jarg_str(rt, x, at_end ? "endswith() first" : "startswith() first");
    if (!part.valid || z->n > part.to - part.from)
        return false;
    jrt_charge(rt, z->n);
    return memcmp(s->p + (at_end ? part.to - z->n : part.from), z->p, z->n) == 0;
}

static struct jval any_affix(struct jrt *rt, struct jval self, const struct jval *arg, bool at_end)
{
    struct part part = part_of(rt, self.s, arg[1], arg[2]);
    if (arg[0].kind != J_TUPLE)
        return jval_bool(affix(rt, self.s, part, arg[0], at_end));
    for (size_t i = 0; i < arg[0].l->n; i++)
        if (affix(rt, self.s, part, arg[0].l->v[i], at_end))
            return jval_bool(true);
    return jval_bool(false);
}

METHOD(startswith)
{
    return any_affix(rt, self, arg, false);
}

METHOD(endswith)
{
    return any_affix(rt, self, arg, true);
}

METHOD(join)
{
    struct jlist *l = jiter_items(rt, arg[0]);
    struct jbuf b = {0};
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            jbuf_add(rt, &b, self.s->p, self.s->n);
        if (self.markup)
            jtext_str(rt, &b, jtext_escaped(rt, l->v[i]));
        else if (l->v[i].kind != J_STR)
            jrt_fail(rt, "sequence item %zu: expected str instance, %s found", i, jval_type(l->v[i]));
        else
            jbuf_add(rt, &b, l->v[i].s->p, l->v[i].s->n);
    }
    struct jval v = jval_of_buf(rt, &b);
    v.markup = self.markup;
    return v;
}

METHOD(expandtabs)
{
    int64_t size = jarg_int(rt, arg[0], 8), column = 0;
    struct jbuf b = {0};
    if (size > INT32_MAX)
        jrt_limit(rt, "expandtabs() is too wide");
    for (size_t at = 0, len; at < self.s->n; at += len) {
        uint32_t cp = ustr_at(self.s->p + at, &len);
        if (cp == '\t') {
            int64_t n = size > 0 ? size - column % size : 0;
            jbuf_fill(rt, &b, ' ', (size_t)n);
            column += n;
            continue;
        }
        jbuf_add(rt, &b, self.s->p + at, len);
        column = cp == '\n' || cp == '\r' ? 0 : column + 1;
    }
    struct jval v = jval_of_buf(rt, &b);
    v.markup = self.markup;
    return v;
}

METHOD(format)
{
    return jformat_braces(rt, self, all->pos, all->n_pos, all);
}

METHOD(format_map)
{
    struct jargs named = {0};
    if (arg[0].kind != J_DICT)
        jrt_fail(rt, "format_map() argument must be a mapping");
    named.kw = jrt_array(rt, arg[0].d->n + 1, sizeof *named.kw);
    for (size_t i = 0; i < arg[0].d->n; i++)
        if (arg[0].d->e[i].k.kind == J_STR)
            named.kw[named.n_kw++] = (struct jkw){arg[0].d->e[i].k.s, arg[0].d->e[i].v};
    return jformat_braces(rt, self, NULL, 0, &named);
}

/* isalpha() and the like: every character, and there is one. */
static struct jval all_cp(const struct jstr *s, bool (*is)(uint32_t), bool if_empty)
{
    for (size_t at = 0, len; at < s->n; at += len)
        if (!is(ustr_at(s->p + at, &len)))
            return jval_bool(false);
    return jval_bool(s->n || if_empty);
}

static bool is_alnum(uint32_t cp)
{
    return ustr_is_alpha(cp) || ustr_is_numeric(cp);
}

static bool is_ascii(uint32_t cp)
{
    return cp < 0x80;
}

METHOD(isalnum)
{
    return all_cp(self.s, is_alnum, false);
}

METHOD(isalpha)
{
    return all_cp(self.s, ustr_is_alpha, false);
}

METHOD(isascii)
{
    return all_cp(self.s, is_ascii, true);
}

METHOD(isdecimal)
{
    return all_cp(self.s, ustr_is_decimal, false);
}

METHOD(isdigit)
{
    return all_cp(self.s, ustr_is_digit, false);
}

METHOD(isnumeric)
{
    return all_cp(self.s, ustr_is_numeric, false);
}

METHOD(isprintable)
{
    return all_cp(self.s, ustr_is_printable, true);
}

METHOD(isspace)
{
    return all_cp(self.s, ustr_is_space, false);
}

METHOD(isidentifier)
{
    size_t len;
    if (!self.s->n || !ustr_is_id_start(ustr_at(self.s->p, &len)))
        return jval_bool(false);
    return all_cp(self.s, ustr_is_id_continue, false);
}

struct jval jstr_one_case(const struct jstr *s, bool (*is)(uint32_t), bool (*is_other)(uint32_t))
{
    bool any = false;
    for (size_t at = 0, len; at < s->n; at += len) {
        uint32_t cp = ustr_at(s->p + at, &len);
        if (is_other(cp) || ustr_is_title(cp))
            return jval_bool(false);
        any = any || is(cp);
    }
    return jval_bool(any);
}

METHOD(islower)
{
    return jstr_one_case(self.s, ustr_is_lower, ustr_is_upper);
}

METHOD(isupper)
{
    return jstr_one_case(self.s, ustr_is_upper, ustr_is_lower);
}

METHOD(istitle)
{
    bool any = false, after_cased = false;
    for (size_t at = 0, len; at < self.s->n; at += len) {
        uint32_t cp = ustr_at(self.s->p + at, &len);
        bool begins = ustr_is_upper(cp) || ustr_is_title(cp), goes_on = ustr_is_lower(cp);
        if ((begins && after_cased) || (goes_on && !after_cased))
            return jval_bool(false);
        after_cased = begins || goes_on;
        any = any || after_cased;
    }
    return jval_bool(any);
}

static const struct jbuiltin rows[] = {
    {"capitalize", m_capitalize, 0, 0, NULL},
    {"casefold", m_casefold, 0, 0, NULL},
    {"center", m_center, 1, 2, NULL},
    {"count", m_count, 1, 3, NULL},
    {"endswith", m_endswith, 1, 3, NULL},
    {"expandtabs", m_expandtabs, 0, 1, "tabsize"},
    {"find", m_find, 1, 3, NULL},
    {"format", m_format, 0, JBUILTIN_ANY, NULL},
    {"format_map", m_format_map, 1, 1, NULL},
    {"index", m_index, 1, 3, NULL},
    {"isalnum", m_isalnum, 0, 0, NULL},
    {"isalpha", m_isalpha, 0, 0, NULL},
    {"isascii", m_isascii, 0, 0, NULL},
    {"isdecimal", m_isdecimal, 0, 0, NULL},
    {"isdigit", m_isdigit, 0, 0, NULL},
    {"isidentifier", m_isidentifier, 0, 0, NULL},
    {"islower", m_islower, 0, 0, NULL},
    {"isnumeric", m_isnumeric, 0, 0, NULL},
    {"isprintable", m_isprintable, 0, 0, NULL},
    {"isspace", m_isspace, 0, 0, NULL},
    {"istitle", m_istitle, 0, 0, NULL},
    {"isupper", m_isupper, 0, 0, NULL},
    {"join", m_join, 1, 1, NULL},
    {"ljust", m_ljust, 1, 2, NULL},
    {"lower", m_lower, 0, 0, NULL},
    {"lstrip", m_lstrip, 0, 1, NULL},
    {"partition", m_partition, 1, 1, NULL},
    {"removeprefix", m_removeprefix, 1, 1, NULL},
    {"removesuffix", m_removesuffix, 1, 1, NULL},
    {"replace", m_replace, 2, 3, NULL},
    {"rfind", m_rfind, 1, 3, NULL},
    {"rindex", m_rindex, 1, 3, NULL},
    {"rjust", m_rjust, 1, 2, NULL},
    {"rpartition", m_rpartition, 1, 1, NULL},
    {"rsplit", m_rsplit, 0, 2, "sep maxsplit"},
    {"rstrip", m_rstrip, 0, 1, NULL},
    {"split", m_split, 0, 2, "sep maxsplit"},
    {"splitlines", m_splitlines, 0, 1, "keepends"},
    {"startswith", m_startswith, 1, 3, NULL},
    {"strip", m_strip, 0, 1, NULL},
    {"swapcase", m_swapcase, 0, 0, NULL},
    {"title", m_title, 0, 0, NULL},
    {"upper", m_upper, 0, 0, NULL},
    {"zfill", m_zfill, 1, 1, NULL},
};
const struct jbuiltin_table jbuiltin_str_methods = JBUILTIN_TABLE(rows);
