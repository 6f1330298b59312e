#include "ngram/documents.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mem.h"

enum { PIECE_BYTES = 1 << 20, MAX_SEPARATOR = 4096, MAX_UTF8 = 4 };

struct documents {
    const struct tokenizer *t;
    struct tok_scratch *scratch;
    struct ngram_counter *counter;
    const char *separator; /* NULL: none */
    size_t n_separator;
    int encode_flags;
    char *text;         /* [PIECE_BYTES] read and not yet encoded */
    size_t n;           /* bytes of it */
    bool at_line_start; /* text[0] begins a line */
    bool has_text;      /* of the current document, something was encoded */
    int32_t last_tok;   /* of it */
    int32_t *tok;       /* [tok_cap] of the piece being encoded */
    size_t tok_cap;
};

int documents_open(struct documents **out, const struct tokenizer *t, struct ngram_counter *c, const char *separator,
                   bool parse_special, struct err *e)
{
    *out = NULL;
    if (separator && (!*separator || strlen(separator) > MAX_SEPARATOR || strpbrk(separator, "\r\n")))
        return err_set(e, ERR_INVALID, "a separator is a line of 1 to %d bytes", MAX_SEPARATOR);
    struct documents *d = mem_calloc(1, sizeof *d);
    if (!d)
        return err_set(e, ERR_NOMEM, "out of memory");
    d->t = t;
    d->counter = c;
    d->separator = separator;
    d->n_separator = separator ? strlen(separator) : 0;
    d->encode_flags = parse_special ? TOK_PARSE_SPECIAL : 0;
    d->tok_cap = PIECE_BYTES;
    d->text = mem_alloc(PIECE_BYTES);
    d->tok = mem_alloc(d->tok_cap * sizeof *d->tok);
    d->scratch = tok_scratch_new(t);
    if (!d->text || !d->tok || !d->scratch) {
        documents_close(d);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    *out = d;
    return 0;
}

void documents_close(struct documents *d)
{
    if (!d)
        return;
    tok_scratch_free(d->scratch);
    mem_free(d->text);
    mem_free(d->tok);
    mem_free(d);
}

/* ---- tokens ---- */

static int encode(struct documents *d, const char *text, size_t n_byte, size_t *n_tok, struct err *e)
{
    int rc = tok_encode(d->t, text, n_byte, d->encode_flags, d->tok, d->tok_cap, n_tok, d->scratch, e);
    if (rc != -ERR_TOOLONG) /* which normalising can do: composed characters may make more tokens than bytes */
        return rc;
    int32_t *tok = mem_realloc(d->tok, *n_tok * sizeof *tok);
    if (!tok)
        return err_set(e, ERR_NOMEM, "out of memory for %zu tokens", *n_tok);
    d->tok = tok;
    d->tok_cap = *n_tok;
    return tok_encode(d->t, text, n_byte, d->encode_flags, d->tok, d->tok_cap, n_tok, d->scratch, e);
}

/* Hands a stretch of the current document to the counter. */
static int feed(struct documents *d, const char *text, size_t n_byte, struct err *e)
{
    size_t n_tok = 0;
    int32_t bos = tok_ids(d->t)->bos;
    int rc = n_byte ? encode(d, text, n_byte, &n_tok, e) : 0;
    if (rc || n_tok == 0)
        return rc;
    if (!d->has_text && tok_adds_bos(d->t) && bos >= 0 && d->tok[0] != bos)
        rc = ngram_counter_add(d->counter, &bos, 1, e);
    if (!rc)
        rc = ngram_counter_add(d->counter, d->tok, n_tok, e);
    d->has_text = true;
    d->last_tok = d->tok[n_tok - 1];
    return rc;
}

static int end_document(struct documents *d, struct err *e)
{
    int32_t eos = tok_ids(d->t)->eos;
    int rc = 0;
    if (d->has_text && eos >= 0 && !tok_is_eog(d->t, d->last_tok))
        rc = ngram_counter_add(d->counter, &eos, 1, e);
    d->has_text = false;
    return rc ? rc : ngram_counter_end_document(d->counter, e);
}

/* ---- separators ---- */

struct line { /* [from, to) of the text without its line break; the next begins at `next` */
    size_t from, to, next;
};

/* The next separator that lies whole in the buffer, from `from` on, where a line begins. At the file's end its line
 * break may be missing. */
static bool find_separator(const struct documents *d, size_t from, bool at_end, struct line *l)
{
    while (d->separator && from < d->n) {
        const char *end = memchr(d->text + from, '\n', d->n - from);
        if (!end && !at_end)
            return false;
        *l = (struct line){.from = from, .to = end ? (size_t)(end - d->text) : d->n};
        l->next = end ? l->to + 1 : d->n;
        if (l->to > l->from && d->text[l->to - 1] == '\r')
            l->to--;
        if (l->to - l->from == d->n_separator && !memcmp(d->text + from, d->separator, d->n_separator))
            return true;
        from = l->next;
    }
    return false;
}

/* Where the text [from, to) ends without the line break at its end. */
static size_t without_line_break(const struct documents *d, size_t from, size_t to)
{
    to -= to > from && d->text[to - 1] == '\n';
    return to - (to > from && d->text[to - 1] == '\r');
}

static void drop(struct documents *d, size_t n_byte)
{
    memmove(d->text, d->text + n_byte, d->n - n_byte);
    d->n -= n_byte;
}

/* Feeds the documents that end within the buffer. */
static int take_whole_documents(struct documents *d, bool at_end, struct err *e)
{
    struct line l;
    size_t done = 0, line = 0;
    int rc = 0;
    if (!d->at_line_start) {
        const char *line_break = memchr(d->text, '\n', d->n);
        line = line_break ? (size_t)(line_break - d->text) + 1 : d->n;
    }
    while (!rc && find_separator(d, line, at_end, &l)) {
        rc = feed(d, d->text + done, without_line_break(d, done, l.from) - done, e);
        if (!rc)
            rc = end_document(d, e);
        done = line = l.next;
        d->at_line_start = true;
    }
    drop(d, done);
    return rc;
}

/* ---- documents longer than the buffer ---- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Where to cut the full buffer, so that the tokens stay what they would be in one piece: after a line break that has no
 * white space around it, where every pre-tokenizer begins a new word; where there is none, after any line break, else
 * between characters. Never where a separator may follow, since then the line break before it is not text: the line
 * after the cut is whole, and so known not to be one. The first half is not searched: small pieces would make reading
 * slow. */
static size_t cut_place(const struct documents *d)
{
    const char *last = memrchr(d->text, '\n', d->n);
    size_t end = last && d->separator ? (size_t)(last - d->text) : d->n, any = 0;
    for (size_t i = end; i > d->n / 2; i--) {
        if (i == d->n || d->text[i - 1] != '\n')
            continue;
        if (!is_space(d->text[i]) && !is_space(d->text[i - 2]))
            return i;
        if (!any)
            any = i;
    }
    if (any)
        return any;
    if (end < d->n / 2 || end == d->n)
        end = d->n - 1; /* no line break, or before a line much longer than any separator */
    else
        end = without_line_break(d, 0, end + 1);
    for (int i = 0; i < MAX_UTF8 - 1 && ((uint8_t)d->text[end] & 0xC0) == 0x80; i++)
        end--;
    return end;
}

static int take_piece(struct documents *d, struct err *e)
{
    size_t n = cut_place(d);
    int rc = feed(d, d->text, n, e);
    d->at_line_start = d->text[n - 1] == '\n';
    drop(d, n);
    return rc;
}

/* ---- files ---- */

int documents_read(struct documents *d, const char *path, void (*progress)(void *arg), void *arg, struct err *e)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "rbe") : stdin;
    int rc = 0;
    if (!f)
        return err_set(e, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", path, strerror(errno));
    d->n = 0;
    d->at_line_start = true;
    for (bool at_end = false; !rc && !at_end;) {
        d->n += fread(d->text + d->n, 1, PIECE_BYTES - d->n, f);
        if (ferror(f)) {
            rc = err_set(e, ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
            break;
        }
        at_end = d->n < PIECE_BYTES;
        rc = take_whole_documents(d, at_end, e);
        if (!rc && at_end)
            rc = feed(d, d->text, d->n, e);
        else if (!rc && d->n == PIECE_BYTES)
            rc = take_piece(d, e);
        if (progress)
            progress(arg);
    }
    if (f != stdin)
        fclose(f);
    return rc ? rc : end_document(d, e);
}
