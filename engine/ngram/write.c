#include "ngram/write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"

/* ---- from windows to n-grams ---- */

/* Called for every distinct n-gram, those of one length in ascending order, and after all that go on from it. */
typedef int (*gram_fn)(void *self, int32_t n, int32_t last_tok, uint32_t count, struct err *e);

struct path { /* the n-grams that are still being counted: each is the beginning of the next */
    int32_t n, tok[NGRAM_MAX];
    uint32_t count[NGRAM_MAX];
};

static int path_close(struct path *p, int32_t n_stay, gram_fn fn, void *self, struct err *e)
{
    int rc = 0;
    for (; !rc && p->n > n_stay; p->n--)
        rc = fn(self, p->n, p->tok[p->n - 1], p->count[p->n - 1], e);
    return rc;
}

static int each_gram(struct ngram_counter *c, gram_fn fn, void *self, struct err *e)
{
    struct path p = {0};
    struct ngram_window w;
    int more, rc = ngram_counter_rewind(c, e);
    while (!rc && (more = ngram_counter_next(c, &w, e)) != 0) {
        if (more < 0)
            return more;
        int32_t n_same = 0, n = 0;
        while (n < NGRAM_MAX && w.tok[n] != NGRAM_NO_TOKEN)
            n++;
        while (n_same < p.n && n_same < n && p.tok[n_same] == w.tok[n_same])
            n_same++;
        rc = path_close(&p, n_same, fn, self, e);
        p.n = n;
        for (int32_t i = n_same; i < n; i++) {
            p.tok[i] = w.tok[i];
            p.count[i] = 0;
        }
        for (int32_t i = 0; i < n; i++)
            p.count[i] += w.count;
    }
    return rc ? rc : path_close(&p, 0, fn, self, e);
}

/* ---- how many there will be ---- */

struct census { /* how many n-grams occurred so often; the last also stands for all that occurred more often */
    uint32_t n_gram[NGRAM_MAX][NGRAM_MAX_MIN_COUNT + 1];
};

static int census_take(void *self, int32_t n, int32_t last_tok, uint32_t count, struct err *e)
{
    ((struct census *)self)->n_gram[n - 1][count < NGRAM_MAX_MIN_COUNT ? count : NGRAM_MAX_MIN_COUNT]++;
    return 0;
}

/* Completes the header: the least threshold from min_count on with which the file is small enough. */
static int choose_min_count(const struct census *s, uint64_t max_bytes, struct ngram_header *h, const char *path,
                            struct err *e)
{
    for (uint32_t n = 0; n < NGRAM_MAX; n++)
        for (uint32_t k = h->min_count; k <= NGRAM_MAX_MIN_COUNT; k++)
            h->n_gram[n] += s->n_gram[n][k];
    for (; h->n_gram[1]; h->min_count++) {
        if (!max_bytes || ngram_file_bytes(h) <= max_bytes)
            return 0;
        if (h->min_count == NGRAM_MAX_MIN_COUNT)
            break;
        for (uint32_t n = 0; n < NGRAM_MAX; n++)
            h->n_gram[n] -= s->n_gram[n][h->min_count];
    }
    return err_set(e, ERR_INVALID, "%s: the text has no n-grams%s", path,
                   max_bytes           ? " that are frequent enough and few enough to fit"
                   : h->min_count == 1 ? ""
                                       : " that are frequent enough");
}

static int count_grams(struct ngram_counter *c, uint64_t max_bytes, struct ngram_header *h, const char *path,
                       struct err *e)
{
    struct census *s = mem_calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = each_gram(c, census_take, s, e);
    if (!rc)
        rc = choose_min_count(s, max_bytes, h, path, e);
    mem_free(s);
    return rc;
}

/* ---- the file: every section is written from its own beginning ---- */

struct section {
    uint64_t at; /* where in the file the buffer's bytes belong */
    size_t n;
    uint8_t buf[1 << 14];
};

struct sections { /* of one level */
    struct section tok, count, first;
    uint32_t n_written;
    uint32_t next_first; /* the entry of the next level with which the next entry's continuations begin */
};

struct store_file { /* one call of ngram_write */
    const struct ngram_header *h;
    const char *path;
    char *tmp_path;
    int fd; /* -1: none */
    struct sections level[NGRAM_MAX];
};

static int write_at(const struct store_file *f, uint64_t at, const void *data, size_t n, struct err *e)
{
    for (const uint8_t *p = data; n;) {
        ssize_t now = pwrite(f->fd, p, n, (off_t)at);
        if (now < 0 && errno == EINTR)
            continue;
        if (now < 0)
            return err_set(e, ERR_IO, "%s: cannot be written: %s", f->tmp_path, strerror(errno));
        p += now;
        at += (uint64_t)now;
        n -= (size_t)now;
    }
    return 0;
}

static int section_flush(const struct store_file *f, struct section *s, struct err *e)
{
    int rc = write_at(f, s->at, s->buf, s->n, e);
    s->at += s->n;
    s->n = 0;
    return rc;
}

static int section_put(const struct store_file *f, struct section *s, uint32_t v, size_t n_byte, struct err *e)
{
    if (s->n + n_byte > sizeof s->buf) {
        int rc = section_flush(f, s, e);
        if (rc)
            return rc;
    }
    memcpy(s->buf + s->n, &v, n_byte); /* little-endian: the low bytes */
    s->n += n_byte;
    return 0;
}

static int gram_put(void *self, int32_t n, int32_t last_tok, uint32_t count, struct err *e)
{
    struct store_file *f = self;
    struct sections *l = &f->level[n - 1];
    if (count < f->h->min_count) /* then all that go on from it were as rare and are not there either */
        return 0;
    l->n_written++;
    int rc = section_put(f, &l->tok, (uint32_t)last_tok, (size_t)ngram_tok_bytes(f->h->n_vocab), e);
    if (!rc)
        rc = section_put(f, &l->count, count, 4, e);
    if (rc || n == (int32_t)f->h->max_n)
        return rc;
    rc = section_put(f, &l->first, l->next_first, 4, e);
    l->next_first = f->level[n].n_written;
    return rc;
}

static int finish_sections(struct store_file *f, struct err *e)
{
    int rc = 0;
    for (uint32_t n = 1; !rc && n <= f->h->max_n; n++) {
        struct sections *l = &f->level[n - 1];
        BUG_ON(l->n_written != f->h->n_gram[n - 1]);
        if (n < f->h->max_n)
            rc = section_put(f, &l->first, l->next_first, 4, e);
        if (!rc)
            rc = section_flush(f, &l->tok, e);
        if (!rc)
            rc = section_flush(f, &l->count, e);
        if (!rc)
            rc = section_flush(f, &l->first, e);
    }
    return rc;
}

static int file_begin(struct store_file *f, struct err *e)
{
    uint64_t at = sizeof *f->h;
    size_t size = strlen(f->path) + 32;
    f->tmp_path = mem_alloc(size);
    if (!f->tmp_path)
        return err_set(e, ERR_NOMEM, "%s: out of memory", f->path);
    snprintf(f->tmp_path, size, "%s.%ld.tmp", f->path, (long)getpid());
    f->fd = open(f->tmp_path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
    if (f->fd < 0 || ftruncate(f->fd, (off_t)ngram_file_bytes(f->h)))
        return err_set(e, ERR_IO, "%s: %s", f->tmp_path, strerror(errno));
    for (uint32_t n = 1; n <= f->h->max_n; n++) {
        struct ngram_place p = ngram_place_of(f->h, n, at);
        struct sections *l = &f->level[n - 1];
        l->tok.at = p.tok;
        l->count.at = p.count;
        l->first.at = p.first;
        at = p.end;
    }
    return write_at(f, 0, f->h, sizeof *f->h, e);
}

static int file_end(struct store_file *f, struct err *e)
{
    if (fsync(f->fd))
        return err_set(e, ERR_IO, "%s: cannot be written: %s", f->tmp_path, strerror(errno));
    if (rename(f->tmp_path, f->path))
        return err_set(e, ERR_IO, "%s: cannot be renamed to %s: %s", f->tmp_path, f->path, strerror(errno));
    return 0;
}

static int write_file(const char *path, struct ngram_counter *c, const struct ngram_header *h, struct err *e)
{
    struct store_file *f = mem_calloc(1, sizeof *f);
    if (!f)
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    f->h = h;
    f->path = path;
    f->fd = -1;
    int rc = file_begin(f, e);
    if (!rc)
        rc = each_gram(c, gram_put, f, e);
    if (!rc)
        rc = finish_sections(f, e);
    if (!rc)
        rc = file_end(f, e);
    if (f->fd >= 0)
        close(f->fd);
    if (rc && f->fd >= 0)
        unlink(f->tmp_path);
    mem_free(f->tmp_path);
    mem_free(f);
    return rc;
}

int ngram_write(const char *path, struct ngram_counter *c, const struct ngram_write_options *o, struct ngram_header *h,
                struct err *e)
{
    BUG_ON(o->min_count < 1 || o->min_count > NGRAM_MAX_MIN_COUNT);
    *h = (struct ngram_header){.magic = NGRAM_MAGIC,
                               .version = NGRAM_VERSION,
                               .max_n = (uint32_t)o->max_n,
                               .fingerprint = o->fingerprint,
                               .n_vocab = (uint32_t)o->n_vocab,
                               .min_count = o->min_count,
                               .n_token = ngram_counter_n_token(c),
                               .n_doc = ngram_counter_n_doc(c)};
    int rc = count_grams(c, o->max_bytes, h, path, e);
    return rc ? rc : write_file(path, c, h, e);
}
