#include "ngram/counter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"

enum { MAX_RUN = 64 }; /* files open at once; when there are so many they are merged into one */

struct ngram_counter {
    const char *near_path;
    int32_t max_n;
    int32_t *tok; /* [cap] text not yet counted, NGRAM_NO_TOKEN after each document */
    uint32_t *at; /* [cap] where windows begin, for sorting */
    size_t cap, n;
    bool in_document;
    uint32_t n_token, n_doc;
    FILE *run[MAX_RUN]; /* [n_run] sorted, windows distinct */
    int32_t n_run;
};

int ngram_counter_open(struct ngram_counter **out, const char *near_path, int32_t max_n, size_t memory_bytes,
                       struct err *e)
{
    *out = NULL;
    if (max_n < 2 || max_n > NGRAM_MAX || memory_bytes < NGRAM_MIN_MEMORY)
        return err_set(e, ERR_INVALID, "n-grams of 2 to %d tokens can be counted, in %d bytes of memory or more",
                       NGRAM_MAX, NGRAM_MIN_MEMORY);
    struct ngram_counter *c = mem_calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory");
    c->near_path = near_path;
    c->max_n = max_n;
    c->cap = memory_bytes / (sizeof *c->tok + sizeof *c->at);
    if (c->cap > UINT32_MAX)
        c->cap = UINT32_MAX;
    c->tok = mem_alloc(c->cap * sizeof *c->tok);
    c->at = mem_alloc(c->cap * sizeof *c->at);
    if (!c->tok || !c->at) {
        ngram_counter_close(c);
        return err_set(e, ERR_NOMEM, "out of memory for counting in %zu bytes", memory_bytes);
    }
    *out = c;
    return 0;
}

void ngram_counter_close(struct ngram_counter *c)
{
    if (!c)
        return;
    for (int32_t i = 0; i < c->n_run; i++)
        fclose(c->run[i]);
    mem_free(c->tok);
    mem_free(c->at);
    mem_free(c);
}

uint32_t ngram_counter_n_token(const struct ngram_counter *c)
{
    return c->n_token;
}

uint32_t ngram_counter_n_doc(const struct ngram_counter *c)
{
    return c->n_doc;
}

/* ---- runs on disk ---- */

static int io_error(const struct ngram_counter *c, struct err *e)
{
    return err_set(e, ERR_IO, "a temporary file beside %s: %s", c->near_path, strerror(errno));
}

/* Without a name, so that nothing is left behind however the program ends. */
static int run_create(const struct ngram_counter *c, FILE **out, struct err *e)
{
    size_t size = strlen(c->near_path) + sizeof ".run-XXXXXX";
    char *path = mem_alloc(size);
    if (!path)
        return err_set(e, ERR_NOMEM, "out of memory");
    snprintf(path, size, "%s.run-XXXXXX", c->near_path);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    *out = fd >= 0 ? fdopen(fd, "w+b") : NULL;
    int rc = *out ? 0 : io_error(c, e);
    if (!*out && fd >= 0)
        close(fd);
    mem_free(path);
    return rc;
}

static int run_put(const struct ngram_counter *c, FILE *f, const struct ngram_window *w, struct err *e)
{
    return fwrite(w, sizeof *w, 1, f) == 1 ? 0 : io_error(c, e);
}

static int run_get(const struct ngram_counter *c, FILE *f, struct ngram_window *w, struct err *e)
{
    if (fread(w, sizeof *w, 1, f) == 1)
        return 1;
    return ferror(f) ? io_error(c, e) : 0;
}

static int run_rewind(const struct ngram_counter *c, FILE *f, struct err *e)
{
    return fflush(f) || fseek(f, 0, SEEK_SET) ? io_error(c, e) : 0;
}

static int window_cmp(const struct ngram_window *a, const struct ngram_window *b)
{
    for (int32_t i = 0; i < NGRAM_MAX; i++)
        if (a->tok[i] != b->tok[i])
            return a->tok[i] < b->tok[i] ? -1 : 1;
    return 0;
}

struct source { /* a run being merged */
    FILE *f;
    struct ngram_window head;
};

/* Moves heap[i] down to where no child comes before it. */
static void sift(struct source *heap, int32_t n, int32_t i)
{
    for (int32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && window_cmp(&heap[child + 1].head, &heap[child].head) < 0)
            child++;
        if (window_cmp(&heap[i].head, &heap[child].head) <= 0)
            return;
        struct source s = heap[i];
        heap[i] = heap[child];
        heap[child] = s;
    }
}

/* Fills the heap with the runs that are not empty. */
static int sources_open(struct ngram_counter *c, struct source *heap, int32_t *n, struct err *e)
{
    int rc = 0;
    *n = 0;
    for (int32_t i = 0; rc >= 0 && i < c->n_run; i++) {
        heap[*n].f = c->run[i];
        rc = run_rewind(c, c->run[i], e);
        if (!rc)
            rc = run_get(c, c->run[i], &heap[*n].head, e);
        *n += rc == 1;
    }
    for (int32_t i = *n / 2 - 1; i >= 0; i--)
        sift(heap, *n, i);
    return rc < 0 ? rc : 0;
}

static int merge_into(struct ngram_counter *c, FILE *out, struct err *e)
{
    struct source heap[MAX_RUN];
    int32_t n;
    int rc = sources_open(c, heap, &n, e);
    while (!rc && n > 0) {
        struct ngram_window w = heap[0].head;
        w.count = 0;
        while (n > 0 && !window_cmp(&heap[0].head, &w)) {
            w.count += heap[0].head.count; /* at most n_token in all */
            rc = run_get(c, heap[0].f, &heap[0].head, e);
            if (rc < 0)
                return rc;
            if (rc == 0)
                heap[0] = heap[--n];
            sift(heap, n, 0);
        }
        rc = run_put(c, out, &w, e);
    }
    return rc;
}

static int merge_runs(struct ngram_counter *c, struct err *e)
{
    FILE *out;
    int rc = run_create(c, &out, e);
    if (rc)
        return rc;
    rc = merge_into(c, out, e);
    if (rc) {
        fclose(out);
        return rc;
    }
    while (c->n_run > 0)
        fclose(c->run[--c->n_run]);
    c->run[c->n_run++] = out;
    return 0;
}

/* ---- runs in memory ---- */

struct part { /* windows that agree in their first `depth` tokens */
    uint32_t *at;
    size_t n;
    int32_t depth;
};

static int32_t median(int32_t a, int32_t b, int32_t c)
{
    return a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
}

/* Multikey quicksort: parts by the token at `depth`, and only windows that agree there are looked at one deeper. The
 * largest part is done last and without recursion, so that the stack stays at log2(n) frames. */
static void sort_windows(const int32_t *tok, int32_t max_n, struct part p)
{
    while (p.n > 1 && p.depth < max_n) {
        const int32_t *key = tok + p.depth;
        int32_t pivot = median(key[p.at[0]], key[p.at[p.n / 2]], key[p.at[p.n - 1]]);
        size_t below = 0, above = p.n;
        for (size_t i = 0; i < above;) {
            uint32_t at = p.at[i];
            if (key[at] < pivot) {
                p.at[i++] = p.at[below];
                p.at[below++] = at;
            } else if (key[at] > pivot) {
                p.at[i] = p.at[--above];
                p.at[above] = at;
            } else {
                i++;
            }
        }
        struct part part[3] = {{p.at, below, p.depth},
                               {p.at + below, pivot == NGRAM_NO_TOKEN ? 0 : above - below, p.depth + 1},
                               {p.at + above, p.n - above, p.depth}};
        int largest = part[0].n > part[1].n ? 0 : 1;
        if (part[2].n > part[largest].n)
            largest = 2;
        for (int i = 0; i < 3; i++)
            if (i != largest)
                sort_windows(tok, max_n, part[i]);
        p = part[largest];
    }
}

static struct ngram_window window_at(const struct ngram_counter *c, uint32_t at)
{
    struct ngram_window w = {.count = 1};
    int32_t n = 0;
    for (; n < c->max_n && c->tok[at + (uint32_t)n] != NGRAM_NO_TOKEN; n++)
        w.tok[n] = c->tok[at + (uint32_t)n];
    for (; n < NGRAM_MAX; n++)
        w.tok[n] = NGRAM_NO_TOKEN;
    return w;
}

static int write_sorted(const struct ngram_counter *c, FILE *f, size_t n, struct err *e)
{
    struct ngram_window w = window_at(c, c->at[0]);
    int rc = 0;
    for (size_t i = 1; !rc && i < n; i++) {
        struct ngram_window next = window_at(c, c->at[i]);
        if (!window_cmp(&w, &next)) {
            w.count++;
            continue;
        }
        rc = run_put(c, f, &w, e);
        w = next;
    }
    return rc ? rc : run_put(c, f, &w, e);
}

/* Makes a run of the windows that begin at tok[0..n_begin), which are whole or end with their document. */
static int spill(struct ngram_counter *c, size_t n_begin, struct err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < n_begin; i++)
        if (c->tok[i] != NGRAM_NO_TOKEN)
            c->at[n++] = (uint32_t)i;
    if (n == 0)
        return 0;
    sort_windows(c->tok, c->max_n, (struct part){c->at, n, 0});
    int rc = c->n_run == MAX_RUN ? merge_runs(c, e) : 0;
    if (!rc)
        rc = run_create(c, &c->run[c->n_run], e);
    if (rc)
        return rc;
    return write_sorted(c, c->run[c->n_run++], n, e);
}

/* ---- feeding ---- */

static int put(struct ngram_counter *c, int32_t tok, struct err *e)
{
    if (c->n == c->cap) { /* the last windows are not whole yet: their beginnings stay */
        size_t stay = (size_t)c->max_n - 1;
        int rc = spill(c, c->n - stay, e);
        if (rc)
            return rc;
        memmove(c->tok, c->tok + c->n - stay, stay * sizeof *c->tok);
        c->n = stay;
    }
    c->tok[c->n++] = tok;
    return 0;
}

int ngram_counter_add(struct ngram_counter *c, const int32_t *tok, size_t n_tok, struct err *e)
{
    if (n_tok > UINT32_MAX - c->n_token)
        return err_set(e, ERR_INVALID, "more than %u tokens of text cannot be counted", UINT32_MAX);
    int rc = 0;
    for (size_t i = 0; !rc && i < n_tok; i++) {
        BUG_ON(tok[i] < 0);
        rc = put(c, tok[i], e);
    }
    c->n_token += (uint32_t)n_tok;
    c->in_document |= n_tok > 0;
    return rc;
}

int ngram_counter_end_document(struct ngram_counter *c, struct err *e)
{
    if (!c->in_document)
        return 0;
    c->in_document = false;
    c->n_doc++;
    return put(c, NGRAM_NO_TOKEN, e);
}

/* ---- reading ---- */

int ngram_counter_finish(struct ngram_counter *c, struct err *e)
{
    int rc = ngram_counter_end_document(c, e);
    if (!rc)
        rc = spill(c, c->n, e);
    if (!rc && c->n_run > 1)
        rc = merge_runs(c, e);
    c->n = 0;
    return rc ? rc : ngram_counter_rewind(c, e);
}

int ngram_counter_rewind(struct ngram_counter *c, struct err *e)
{
    return c->n_run ? run_rewind(c, c->run[0], e) : 0;
}

int ngram_counter_next(struct ngram_counter *c, struct ngram_window *w, struct err *e)
{
    return c->n_run ? run_get(c, c->run[0], w, e) : 0;
}
