#include "safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dtype.h"
#include "mem.h"

enum { MAX_HEADER = 100 << 20, MAX_FILE = 4096 };

static const struct {
    const char *name;
    int type, bytes;
} types[] = {{"F32", DT_F32, 4}, {"F16", DT_F16, 2}, {"BF16", DT_BF16, 2}, {"F64", -1, 8},     {"I64", -1, 8},
             {"U64", -1, 8},     {"I32", -1, 4},     {"U32", -1, 4},       {"I16", -1, 2},     {"U16", -1, 2},
             {"I8", -1, 1},      {"U8", -1, 1},      {"BOOL", -1, 1},      {"F8_E4M3", -1, 1}, {"F8_E5M2", -1, 1}};

struct reader { /* owner: read_file */
    struct safetensors *s;
    const char *name; /* the file's, for messages */
    const uint8_t *data;
    size_t n_data;
    struct err *e;
};

/* ---- One tensor ---- */

static int bad(const struct reader *r, const char *tensor, const char *what)
{
    return err_set(r->e, ERR_FORMAT, "%s: tensor '%.100s': %s", r->name, tensor, what);
}

static int read_type(const struct reader *r, const json_t *v, struct st_tensor *t, size_t *bytes)
{
    const char *name = json_string_value(json_object_get(v, "dtype"));
    if (!name)
        return bad(r, t->name, "it has no dtype");
    snprintf(t->type_name, sizeof t->type_name, "%s", name);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, name)) {
            t->type = types[i].type;
            *bytes = (size_t)types[i].bytes;
            return 0;
        }
    t->type = -1;
    return 0; /* a kind of which not even the size is known is not looked at */
}

/* Multiplies the dimensions into *bytes. */
static int read_shape(const struct reader *r, const json_t *v, struct st_tensor *t, size_t *bytes)
{
    const json_t *shape = json_object_get(v, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > ST_MAX_DIM)
        return bad(r, t->name, "its shape is not a list of at most 4 sizes");
    t->n_dim = (int)json_array_size(shape);
    for (int i = 0; i < t->n_dim; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        json_int_t n = json_integer_value(dim);
        if (!json_is_integer(dim) || n < 0 || __builtin_mul_overflow(*bytes, (size_t)n, bytes))
            return bad(r, t->name, "its shape is out of range");
        t->dim[i] = n;
    }
    return 0;
}

static int read_tensor(struct reader *r, const char *name, const json_t *v)
{
    struct st_tensor *t = &r->s->tensor[r->s->n_tensor];
    const json_t *range = json_object_get(v, "data_offsets");
    json_int_t from = json_integer_value(json_array_get(range, 0)), to = json_integer_value(json_array_get(range, 1));
    size_t bytes = 0;
    *t = (struct st_tensor){.name = mem_strdup(name)};
    if (!t->name)
        return err_set(r->e, ERR_NOMEM, "out of memory");
    r->s->n_tensor++;
    int rc = read_type(r, v, t, &bytes);
    bool known = bytes > 0;
    if (!rc)
        rc = read_shape(r, v, t, &bytes);
    if (rc)
        return rc;
    if (json_array_size(range) != 2 || from < 0 || from > to || (size_t)to > r->n_data)
        return err_set(r->e, ERR_FORMAT, "%s: tensor '%.100s': bytes %lld to %lld of %zu do not exist", r->name, name,
                       (long long)from, (long long)to, r->n_data);
    t->data = r->data + from;
    t->size_bytes = (size_t)(to - from);
    if (known && t->size_bytes != bytes)
        return err_set(r->e, ERR_FORMAT, "%s: tensor '%.100s': its shape needs %zu bytes, it has %zu", r->name, name,
                       bytes, t->size_bytes);
    return 0;
}

/* ---- One file ---- */

static int read_header(struct reader *r, const char *text, size_t n)
{
    json_error_t why;
    json_t *header = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(header)) {
        json_decref(header);
        return err_set(r->e, ERR_FORMAT, "%s: the header is not a JSON object: %s at byte %d", r->name, why.text,
                       why.position + 8);
    }
    size_t n_all = (size_t)r->s->n_tensor + json_object_size(header);
    struct st_tensor *grown = mem_realloc(r->s->tensor, (n_all + 1) * sizeof *grown);
    int rc = grown ? 0 : err_set(r->e, ERR_NOMEM, "out of memory for %zu tensors", n_all);
    const char *name;
    json_t *v;
    if (grown)
        r->s->tensor = grown;
    json_object_foreach(header, name, v)
    {
        if (!rc && strcmp(name, "__metadata__"))
            rc = read_tensor(r, name, v);
    }
    json_decref(header);
    return rc;
}

static int read_file(struct safetensors *s, const void *p, size_t size_bytes, const char *name, size_t *data_at,
                     struct err *e)
{
    uint64_t n;
    if (size_bytes < sizeof n)
        return err_set(e, ERR_FORMAT, "%s: truncated: %zu bytes", name, size_bytes);
    memcpy(&n, p, sizeof n);
    if (n > MAX_HEADER || n > size_bytes - sizeof n)
        return err_set(e, ERR_FORMAT, "%s: a header of %llu bytes in a file of %zu", name, (unsigned long long)n,
                       size_bytes);
    *data_at = sizeof n + n;
    struct reader r = {
        .s = s, .name = name, .data = (const uint8_t *)p + *data_at, .n_data = size_bytes - *data_at, .e = e};
    return read_header(&r, (const char *)p + sizeof n, n);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct st_tensor *)a)->name, ((const struct st_tensor *)b)->name);
}

static int sort_tensors(struct safetensors *s, struct err *e)
{
    if (s->n_tensor)
        qsort(s->tensor, (size_t)s->n_tensor, sizeof *s->tensor, by_name);
    for (int32_t i = 1; i < s->n_tensor; i++)
        if (!strcmp(s->tensor[i - 1].name, s->tensor[i].name))
            return err_set(e, ERR_FORMAT, "tensor '%.100s' is in two files", s->tensor[i].name);
    return 0;
}

/* ---- A directory ---- */

static int open_shard(struct safetensors *s, const char *dir, const char *name, struct err *e)
{
    char path[4096];
    struct st_file *grown = mem_realloc(s->file, ((size_t)s->n_file + 1) * sizeof *grown);
    if (!grown)
        return err_set(e, ERR_NOMEM, "out of memory");
    s->file = grown;
    struct st_file *f = &s->file[s->n_file];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    *f = (struct st_file){0};
    int rc = map_open(&f->map, path, e);
    if (rc)
        return rc;
    s->n_file++;
    return read_file(s, f->map.p, f->map.size_bytes, path, &f->data_at, e);
}

static int cmp_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The files of the index, each once. */
static int open_shards(struct safetensors *s, const char *dir, const json_t *map, struct err *e)
{
    size_t n = json_object_size(map), n_file = 0;
    const char **name = mem_calloc(n + 1, sizeof *name), *key;
    json_t *v;
    int rc = name ? 0 : err_set(e, ERR_NOMEM, "out of memory");
    json_object_foreach((json_t *)map, key, v)
    {
        const char *file = json_string_value(v);
        if (!rc && (!file || strchr(file, '/')))
            rc = err_set(e, ERR_FORMAT, "model.safetensors.index.json: weight_map: '%.100s' names no file beside it",
                         key);
        if (!rc)
            name[n_file++] = file;
    }
    if (!rc)
        qsort(name, n_file, sizeof *name, cmp_names);
    for (size_t i = 0; !rc && i < n_file; i++)
        if (i == 0 || strcmp(name[i], name[i - 1]))
            rc = s->n_file == MAX_FILE ? err_set(e, ERR_FORMAT, "model.safetensors.index.json: over %d files", MAX_FILE)
                                       : open_shard(s, dir, name[i], e);
    mem_free(name);
    return rc;
}

static int open_index(struct safetensors *s, const char *dir, struct err *e)
{
    char path[4096];
    json_error_t why;
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    json_t *index = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    const json_t *map = json_object_get(index, "weight_map");
    int rc = json_is_object(map) ? open_shards(s, dir, map, e)
                                 : err_set(e, ERR_FORMAT, "%s: %s", path, index ? "it has no weight_map" : why.text);
    json_decref(index);
    return rc;
}

static int has_file(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    if (f)
        fclose(f);
    return f != NULL;
}

static int finish(struct safetensors *s, int rc, struct safetensors **out, struct err *e)
{
    if (!rc)
        rc = sort_tensors(s, e);
    if (rc)
        st_close(s);
    else
        *out = s;
    return rc;
}

int st_open(struct safetensors **out, const char *dir, struct err *e)
{
    *out = NULL;
    struct safetensors *s = mem_calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc;
    if (has_file(dir, "model.safetensors.index.json"))
        rc = open_index(s, dir, e);
    else if (has_file(dir, "model.safetensors"))
        rc = open_shard(s, dir, "model.safetensors", e);
    else
        rc = err_set(e, ERR_NOTFOUND, "%s: neither model.safetensors nor model.safetensors.index.json is there", dir);
    return finish(s, rc, out, e);
}

int st_open_mem(struct safetensors **out, const void *data, size_t size_bytes, const char *name, struct err *e)
{
    size_t data_at;
    *out = NULL;
    struct safetensors *s = mem_calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    return finish(s, read_file(s, data, size_bytes, name, &data_at, e), out, e);
}

void st_close(struct safetensors *s)
{
    if (!s)
        return;
    for (int32_t i = 0; i < s->n_tensor; i++)
        mem_free(s->tensor[i].name);
    for (int32_t i = 0; i < s->n_file; i++)
        map_close(&s->file[i].map);
    mem_free(s->tensor);
    mem_free(s->file);
    mem_free(s);
}

const struct st_tensor *st_find(const struct safetensors *s, const char *name)
{
    struct st_tensor key = {.name = (char *)name};
    return s->n_tensor ? bsearch(&key, s->tensor, (size_t)s->n_tensor, sizeof key, by_name) : NULL;
}
