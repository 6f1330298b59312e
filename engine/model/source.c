#include "source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "mem.h"
#include "model/fp8.h"

enum { N_SAMPLE = 64, SAMPLE_BYTES = 4096, MAX_NAME = 96 };

/* A model's tensors may also be memory of its own. */
static bool is_of_file(const struct source *s, const void *data)
{
    const uint8_t *p = data;
    for (const struct source_file *f = s->file; f < s->file + s->n_file; f++)
        if ((uintptr_t)p - (uintptr_t)f->map->p < f->map->size_bytes)
            return true;
    return false;
}

static void want(void *arg, const void *data, size_t bytes)
{
    if (is_of_file(arg, data))
        map_want(data, bytes);
}

static void done(void *arg, const void *data, size_t bytes)
{
    const struct source *s = arg;
    if (is_of_file(s, data) || fp8_has(s->made, data))
        map_done(data, bytes);
}

/* Weights that were trained on, merged or quantised anew differ everywhere, so a few pages tell. */
static uint64_t sample_hash(const uint8_t *p, size_t bytes, uint64_t hash)
{
    if (bytes <= (size_t)N_SAMPLE * SAMPLE_BYTES)
        return XXH3_64bits_withSeed(p, bytes, hash);
    for (size_t i = 0; i < N_SAMPLE; i++)
        hash = XXH3_64bits_withSeed(p + (bytes - SAMPLE_BYTES) / (N_SAMPLE - 1) * i, SAMPLE_BYTES, hash);
    return hash;
}

static void identify(void *arg, struct weight_identity *out)
{
    const struct source *s = arg;
    *out = (struct weight_identity){0};
    for (const struct source_file *f = s->file; f < s->file + s->n_file; f++) {
        const uint8_t *p = f->map->p;
        size_t size = f->map->size_bytes;
        out->size_bytes += size;
        out->modified_ns = out->modified_ns > f->map->modified_ns ? out->modified_ns : f->map->modified_ns;
        out->head_hash = XXH3_64bits_withSeed(p, f->head_bytes, out->head_hash);
        out->sample_hash = sample_hash(p + f->head_bytes, size - f->head_bytes, out->sample_hash);
    }
}

/* "llama-3.2-1b-9f86d081884c7d65": letters, digits and a few signs of the file's name, then the hash of its full path.
 */
static char *make_name(const char *path)
{
    char name[MAX_NAME + 32], *full = realpath(path, NULL);
    const char *at = full ? full : path, *slash = strrchr(at, '/');
    const char *file = slash ? slash + 1 : at, *dot = strstr(file, ".gguf");
    int n = dot ? (int)(dot - file) : (int)strlen(file);
    n = snprintf(name, MAX_NAME, "%.*s", n, file);
    n = n < MAX_NAME ? n : MAX_NAME - 1;
    for (int i = 0; i < n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", name[i]))
            name[i] = '_';
    snprintf(name + n, 32, "-%016llx", (unsigned long long)XXH3_64bits(at, strlen(at)));
    free(full); /* realpath's */
    return mem_strdup(name);
}

int source_open(struct source *s, const struct source_file *file, int32_t n_file, const struct fp8_store *made,
                const char *path, struct err *e)
{
    s->made = made;
    s->file = mem_alloc((size_t)n_file * sizeof *file);
    s->name = make_name(path);
    s->ops = (struct weight_source){.arg = s, .want = want, .done = done, .identify = identify, .name = s->name};
    if (!s->file || !s->name)
        return err_set(e, ERR_NOMEM, "out of memory");
    memcpy(s->file, file, (size_t)n_file * sizeof *file);
    s->n_file = n_file;
    return 0;
}

void source_close(struct source *s)
{
    mem_free(s->file);
    mem_free(s->name);
}

void source_loaded(const struct source *s)
{
    for (const struct source_file *f = s->file; f < s->file + s->n_file; f++)
        map_done(f->map->p, f->map->size_bytes);
    fp8_drop(s->made);
}
