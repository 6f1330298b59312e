#include "keys.h"

#include <string.h>

#include "file.h"
#include "mem.h"

enum { MAX_KEYS_FILE = 1 << 20, GRACE_S = 10 }; /* nobody looks at a set for longer than a comparison takes */

struct key_set { /* owner: struct keys */
    struct version version;
    int n_key;
    struct key {
        const char *p;
        size_t n;
    } * key; /* [n_key], into the texts */
    char *list, *file;
};

static void set_free(struct version *v)
{
    struct key_set *s = (struct key_set *)v;
    mem_free(s->key);
    mem_free(s->list);
    mem_free(s->file);
    mem_free(s);
}

static size_t count(const char *text, char c)
{
    size_t n = 0;
    for (; text && *text; text++)
        n += *text == c;
    return n;
}

static void take_list(struct key_set *s)
{
    for (const char *k = s->list; k && *k;) {
        size_t n = strcspn(k, ",");
        if (n)
            s->key[s->n_key++] = (struct key){k, n};
        k += n + (k[n] == ',');
    }
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* A key is a word of printable ASCII, since that is what a header can hold. */
static int take_line(struct key_set *s, const char *line, size_t n, const char *path, int number, struct err *e)
{
    const char *end = line + n;
    while (line < end && is_blank(*line))
        line++;
    const char *key = line;
    while (line<end && * line> ' ' && *line < 127)
        line++;
    size_t n_key = (size_t)(line - key);
    if (n_key && *key == '#')
        return 0;
    while (line < end && is_blank(*line))
        line++;
    if (line < end && *line != '#')
        return err_set(e, ERR_INVALID, "%s:%d: a line holds one key, of printable characters without spaces", path,
                       number);
    if (n_key)
        s->key[s->n_key++] = (struct key){key, n_key};
    return 0;
}

static int take_file(struct key_set *s, const char *path, size_t n, struct err *e)
{
    const char *line = s->file, *end = line + n;
    int before = s->n_key;
    for (int number = 1; line < end; number++) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t len = (size_t)((stop ? stop : end) - line);
        int rc = take_line(s, line, len, path, number, e);
        if (rc)
            return rc;
        line += len + 1;
    }
    return s->n_key > before ? 0 : err_set(e, ERR_INVALID, "%s: there is no key in it", path);
}

static int fill(struct key_set *s, const char *list, const char *path, struct err *e)
{
    size_t n = 0;
    if (list && !(s->list = mem_strdup(list)))
        return err_set(e, ERR_NOMEM, "out of memory");
    if (path && !(s->file = file_read(path, MAX_KEYS_FILE, &n, e)))
        return -ERR_IO;
    s->key = mem_calloc(count(s->list, ',') + (s->file ? n : 0) / 2 + 2, sizeof *s->key);
    if (!s->key)
        return err_set(e, ERR_NOMEM, "out of memory");
    take_list(s);
    if (list && !s->n_key)
        return err_set(e, ERR_INVALID, "--api-key: there is no key in it");
    return path ? take_file(s, path, n, e) : 0;
}

int keys_load(struct keys *k, const char *list, const char *path, int *n_key, struct err *e)
{
    k->sets.free = set_free;
    struct key_set *s = mem_calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = fill(s, list && *list ? list : NULL, path && *path ? path : NULL, e);
    if (rc) {
        set_free(&s->version);
        return rc;
    }
    if (n_key)
        *n_key = s->n_key;
    versions_put(&k->sets, &s->version, GRACE_S * INT64_C(1000000000));
    return 0;
}

/* Time depends on what was given, and not on how much of it is right. */
static bool same_key(const char *given, size_t n_given, const struct key *k)
{
    unsigned diff = n_given != k->n;
    for (size_t i = 0; i < n_given; i++)
        diff |= (unsigned char)given[i] ^ (unsigned char)k->p[i % k->n];
    return diff == 0;
}

bool keys_accept(const struct keys *k, const char *given)
{
    const struct key_set *s = (const struct key_set *)atomic_load(&k->sets.now);
    bool found = false;
    size_t n = given ? strlen(given) : 0;
    for (int i = 0; given && i < s->n_key; i++)
        found |= same_key(given, n, &s->key[i]);
    return found || !s->n_key;
}

void keys_free(struct keys *k)
{
    if (k->sets.free)
        versions_free(&k->sets);
}
