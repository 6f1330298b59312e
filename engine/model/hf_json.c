#include "hf_json.h"

#include <stdio.h>
#include <unistd.h>

#include "map.h"
#include "mem.h"

int hf_json(const char *dir, const char *name, json_t **out, struct err *e)
{
    char path[4096];
    json_error_t why;
    *out = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (access(path, F_OK))
        return 0;
    *out = json_load_file(path, JSON_ALLOW_NUL, &why);
    if (!*out)
        return err_set(e, ERR_FORMAT, "%s: line %d: %s", path, why.line, why.text);
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return err_set(e, ERR_FORMAT, "%s: not a JSON object", path);
    }
    return 0;
}

char *hf_text(const char *dir, const char *name)
{
    char path[4096];
    struct file_map map;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (map_open(&map, path, NULL))
        return NULL;
    char *text = mem_strndup(map.p ? map.p : "", map.size_bytes);
    map_close(&map);
    return text;
}

int hf_ids(const json_t *v, int32_t *out, int cap)
{
    int n = 0;
    if (json_is_integer(v) && cap > 0)
        out[n++] = (int32_t)json_integer_value(v);
    for (size_t i = 0; i < json_array_size(v) && n < cap; i++)
        if (json_is_integer(json_array_get(v, i)))
            out[n++] = (int32_t)json_integer_value(json_array_get(v, i));
    return n;
}
