#include "pack_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "log.h"
#include "mem.h"
#include "wake.h"

enum {
    FORMAT = 1, /* of this file; weight_layout is that of what it holds */
    PAGE = 4096,
    PIECE = 1 << 20,
    READ_AT_ONCE = 256 << 20, /* between two calls of progress */
    ORPHAN_S = 600,           /* a writer touches its file more often than that */
    MAX_PATH = 4096,
};

static const char magic[8] = "GaLLeYpk";

/* Little-endian, without padding. */
struct head {
    char magic[8];
    uint32_t format, layout;
    struct weight_identity model;
    uint64_t n_entry, data_bytes, piece_bytes;
    uint64_t rest_sum; /* XXH3 of the entries and the pieces' sums */
    uint64_t own_sum;  /* XXH3 of the head up to here */
};

struct entry { /* a tensor's plan; vectors have pack -1 and no panels */
    int32_t pack, n_out, n_in, n_panel;
    uint64_t panel_bytes, at;
};

_Static_assert(sizeof(struct head) == 88 && sizeof(struct entry) == 32, "written as they are");

/* Everything before the data, in one piece of memory. */
struct front {
    char *p;
    size_t bytes, data_at; /* data_at: bytes rounded up to whole pages */
    size_t n_piece;
};

static struct head *front_head(const struct front *f)
{
    return (struct head *)(void *)f->p;
}

static struct entry *front_entry(const struct front *f)
{
    return (struct entry *)(void *)(f->p + sizeof(struct head));
}

static uint64_t *front_sum(const struct front *f)
{
    return (uint64_t *)(void *)(f->p + f->bytes) - f->n_piece;
}

static struct entry entry_of(const struct slot *s)
{
    const struct weight *w = s->matrix;
    if (!w)
        return (struct entry){.pack = -1, .n_out = 1, .n_in = (int32_t)s->from->n_col, .at = s->at};
    return (struct entry){.pack = (int32_t)w->pack,
                          .n_out = w->n_out,
                          .n_in = w->n_in,
                          .n_panel = w->n_panel,
                          .panel_bytes = w->panel_bytes,
                          .at = s->at};
}

/* What the file should begin with: all but the sums. */
static int front_make(struct front *f, const struct pack_cache *c, const struct weight_identity *model)
{
    size_t n = (size_t)c->slots->n;
    f->n_piece = (c->slots->bytes + PIECE - 1) / PIECE;
    f->bytes = sizeof(struct head) + n * sizeof(struct entry) + f->n_piece * sizeof(uint64_t);
    f->data_at = (f->bytes + PAGE - 1) / PAGE * PAGE;
    f->p = mem_calloc(1, f->bytes);
    if (!f->p)
        return -ERR_NOMEM;
    struct head *h = front_head(f);
    *h = (struct head){.format = FORMAT,
                       .layout = WEIGHT_LAYOUT,
                       .model = *model,
                       .n_entry = n,
                       .data_bytes = c->slots->bytes,
                       .piece_bytes = PIECE};
    memcpy(h->magic, magic, sizeof magic);
    for (size_t i = 0; i < n; i++)
        front_entry(f)[i] = entry_of(&c->slots->slot[i]);
    return 0;
}

static uint64_t own_sum(const struct head *h)
{
    return XXH3_64bits(h, offsetof(struct head, own_sum));
}

static uint64_t rest_sum(const struct front *f)
{
    return XXH3_64bits(f->p + sizeof(struct head), f->bytes - sizeof(struct head));
}

static size_t piece_bytes(const struct pack_cache *c, size_t i)
{
    size_t left = c->slots->bytes - i * PIECE;
    return left < PIECE ? left : PIECE;
}

/* ---- Reading ---- */

static ssize_t read_all(int fd, void *p, size_t n, size_t at)
{
    size_t done = 0;
    while (done < n) {
        ssize_t k = pread(fd, (char *)p + done, n - done, (off_t)(at + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return k < 0 ? -1 : (ssize_t)done;
        done += (size_t)k;
    }
    return (ssize_t)done;
}

/* Why these heads differ, or NULL. */
static const char *head_difference(const struct head *h, const struct head *want)
{
    if (memcmp(h->magic, want->magic, sizeof h->magic))
        return "it is not a file of packed weights";
    if (h->own_sum != own_sum(h))
        return "its head is damaged";
    if (h->format != want->format || h->layout != want->layout)
        return "another version of Galley packed it";
    if (h->model.size_bytes != want->model.size_bytes)
        return "it was packed from a model file of another size";
    if (h->model.head_hash != want->model.head_hash)
        return "it was packed from a model file with another head";
    if (h->model.sample_hash != want->model.sample_hash)
        return "it was packed from a model file with other weights";
    if (h->model.modified_ns != want->model.modified_ns)
        return "the model file was written to since it was packed";
    if (h->n_entry != want->n_entry || h->data_bytes != want->data_bytes || h->piece_bytes != want->piece_bytes)
        return "it holds other tensors";
    return NULL;
}

/* Reads what stands before the data and compares it with what should. Keeps the pieces' sums in f. */
static const char *check_front(const struct pack_cache *c, struct front *f, int fd)
{
    struct front found = {.bytes = f->bytes, .n_piece = f->n_piece};
    struct head h;
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        return "it is not a regular file";
    if (read_all(fd, &h, sizeof h, 0) != (ssize_t)sizeof h)
        return "it is cut short";
    const char *why = head_difference(&h, front_head(f));
    if (why)
        return why;
    if ((uint64_t)st.st_size != f->data_at + c->slots->bytes)
        return (uint64_t)st.st_size < f->data_at + c->slots->bytes ? "it is cut short" : "it is too long";
    found.p = mem_alloc(f->bytes);
    if (!found.p)
        return "out of memory";
    size_t entry_bytes = (size_t)c->slots->n * sizeof(struct entry);
    if (read_all(fd, found.p, f->bytes, 0) != (ssize_t)f->bytes || memcmp(found.p, &h, sizeof h) ||
        h.rest_sum != rest_sum(&found))
        why = "its table is damaged";
    else if (memcmp(front_entry(&found), front_entry(f), entry_bytes))
        why = "it holds other tensors";
    else
        memcpy(front_sum(f), front_sum(&found), f->n_piece * sizeof(uint64_t));
    mem_free(found.p);
    return why;
}

struct read_job {
    const struct pack_cache *c;
    const struct front *f;
    char *base;
    int fd;
    size_t end;
    atomic_size_t next;
    atomic_int cut, damaged;
};

static void read_pieces(void *arg, int worker)
{
    struct read_job *j = arg;
    size_t i;
    while ((i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->end) {
        size_t n = piece_bytes(j->c, i);
        char *to = j->base + i * PIECE;
        if (read_all(j->fd, to, n, j->f->data_at + i * PIECE) != (ssize_t)n)
            atomic_store(&j->cut, 1);
        else if (XXH3_64bits(to, n) != front_sum(j->f)[i])
            atomic_store(&j->damaged, 1);
    }
}

static const char *read_data(const struct pack_cache *c, const struct front *f, int fd, char *base,
                             pack_progress progress, void *arg, int *rc)
{
    struct read_job j = {.c = c, .f = f, .base = base, .fd = fd};
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    while (j.end < f->n_piece && !*rc) {
        size_t first = j.end;
        j.end = first + READ_AT_ONCE / PIECE < f->n_piece ? first + READ_AT_ONCE / PIECE : f->n_piece;
        atomic_store(&j.next, first);
        pool_run(c->pool, read_pieces, &j);
        if (j.cut)
            return "it cannot be read to its end";
        if (j.damaged)
            return "its data is damaged";
        size_t n = j.end < f->n_piece ? READ_AT_ONCE : c->slots->bytes - first * PIECE;
        *rc = progress(arg, n);
    }
    return NULL;
}

static int file_path(const struct pack_cache *c, char *path, size_t size)
{
    int n = snprintf(path, size, "%s/%s.pack", c->dir, c->source->name);
    errno = ENAMETOOLONG;
    return n > 0 && (size_t)n < size;
}

int pack_cache_read(const struct pack_cache *c, char *base, pack_progress progress, void *arg)
{
    char path[MAX_PATH];
    struct weight_identity model;
    struct front f = {0};
    int rc = 0, fd = file_path(c, path, sizeof path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) {
        if (errno != ENOENT)
            log_line(LOG_WARN, "repack cache ignored", "file=\"%s\" reason=\"%s\"", path, strerror(errno));
        return 0;
    }
    const char *why = NULL;
    int64_t start_ns = clock_ns();
    c->source->identify(c->source->arg, &model);
    if (front_make(&f, c, &model))
        why = "out of memory";
    if (!why)
        why = check_front(c, &f, fd);
    if (!why)
        why = read_data(c, &f, fd, base, progress, arg, &rc);
    close(fd);
    mem_free(f.p);
    if (why)
        log_line(LOG_WARN, "repack cache ignored", "file=\"%s\" reason=\"%s\"", path, why);
    else if (!rc)
        log_line(LOG_INFO, "repack cache read", "file=\"%s\" mib=%zu ms=%lld", path, c->slots->bytes >> 20,
                 (long long)(clock_ns() - start_ns) / 1000000);
    return why ? 0 : rc ? rc : 1;
}

/* ---- Writing ---- */

struct sum_job {
    const struct pack_cache *c;
    const struct front *f;
    const char *base;
    atomic_size_t next;
};

static void sum_pieces(void *arg, int worker)
{
    struct sum_job *j = arg;
    size_t i;
    while ((i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->f->n_piece)
        front_sum(j->f)[i] = XXH3_64bits(j->base + i * PIECE, piece_bytes(j->c, i));
}

static void seal(const struct pack_cache *c, struct front *f, const char *base)
{
    struct sum_job j = {.c = c, .f = f, .base = base};
    pool_run(c->pool, sum_pieces, &j);
    front_head(f)->rest_sum = rest_sum(f);
    front_head(f)->own_sum = own_sum(front_head(f));
}

static int write_all(int fd, const void *p, size_t n, size_t at)
{
    while (n) {
        ssize_t k = pwrite(fd, p, n < READ_AT_ONCE ? n : READ_AT_ONCE, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return -1;
        p = (const char *)p + k;
        n -= (size_t)k;
        at += (size_t)k;
    }
    return 0;
}

/* Whoever writes at the same time has another name, wherever it runs. */
static int temporary_name(const char *path, char *out, size_t size)
{
    uint64_t r = 0;
    if (getrandom(&r, sizeof r, 0) != (ssize_t)sizeof r)
        r = (uint64_t)clock_ns() ^ (uint64_t)getpid() << 40;
    int n = snprintf(out, size, "%s.tmp-%016llx", path, (unsigned long long)r);
    return n > 0 && (size_t)n < size;
}

static void remove_orphans(const struct pack_cache *c)
{
    char prefix[MAX_PATH];
    DIR *d = opendir(c->dir);
    int n = snprintf(prefix, sizeof prefix, "%s.pack.tmp-", c->source->name);
    for (struct dirent *f; d && (f = readdir(d));) {
        struct stat st;
        if (!strncmp(f->d_name, prefix, (size_t)n) && !fstatat(dirfd(d), f->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
            S_ISREG(st.st_mode) && time(NULL) - st.st_mtime > ORPHAN_S)
            unlinkat(dirfd(d), f->d_name, 0);
    }
    if (d)
        closedir(d);
}

/* The whole file under a name of its own, then under the one that readers look for. Not synced: after a crash of the
 * machine the sums tell. 0, or -1 with errno. */
static int write_file(const struct pack_cache *c, const struct front *f, const char *base, const char *path)
{
    char tmp[MAX_PATH + 32];
    if (!temporary_name(path, tmp, sizeof tmp)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return -1;
    int rc = posix_fallocate(fd, 0, (off_t)(f->data_at + c->slots->bytes)); /* no room is noticed now */
    if (rc) {
        errno = rc;
        rc = -1;
    }
    if (!rc)
        rc = write_all(fd, f->p, f->bytes, 0);
    if (!rc)
        rc = write_all(fd, base, c->slots->bytes, f->data_at);
    int error = errno;
    if (close(fd) && !rc) { /* file systems over a network tell only now */
        error = errno;
        rc = -1;
    }
    if (!rc && rename(tmp, path)) {
        error = errno;
        rc = -1;
    }
    if (rc)
        unlink(tmp);
    errno = error;
    return rc;
}

void pack_cache_write(const struct pack_cache *c, const char *base)
{
    char path[MAX_PATH];
    struct weight_identity model;
    struct front f = {0};
    int64_t start_ns = clock_ns();
    int rc = file_path(c, path, sizeof path) ? 0 : -1;
    if (!rc) {
        c->source->identify(c->source->arg, &model);
        errno = ENOMEM;
        rc = front_make(&f, c, &model);
    }
    if (!rc) {
        seal(c, &f, base);
        remove_orphans(c);
        rc = write_file(c, &f, base, path);
    }
    mem_free(f.p);
    if (rc)
        log_line(LOG_WARN, "repack cache not written", "file=\"%s\" reason=\"%s\"", path, strerror(errno));
    else
        log_line(LOG_INFO, "repack cache written", "file=\"%s\" mib=%zu ms=%lld", path, c->slots->bytes >> 20,
                 (long long)(clock_ns() - start_ns) / 1000000);
}
