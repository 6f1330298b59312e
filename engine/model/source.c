#include "source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "mem.h"

enum { N_SAMPLE = 64, SAMPLE_BYTES = 4096, MAX_NAME = 96 };

static void want(void *arg, const void *data, size_t bytes)
{
    map_want(data, bytes);
}

static void done(void *arg, const void *data, size_t bytes)
{
    map_done(data, bytes);
}

/* Where the first tensor lies; a file without tensors is all head. */
static size_t head_bytes(const struct gguf *g)
{
    size_t first = g->size_bytes;
    for (int64_t i = 0; i < g->n_tensor; i++) {
        size_t at = (size_t)(g->tensor[i].data - g->base);
        first = at < first ? at : first;
    }
    return first;
}

/* Weights that were trained on, merged or quantised anew differ everywhere, so a few pages tell. */
static uint64_t sample_hash(const uint8_t *p, size_t bytes)
{
    if (bytes <= (size_t)N_SAMPLE * SAMPLE_BYTES)
        return XXH3_64bits(p, bytes);
    uint64_t hash = 0;
    for (size_t i = 0; i < N_SAMPLE; i++)
        hash = XXH3_64bits_withSeed(p + (bytes - SAMPLE_BYTES) / (N_SAMPLE - 1) * i, SAMPLE_BYTES, hash);
    return hash;
}

static void identify(void *arg, struct weight_identity *out)
{
    const struct gguf *g = ((const struct source *)arg)->file;
    size_t head = head_bytes(g);
    *out = (struct weight_identity){.size_bytes = g->size_bytes,
                                    .modified_ns = g->map.modified_ns,
                                    .head_hash = XXH3_64bits(g->base, head),
                                    .sample_hash = sample_hash(g->base + head, g->size_bytes - head)};
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

int source_open(struct source *s, const struct gguf *file, const char *path, struct err *e)
{
    s->file = file;
    s->name = make_name(path);
    s->ops = (struct weight_source){.arg = s, .want = want, .done = done, .identify = identify, .name = s->name};
    return s->name ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

void source_close(struct source *s)
{
    mem_free(s->name);
}

void source_loaded(const struct source *s)
{
    map_done(s->file->map.p, s->file->map.size_bytes);
}
