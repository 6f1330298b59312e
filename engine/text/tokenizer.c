#include "tokenizer.h"

#include <limits.h>
#include <string.h>

#include "mem.h"
#include "text/utf8.h"
#include "tok_impl.h"

/* A scratch that once met a huge text does not keep its memory. */
enum { KEEP_SYMBOLS = 1 << 16 };

/* ---- making ---- */

static int config_check(const struct tok_config *c, struct err *e)
{
    const struct tok_ids *i = &c->ids;
    const int32_t id[] = {i->bos,        i->eos,        i->eot,        i->eom,     i->unk,      i->sep,    i->pad,
                          i->fim_prefix, i->fim_suffix, i->fim_middle, i->fim_pad, i->fim_repo, i->fim_sep};
    if (c->n_vocab < 1 || c->n_merge < 0)
        return err_set(e, ERR_FORMAT, "the vocabulary is empty");
    for (size_t k = 0; k < sizeof id / sizeof *id; k++)
        if (id[k] < -1 || id[k] >= c->n_vocab)
            return err_set(e, ERR_FORMAT, "special token id %d is outside of the vocabulary of %d", id[k], c->n_vocab);
    return 0;
}

int tok_new(struct tokenizer **out, const struct tok_config *c, struct err *e)
{
    *out = NULL;
    int rc = config_check(c, e);
    if (rc)
        return rc;
    struct tokenizer *t = mem_calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_NOMEM, "out of memory");
    t->ids = c->ids;
    t->model = c->model;
    t->prefix = c->prefix;
    t->splits_spaces = c->splits_spaces;
    rc = pretoken_init(&t->pre, c, e);
    if (!rc)
        rc = vocab_init(&t->vocab, c, e);
    if (!rc)
        rc = special_init(&t->special, &t->vocab, c, &t->ids, e);
    if (!rc && !(t->merges_whole = mem_calloc((size_t)c->n_vocab, sizeof *t->merges_whole)))
        rc = err_set(e, ERR_NOMEM, "out of memory");
    if (!rc && c->strip) {
        t->strip = mem_alloc((size_t)c->n_vocab);
        if (t->strip)
            memcpy(t->strip, c->strip, (size_t)c->n_vocab);
        else
            rc = err_set(e, ERR_NOMEM, "out of memory");
    }
    if (rc) {
        tok_free(t);
        return rc;
    }
    bool is_usual = t->pre.adds_bos || t->model == TOK_SENTENCEPIECE;
    t->add_bos = t->ids.bos >= 0 && (c->add_bos < 0 ? is_usual : c->add_bos);
    t->add_eos = t->ids.eos >= 0 && c->add_eos > 0;
    *out = t;
    return 0;
}

void tok_free(struct tokenizer *t)
{
    if (!t)
        return;
    pretoken_free(&t->pre);
    vocab_free(&t->vocab);
    special_free(&t->special);
    mem_free((void *)t->merges_whole);
    mem_free(t->strip);
    mem_free(t);
}

struct tok_scratch *tok_scratch_new(const struct tokenizer *t)
{
    struct tok_scratch *s = mem_calloc(1, sizeof *s);
    if (s && pretoken_scratch_init(&s->pre, &t->pre)) {
        tok_scratch_free(s);
        return NULL;
    }
    return s;
}

static void normal_scratch_free(struct normal_scratch *s)
{
    mem_free(s->cp);
    mem_free(s->text);
    *s = (struct normal_scratch){0};
}

void tok_scratch_free(struct tok_scratch *s)
{
    if (!s)
        return;
    pretoken_scratch_free(&s->pre);
    normal_scratch_free(&s->normal);
    symbols_free(&s->symbols);
    lattice_free(&s->lattice);
    mem_free(s);
}

/* ---- encoding ---- */

struct encoder { /* one call of tok_encode */
    const struct tokenizer *t;
    struct tok_scratch *s;
    struct sink out;
    struct err *e;
};

static int out_of_memory(struct encoder *c)
{
    return err_set(c->e, ERR_NOMEM, "out of memory while tokenizing");
}

/* Whether the bytes of token `id` merge into it alone: then a word equal to it needs no merging. */
static int merges_whole(struct encoder *c, int32_t id, const char *p, size_t n, bool *is_whole)
{
    _Atomic uint8_t *known = &c->t->merges_whole[id];
    uint8_t v = atomic_load_explicit(known, memory_order_relaxed);
    if (!v) {
        int32_t first[1];
        struct sink probe = {.out = first, .cap = 1};
        if (bpe_piece(&c->t->vocab, c->t->ids.unk, p, n, &c->s->symbols, &probe))
            return out_of_memory(c);
        v = probe.n == 1 && first[0] == id ? 1 : 2;
        atomic_store_explicit(known, v, memory_order_relaxed);
    }
    *is_whole = v == 1;
    return 0;
}

static int encode_word(struct encoder *c, const char *p, size_t n)
{
    bool is_whole = c->t->pre.ignore_merges;
    int32_t id = n <= c->t->vocab.max_bytes ? vocab_find(&c->t->vocab, p, n) : -1;
    if (id >= 0 && !is_whole) {
        int rc = merges_whole(c, id, p, n, &is_whole);
        if (rc)
            return rc;
    }
    if (id >= 0 && is_whole) {
        sink_put(&c->out, id);
        return 0;
    }
    return bpe_piece(&c->t->vocab, c->t->ids.unk, p, n, &c->s->symbols, &c->out) ? out_of_memory(c) : 0;
}

/* Cuts a piece by this stage's expression, and its pieces by the next one's, down to words. */
static int encode_stage(struct encoder *c, struct slice text, int stage)
{
    if (stage == c->t->pre.n_stage)
        return encode_word(c, text.p, text.len);
    for (size_t at = 0; at < text.len;) {
        size_t end = pretoken_next(&c->t->pre, stage, &c->s->pre, text.p, text.len, at);
        if (!end)
            return err_set(c->e, ERR_INVALID, "the text is too complex to cut into words, at byte %zu", at);
        int rc = encode_stage(c, (struct slice){text.p + at, end - at}, stage + 1);
        if (rc)
            return rc;
        at = end;
    }
    return 0;
}

static int encode_utf8(struct encoder *c, struct slice text)
{
    if (c->t->pre.is_nfc && normalize_nfc(&c->s->normal, text, &text))
        return out_of_memory(c);
    return encode_stage(c, text, 0);
}

/* Stretches of valid UTF-8, and between them bytes that stand alone. */
static int encode_bytes(struct encoder *c, struct slice text)
{
    for (size_t at = 0; at < text.len;) {
        size_t n = utf8_valid_prefix(text.p + at, text.len - at);
        int rc = n ? encode_utf8(c, (struct slice){text.p + at, n}) : encode_word(c, text.p + at, 1);
        if (rc)
            return rc;
        at += n ? n : 1;
    }
    return 0;
}

static bool wants_prefix(const struct encoder *c, struct slice text, bool is_first)
{
    bool has_space = text.len && (text.p[0] == ' ' || (text.len >= 3 && !memcmp(text.p, "\xe2\x96\x81", 3)));
    enum tok_prefix prefix = c->t->prefix;
    return prefix == TOK_PREFIX_ALWAYS || (prefix == TOK_PREFIX_MISSING && !has_space) ||
           (prefix == TOK_PREFIX_FIRST && is_first && !has_space);
}

static int encode_pieces(struct encoder *c, struct slice text, bool is_first)
{
    const struct tokenizer *t = c->t;
    if (normalize_spaces(&c->s->normal, text, wants_prefix(c, text, is_first), &text))
        return out_of_memory(c);
    for (size_t at = 0, end; at < text.len; at = end) {
        const char *space = t->splits_spaces ? memchr(text.p + at + 1, ' ', text.len - at - 1) : NULL;
        end = space ? (size_t)(space - text.p) : text.len;
        struct slice piece = {text.p + at, end - at};
        if (t->vocab.log_prob ? unigram_text(&t->vocab, t->ids.unk, piece, &c->s->lattice, &c->out)
                              : spm_text(&t->vocab, t->ids.unk, piece, &c->s->symbols, &c->out))
            return out_of_memory(c);
    }
    return 0;
}

/* Text between special tokens is encoded as if it stood alone. */
static int encode_fragment(struct encoder *c, struct slice text, bool is_first)
{
    if (!text.len)
        return 0;
    return c->t->model == TOK_SENTENCEPIECE ? encode_pieces(c, text, is_first) : encode_bytes(c, text);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int encode_fragments(struct encoder *c, struct slice text, bool with_control)
{
    const struct special *sp = &c->t->special;
    const uint8_t *strip = c->t->strip;
    size_t start = 0, len;
    for (size_t at = 0; at < text.len;) {
        int32_t id = -1;
        if (sp->root_child[(uint8_t)text.p[at]] >= 0)
            id = special_match(sp, &c->t->vocab, text.p + at, text.len - at, with_control, &len);
        if (id < 0) {
            at++;
            continue;
        }
        size_t end = at;
        while (strip && strip[id] & TOK_STRIP_LEFT && end > start && is_space(text.p[end - 1]))
            end--;
        int rc = encode_fragment(c, (struct slice){text.p + start, end - start}, start == 0);
        if (rc)
            return rc;
        sink_put(&c->out, id);
        at += len;
        while (strip && strip[id] & TOK_STRIP_RIGHT && at < text.len && is_space(text.p[at]))
            at++;
        start = at;
    }
    return encode_fragment(c, (struct slice){text.p + start, text.len - start}, start == 0);
}

int tok_encode(const struct tokenizer *t, const char *text, size_t n_bytes, int flags, int32_t *out, size_t cap,
               size_t *n, struct tok_scratch *s, struct err *e)
{
    *n = 0;
    if (n_bytes > INT32_MAX / 4)
        return err_set(e, ERR_INVALID, "a text of %zu bytes is too long to tokenize", n_bytes);
    struct encoder c = {.t = t, .s = s, .out = {.out = out, .cap = cap}, .e = e};
    if (flags & TOK_ADD_SPECIAL && t->add_bos)
        sink_put(&c.out, t->ids.bos);
    int rc = encode_fragments(&c, (struct slice){n_bytes ? text : "", n_bytes}, flags & TOK_PARSE_SPECIAL);
    if (flags & TOK_ADD_SPECIAL && t->add_eos)
        sink_put(&c.out, t->ids.eos);
    if (s->symbols.cap > KEEP_SYMBOLS)
        symbols_free(&s->symbols);
    if (s->lattice.cap > KEEP_SYMBOLS)
        lattice_free(&s->lattice);
    if (s->normal.cp_cap > KEEP_SYMBOLS)
        normal_scratch_free(&s->normal);
    *n = c.out.n;
    if (!rc && c.out.n > cap)
        rc = err_set(e, ERR_TOOLONG, "the text makes %zu tokens; there is room for %zu", c.out.n, cap);
    return rc;
}

/* ---- looking up ---- */

int32_t tok_n_vocab(const struct tokenizer *t)
{
    return t->vocab.n;
}

static bool in_range(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n;
}

struct slice tok_piece(const struct tokenizer *t, int32_t id)
{
    return in_range(t, id) ? vocab_piece(&t->vocab, id) : (struct slice){"", 0};
}

size_t tok_max_piece_bytes(const struct tokenizer *t)
{
    return t->vocab.max_bytes;
}

int32_t tok_find(const struct tokenizer *t, struct slice bytes)
{
    size_t len;
    int32_t id = special_match(&t->special, &t->vocab, bytes.p, bytes.len, true, &len);
    return id >= 0 && len == bytes.len ? id : vocab_find(&t->vocab, bytes.p, bytes.len);
}

bool tok_is_control(const struct tokenizer *t, int32_t id)
{
    if (!in_range(t, id))
        return true;
    uint8_t type = t->vocab.type[id];
    return type == TOK_CONTROL || type == TOK_UNKNOWN || type == TOK_UNUSED;
}

bool tok_is_eog(const struct tokenizer *t, int32_t id)
{
    for (int32_t i = 0; i < t->special.n_eog; i++)
        if (t->special.eog[i] == id)
            return true;
    return false;
}

const int32_t *tok_eog(const struct tokenizer *t, int32_t *n)
{
    *n = t->special.n_eog;
    return t->special.eog;
}

const struct tok_ids *tok_ids(const struct tokenizer *t)
{
    return &t->ids;
}

bool tok_adds_bos(const struct tokenizer *t)
{
    return t->add_bos;
}

bool tok_adds_eos(const struct tokenizer *t)
{
    return t->add_eos;
}
