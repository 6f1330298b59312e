/* The table of filters. Not there, of jinja2's: filesizeformat, pprint, random, urlize, wordwrap, xmlattr. */
#include "filters.h"

#include "eval.h"

struct jpath jpath_of(struct jrt *rt, struct jval attribute, bool fold)
{
    struct jpath path = {.fold = fold};
    if (jval_absent(attribute))
        return path;
    if (attribute.kind != J_STR) {
        path.part = jrt_alloc(rt, sizeof *path.part);
        path.part[path.n++] = attribute;
        return path;
    }
    const char *p = attribute.s->p, *end = p + attribute.s->n;
    path.part = jrt_array(rt, attribute.s->n + 1, sizeof *path.part);
    for (const char *dot; p; p = dot ? dot + 1 : NULL) {
        dot = memchr(p, '.', (size_t)(end - p));
        size_t n = (size_t)((dot ? dot : end) - p);
        int64_t i = 0;
        bool is_index = n > 0 && n < 10;
        for (size_t k = 0; k < n && is_index; k++) {
            is_index = p[k] >= '0' && p[k] <= '9';
            i = i * 10 + (p[k] - '0');
        }
        path.part[path.n++] = is_index ? jval_int(i) : jval_strn(rt, p, n);
    }
    return path;
}

struct jval jpath_get(struct jrt *rt, const struct jpath *path, struct jval item)
{
    for (size_t i = 0; i < path->n; i++) {
        item = jaccess_item(rt, item, path->part[i]);
        if (item.kind == J_UNDEF && path->missing.kind != J_MISSING)
            item = path->missing;
    }
    return path->fold && item.kind == J_STR ? jfilter_lower(rt, item, NULL, NULL) : item;
}

static const struct jbuiltin rows[] = {
    {"abs", jfilter_abs, 0, 0, NULL},
    {"attr", jfilter_attr, 1, 1, "name"},
    {"batch", jfilter_batch, 1, 2, "linecount fill_with"},
    {"capitalize", jfilter_capitalize, 0, 0, NULL},
    {"center", jfilter_center, 0, 1, "width"},
    {"count", jfilter_length, 0, 0, NULL},
    {"d", jfilter_default, 0, 2, "default_value boolean"},
    {"default", jfilter_default, 0, 2, "default_value boolean"},
    {"dictsort", jfilter_dictsort, 0, 3, "case_sensitive by reverse"},
    {"e", jfilter_escape, 0, 0, NULL},
    {"escape", jfilter_escape, 0, 0, NULL},
    {"first", jfilter_first, 0, 0, NULL},
    {"float", jfilter_float, 0, 1, "default"},
    {"forceescape", jfilter_forceescape, 0, 0, NULL},
    {"format", jfilter_format, 0, JBUILTIN_ANY, NULL},
    {"groupby", jfilter_groupby, 1, 3, "attribute default case_sensitive"},
    {"indent", jfilter_indent, 0, 3, "width first blank"},
    {"int", jfilter_int, 0, 2, "default base"},
    {"items", jfilter_items, 0, 0, NULL},
    {"join", jfilter_join, 0, 2, "d attribute"},
    {"last", jfilter_last, 0, 0, NULL},
    {"length", jfilter_length, 0, 0, NULL},
    {"list", jfilter_list, 0, 0, NULL},
    {"lower", jfilter_lower, 0, 0, NULL},
    {"map", jfilter_map, 0, JBUILTIN_ANY, NULL},
    {"max", jfilter_max, 0, 2, "case_sensitive attribute"},
    {"min", jfilter_min, 0, 2, "case_sensitive attribute"},
    {"reject", jfilter_reject, 0, JBUILTIN_ANY, NULL},
    {"rejectattr", jfilter_rejectattr, 0, JBUILTIN_ANY, NULL},
    {"replace", jfilter_replace, 2, 3, "old new count"},
    {"reverse", jfilter_reverse, 0, 0, NULL},
    {"round", jfilter_round, 0, 2, "precision method"},
    {"safe", jfilter_safe, 0, 0, NULL},
    {"select", jfilter_select, 0, JBUILTIN_ANY, NULL},
    {"selectattr", jfilter_selectattr, 0, JBUILTIN_ANY, NULL},
    {"slice", jfilter_slice, 1, 2, "slices fill_with"},
    {"sort", jfilter_sort, 0, 3, "reverse case_sensitive attribute"},
    {"string", jfilter_string, 0, 0, NULL},
    {"striptags", jfilter_striptags, 0, 0, NULL},
    {"sum", jfilter_sum, 0, 2, "attribute start"},
    {"title", jfilter_title, 0, 0, NULL},
    {"tojson", jfilter_tojson, 0, 4, "ensure_ascii indent separators sort_keys"},
    {"trim", jfilter_trim, 0, 1, "chars"},
    {"truncate", jfilter_truncate, 0, 4, "length killwords end leeway"},
    {"unique", jfilter_unique, 0, 2, "case_sensitive attribute"},
    {"upper", jfilter_upper, 0, 0, NULL},
    {"urlencode", jfilter_urlencode, 0, 0, NULL},
    {"wordcount", jfilter_wordcount, 0, 0, NULL},
};
const struct jbuiltin_table jbuiltin_filters = JBUILTIN_TABLE(rows);
