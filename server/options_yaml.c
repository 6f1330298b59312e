/* The configuration file: one flat YAML mapping. Errors name file, line, column and key. */
#include <errno.h>
#include <string.h>
#include <yaml.h>

#include "mem.h"
#include "options.h"

struct reader {
    yaml_parser_t parser;
    const char *path;
    struct err *e;
};

static int fail_at(struct reader *r, yaml_mark_t at, const char *what)
{
    return err_set(r->e, ERR_INVALID, "%s:%zu:%zu: %s", r->path, at.line + 1, at.column + 1, what);
}

static int next_event(struct reader *r, yaml_event_t *ev)
{
    if (yaml_parser_parse(&r->parser, ev))
        return 0;
    yaml_event_delete(ev);
    return fail_at(r, r->parser.problem_mark, r->parser.problem ? r->parser.problem : "cannot be read");
}

static int set_pair(struct reader *r, struct options *o, struct option_source *src, const yaml_event_t *key,
                    const yaml_event_t *value)
{
    const char *name = (const char *)key->data.scalar.value;
    char where[512], what[256];
    int at = option_find(name, key->data.scalar.length);
    if (at < 0) {
        const char *near = option_nearest(name);
        snprintf(what, sizeof what, "%.80s: no such option%s%s%s", name, near ? "; did you mean " : "",
                 near ? near : "", near ? "?" : "");
        return fail_at(r, key->start_mark, what);
    }
    if (value->type != YAML_SCALAR_EVENT) {
        snprintf(what, sizeof what, "%s: takes a single value", name);
        return fail_at(r, value->start_mark, what);
    }
    if (strlen((const char *)value->data.scalar.value) != value->data.scalar.length) {
        snprintf(what, sizeof what, "%s: the value contains a NUL", name);
        return fail_at(r, value->start_mark, what);
    }
    snprintf(where, sizeof where, "%s:%zu:%zu: %s", r->path, value->start_mark.line + 1, value->start_mark.column + 1,
             name);
    return option_set(o, src, at, (const char *)value->data.scalar.value, where, r->e);
}

static int read_mapping(struct reader *r, struct options *o, struct option_source *src)
{
    for (;;) {
        yaml_event_t key, value;
        int rc = next_event(r, &key);
        if (rc)
            return rc;
        if (key.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&key);
            return 0;
        }
        rc = key.type == YAML_SCALAR_EVENT ? next_event(r, &value) : fail_at(r, key.start_mark, "a key must be a name");
        if (!rc) {
            rc = set_pair(r, o, src, &key, &value);
            yaml_event_delete(&value);
        }
        yaml_event_delete(&key);
        if (rc)
            return rc;
    }
}

static int read_document(struct reader *r, struct options *o, struct option_source *src)
{
    for (;;) {
        yaml_event_t ev;
        int rc = next_event(r, &ev);
        if (rc)
            return rc;
        yaml_event_type_t type = ev.type;
        yaml_mark_t mark = ev.start_mark;
        bool empty = type == YAML_SCALAR_EVENT && ev.data.scalar.length == 0;
        yaml_event_delete(&ev);
        if (type == YAML_STREAM_END_EVENT)
            return 0;
        if (type == YAML_MAPPING_START_EVENT)
            rc = read_mapping(r, o, src);
        else if (type == YAML_SEQUENCE_START_EVENT || type == YAML_ALIAS_EVENT || (type == YAML_SCALAR_EVENT && !empty))
            rc = fail_at(r, mark, "expected 'name: value' lines");
        if (rc)
            return rc;
    }
}

int options_read_yaml(struct options *o, struct option_source *src, const char *path, struct err *e)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
    struct reader r = {.path = path, .e = e};
    int rc = -ERR_NOMEM;
    if (yaml_parser_initialize(&r.parser)) {
        yaml_parser_set_input_file(&r.parser, f);
        rc = read_document(&r, o, src);
        yaml_parser_delete(&r.parser);
    } else {
        err_set(e, ERR_NOMEM, "out of memory");
    }
    fclose(f);
    return rc;
}
