/* A tokenizer from a Hugging Face directory: BPE of bytes, BPE of characters with byte fallback, and Unigram. */
#include "tok_hf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mem.h"
#include "model/hf_json.h"

enum { MAX_VOCAB = 1 << 22 };

struct hf { /* owner: tok_from_hf */
    const char *dir;
    json_t *file, *config; /* tokenizer.json, tokenizer_config.json (NULL: none) */
    struct hf_steps steps;
    struct tok_config c;
    struct slice *text, *merge;
    char *merge_text; /* merges that the file has as pairs, joined */
    int32_t *type;
    uint8_t *strip;
    double *log_prob; /* Unigram */
};

static struct slice slice_of_json(const json_t *v)
{
    return (struct slice){json_string_value(v), json_string_length(v)};
}

/* ---- Tokens ---- */

static int32_t largest(int32_t n, const json_t *id)
{
    json_int_t v = json_integer_value(id);
    return json_is_integer(id) && v >= n && v < MAX_VOCAB ? (int32_t)v + 1 : n;
}

static int alloc_tokens(struct hf *h, const json_t *vocab, const json_t *added, struct err *e)
{
    const char *key;
    json_t *id;
    int32_t n = json_array_size(vocab) < MAX_VOCAB ? (int32_t)json_array_size(vocab) : MAX_VOCAB;
    json_object_foreach((json_t *)vocab, key, id) n = largest(n, id);
    for (size_t i = 0; i < json_array_size(added); i++)
        n = largest(n, json_object_get(json_array_get(added, i), "id"));
    h->text = mem_calloc((size_t)n + 1, sizeof *h->text);
    h->type = mem_calloc((size_t)n + 1, sizeof *h->type);
    h->strip = mem_calloc((size_t)n + 1, 1);
    if (!h->text || !h->type || !h->strip)
        return err_set(e, ERR_NOMEM, "out of memory for %d tokens", n);
    for (int32_t i = 0; i < n; i++) {
        h->text[i] = (struct slice){"", 0};
        h->type[i] = TOK_UNUSED;
    }
    h->c.n_vocab = n;
    h->c.text = h->text;
    h->c.type = h->type;
    h->c.strip = h->strip;
    return 0;
}

static int set_token(struct hf *h, struct slice text, const json_t *id, int type, struct err *e)
{
    json_int_t v = json_integer_value(id);
    if (!json_is_integer(id) || v < 0 || v >= h->c.n_vocab || !text.p)
        return err_set(e, ERR_FORMAT, "tokenizer.json: token '%.60s' has no id in 0..%d", text.p ? text.p : "",
                       MAX_VOCAB - 1);
    h->text[v] = text;
    h->type[v] = type;
    return 0;
}

/* "<0x0A>" is a byte where there is byte fallback. */
static int kind_of(const struct hf *h, struct slice s)
{
    return h->c.model == TOK_SENTENCEPIECE && s.len == 6 && !memcmp(s.p, "<0x", 3) && s.p[5] == '>' ? TOK_BYTE
                                                                                                    : TOK_NORMAL;
}

/* Unigram's vocabulary: a list of tokens, each with its log-probability. Added tokens have none. */
static int read_unigram(struct hf *h, const json_t *vocab, struct err *e)
{
    h->log_prob = mem_alloc(((size_t)h->c.n_vocab + 1) * sizeof *h->log_prob);
    if (!h->log_prob)
        return err_set(e, ERR_NOMEM, "out of memory for %d tokens", h->c.n_vocab);
    for (int32_t i = 0; i < h->c.n_vocab; i++) {
        const json_t *pair = json_array_get(vocab, (size_t)i), *log_prob = json_array_get(pair, 1);
        struct slice text = slice_of_json(json_array_get(pair, 0));
        h->log_prob[i] = -INFINITY;
        if ((size_t)i >= json_array_size(vocab))
            continue;
        if (!text.p || !json_is_number(log_prob))
            return err_set(e, ERR_FORMAT, "tokenizer.json: token %d is not a text and a number", i);
        h->text[i] = text;
        h->type[i] = kind_of(h, text);
        h->log_prob[i] = json_number_value(log_prob);
    }
    h->c.log_prob = h->log_prob;
    return 0;
}

static int read_tokens(struct hf *h, const json_t *model, bool is_unigram, struct err *e)
{
    const json_t *vocab = json_object_get(model, "vocab"), *added = json_object_get(h->file, "added_tokens");
    if (is_unigram ? !json_is_array(vocab) : !json_is_object(vocab))
        return err_set(e, ERR_FORMAT, "tokenizer.json: model.vocab is not %s", is_unigram ? "a list" : "an object");
    int rc = alloc_tokens(h, vocab, added, e);
    if (!rc && is_unigram)
        rc = read_unigram(h, vocab, e);
    const char *key;
    size_t len;
    json_t *id;
    json_object_keylen_foreach((json_t *)vocab, key, len, id)
    {
        struct slice text = {key, len};
        if (!rc)
            rc = set_token(h, text, id, kind_of(h, text), e);
    }
    for (size_t i = 0; !rc && i < json_array_size(added); i++) {
        const json_t *t = json_array_get(added, i);
        int type = json_is_true(json_object_get(t, "special")) ? TOK_CONTROL : TOK_USER_DEFINED;
        id = json_object_get(t, "id");
        rc = set_token(h, slice_of_json(json_object_get(t, "content")), id, type, e);
        if (!rc)
            h->strip[json_integer_value(id)] =
                (uint8_t)((json_is_true(json_object_get(t, "lstrip")) ? TOK_STRIP_LEFT : 0) |
                          (json_is_true(json_object_get(t, "rstrip")) ? TOK_STRIP_RIGHT : 0));
    }
    return rc;
}

/* ---- Merges ---- */

/* "left right", or ["left", "right"], which is joined at *room. */
static int read_merge(const json_t *v, char **room, struct slice *out)
{
    if (json_is_string(v)) {
        *out = slice_of_json(v);
        return 0;
    }
    struct slice a = slice_of_json(json_array_get(v, 0)), b = slice_of_json(json_array_get(v, 1));
    if (!a.p || !b.p || memchr(a.p, ' ', a.len) || memchr(b.p, ' ', b.len))
        return -ERR_FORMAT;
    char *at = *room;
    memcpy(at, a.p, a.len);
    at[a.len] = ' ';
    memcpy(at + a.len + 1, b.p, b.len);
    *out = (struct slice){at, a.len + 1 + b.len};
    *room += out->len;
    return 0;
}

static int read_merges(struct hf *h, const json_t *model, struct err *e)
{
    const json_t *merges = json_object_get(model, "merges");
    size_t n = json_array_size(merges), n_bytes = 1;
    if (!json_is_array(merges) || n > INT32_MAX)
        return err_set(e, ERR_FORMAT, "tokenizer.json: model.merges is not a list");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 2; k++)
            n_bytes += json_string_length(json_array_get(json_array_get(merges, i), k)) + 1;
    h->merge = mem_calloc(n + 1, sizeof *h->merge);
    h->merge_text = mem_alloc(n_bytes);
    if (!h->merge || !h->merge_text)
        return err_set(e, ERR_NOMEM, "out of memory for %zu merges", n);
    char *room = h->merge_text;
    for (size_t i = 0; i < n; i++)
        if (read_merge(json_array_get(merges, i), &room, &h->merge[i]))
            return err_set(e, ERR_FORMAT, "tokenizer.json: merge %zu is not two tokens", i);
    h->c.merge = h->merge;
    h->c.n_merge = (int32_t)n;
    return 0;
}

/* ---- Roles ---- */

static int32_t id_of(const struct hf *h, const char *name)
{
    for (int32_t i = 0; name && *name && i < h->c.n_vocab; i++)
        if (slice_eq(h->text[i], name))
            return i;
    return -1;
}

/* A token named in tokenizer_config.json, as a string or as an object. */
static int32_t named(const struct hf *h, const char *role)
{
    const json_t *v = json_object_get(h->config, role);
    return id_of(h, json_string_value(json_is_object(v) ? json_object_get(v, "content") : v));
}

static void read_roles(struct hf *h, const json_t *model)
{
    struct tok_ids *i = &h->c.ids;
    i->bos = h->steps.bos ? id_of(h, h->steps.bos) : named(h, "bos_token");
    i->eos = h->steps.eos ? id_of(h, h->steps.eos) : named(h, "eos_token");
    i->pad = named(h, "pad_token");
    const json_t *unk_id = json_object_get(model, "unk_id");
    json_int_t unk = json_integer_value(unk_id);
    i->unk = h->log_prob && json_is_integer(unk_id) ? (int32_t)(unk >= 0 && unk < h->c.n_vocab ? unk : h->c.n_vocab)
                                                    : id_of(h, json_string_value(json_object_get(model, "unk_token")));
    bool has_template = json_is_object(json_object_get(h->file, "post_processor"));
    h->c.add_bos = h->steps.bos || (!has_template && json_is_true(json_object_get(h->config, "add_bos_token")));
    h->c.add_eos = h->steps.eos || (!has_template && json_is_true(json_object_get(h->config, "add_eos_token")));
}

/* ---- All of it ---- */

/* Before the steps: they tell which of the two kinds of BPE it is. */
static int read_model(struct hf *h, struct err *e)
{
    const json_t *model = json_object_get(h->file, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    bool has_bytes = json_is_true(json_object_get(model, "byte_fallback"));
    bool is_unigram = type && !strcmp(type, "Unigram");
    if (type && strcmp(type, "BPE") && !is_unigram)
        return err_set(e, ERR_FORMAT, "tokenizer.json: model '%.40s' is not supported (BPE and Unigram are)", type);
    if (is_unigram && !h->steps.replaces_spaces)
        return err_set(e, ERR_FORMAT, "tokenizer.json: Unigram is supported where spaces are marked (Metaspace) alone");
    h->c.model = has_bytes || h->steps.replaces_spaces ? TOK_SENTENCEPIECE : TOK_BYTE_BPE;
    h->c.ignores_merges = json_is_true(json_object_get(model, "ignore_merges"));
    if (h->c.model == TOK_SENTENCEPIECE && (h->c.n_regex || h->c.is_nfc || h->c.ignores_merges))
        return err_set(e, ERR_FORMAT,
                       "tokenizer.json: words cut by expressions, NFC or ignore_merges are not supported "
                       "with byte fallback");
    int rc = read_tokens(h, model, is_unigram, e);
    if (!rc && !is_unigram)
        rc = read_merges(h, model, e);
    if (!rc)
        read_roles(h, model);
    return rc;
}

int tok_from_hf(struct tokenizer **out, const char *dir, const int32_t *eos, int32_t n_eos, struct err *e)
{
    struct hf h = {.dir = dir, .c = {.eos = eos, .n_eos = n_eos}};
    memset(&h.c.ids, 0xff, sizeof h.c.ids); /* -1: none */
    *out = NULL;
    int rc = hf_json(dir, "tokenizer.json", &h.file, e);
    if (!rc && !h.file)
        rc = err_set(e, ERR_NOTFOUND, "%s: no tokenizer.json", dir);
    if (!rc)
        rc = hf_json(dir, "tokenizer_config.json", &h.config, e);
    if (!rc)
        rc = hf_read_steps(h.file, &h.c, &h.steps, e);
    if (!rc)
        rc = read_model(&h, e);
    if (!rc)
        rc = tok_new(out, &h.c, e);
    hf_steps_free(&h.steps);
    mem_free(h.text);
    mem_free(h.merge);
    mem_free(h.merge_text);
    mem_free(h.type);
    mem_free(h.strip);
    mem_free(h.log_prob);
    json_decref(h.file);
    json_decref(h.config);
    return rc;
}
