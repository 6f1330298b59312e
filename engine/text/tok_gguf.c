/* A tokenizer from a GGUF file's metadata, and the small one for tests. */
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "mem.h"
#include "model/gguf.h"
#include "tok_impl.h"

/* ---- GGUF ---- */

struct source { /* arrays that live for the call */
    struct slice *text, *merge;
    int32_t *type;
    float *score;
    char pre[64];
};

static const struct tok_ids no_ids = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

static int read_strs(const struct gguf *g, const char *key, struct slice **out, int32_t *n_out, struct err *e)
{
    uint64_t n;
    int rc = gguf_arr_len(g, key, &n, e);
    if (rc)
        return rc;
    if (n > INT32_MAX)
        return err_set(e, ERR_FORMAT, "key '%s' has too many elements", key);
    *out = mem_calloc(n, sizeof **out);
    if (!*out)
        return err_set(e, ERR_NOMEM, "out of memory for the %llu strings of key '%s'", (unsigned long long)n, key);
    *n_out = (int32_t)n;
    return gguf_get_strs(g, key, *out, n, e);
}

static int read_types(const struct gguf *g, struct source *s, struct tok_config *c, struct err *e)
{
    static const char key[] = "tokenizer.ggml.token_type";
    if (!gguf_find(g, key))
        return 0;
    s->type = mem_calloc((size_t)c->n_vocab, sizeof *s->type);
    if (!s->type)
        return err_set(e, ERR_NOMEM, "out of memory for %d token types", c->n_vocab);
    c->type = s->type;
    return gguf_get_i32s(g, key, s->type, (uint64_t)c->n_vocab, e);
}

static int read_pre(const struct gguf *g, struct source *s, struct tok_config *c, struct err *e)
{
    struct slice name;
    int rc = gguf_get_str(g, "tokenizer.ggml.pre", &name, e);
    if (rc == -ERR_NOTFOUND)
        return 0;
    if (rc)
        return rc;
    if (name.len >= sizeof s->pre || memchr(name.p, 0, name.len))
        return err_set(e, ERR_FORMAT, "unknown pre-tokenizer '%.*s' (tokenizer.ggml.pre)",
                       (int)(name.len < 64 ? name.len : 64), name.p);
    memcpy(s->pre, name.p, name.len);
    c->pre = s->pre;
    return 0;
}

/* A missing key is -1; so is an id outside of the vocabulary, which converters write for "none". */
static int read_id(const struct gguf *g, const char *name, int32_t n_vocab, int32_t *id, struct err *e)
{
    char key[64];
    uint64_t v;
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv || *id >= 0)
        return 0;
    int32_t negative;
    if (kv->type == GGUF_I32 && (memcpy(&negative, kv->val, 4), negative < 0))
        return 0;
    int rc = gguf_get_u64(g, key, &v, e);
    if (rc)
        return rc;
    if (v < (uint64_t)n_vocab)
        *id = (int32_t)v;
    else
        log_line(LOG_WARN, "token id outside of the vocabulary ignored", "key=%s id=%llu n_vocab=%d", key,
                 (unsigned long long)v, n_vocab);
    return 0;
}

static int read_ids(const struct gguf *g, struct tok_config *c, struct err *e)
{
    struct tok_ids *i = &c->ids;
    const struct {
        const char *name;
        int32_t *id;
    } table[] = {
        {"bos", &i->bos},
        {"eos", &i->eos},
        {"eot", &i->eot},
        {"eom", &i->eom},
        {"unknown", &i->unk},
        {"seperator", &i->sep},
        {"padding", &i->pad},
        {"fim_pre", &i->fim_prefix},
        {"fim_suf", &i->fim_suffix},
        {"fim_mid", &i->fim_middle},
        {"fim_pad", &i->fim_pad},
        {"fim_rep", &i->fim_repo},
        {"fim_sep", &i->fim_sep},
        {"prefix", &i->fim_prefix},
        {"suffix", &i->fim_suffix},
        {"middle", &i->fim_middle},
    };
    int rc = 0;
    *i = no_ids;
    for (size_t k = 0; !rc && k < sizeof table / sizeof *table; k++)
        rc = read_id(g, table[k].name, c->n_vocab, table[k].id, e);
    return rc;
}

static int read_flag(const struct gguf *g, const char *key, int *flag, struct err *e)
{
    bool v;
    int rc = gguf_get_bool(g, key, &v, e);
    if (rc == -ERR_NOTFOUND)
        return 0;
    if (!rc)
        *flag = v;
    return rc;
}

static int read_scores(const struct gguf *g, struct source *s, struct tok_config *c, struct err *e)
{
    s->score = mem_calloc((size_t)c->n_vocab, sizeof *s->score);
    if (!s->score)
        return err_set(e, ERR_NOMEM, "out of memory for %d token scores", c->n_vocab);
    c->score = s->score;
        int rc = gguf_get_f32s(g, "tokenizer.ggml.scores", s->score, (uint64_t)c->n_vocab, e), prefix = 1;
    if (!rc)
        rc = read_flag(g, "tokenizer.ggml.add_space_prefix", &prefix, e);
    c->prefix = prefix ? TOK_PREFIX_ALWAYS : TOK_PREFIX_NONE;
    return rc;
}

static int read_merges(const struct gguf *g, struct source *s, struct tok_config *c, struct err *e)
{
    int rc = read_strs(g, "tokenizer.ggml.merges", &s->merge, &c->n_merge, e);
    c->merge = s->merge;
    return rc ? rc : read_pre(g, s, c, e);
}

static int read_config(const struct gguf *g, struct source *s, struct tok_config *c, struct err *e)
{
    struct slice model;
    int rc = gguf_get_str(g, "tokenizer.ggml.model", &model, e);
    if (rc)
        return rc;
    if (!slice_eq(model, "gpt2") && !slice_eq(model, "llama"))
        return err_set(e, ERR_FORMAT,
                       "tokenizer model '%.*s' (tokenizer.ggml.model): only gpt2 (byte-level BPE) and llama "
                       "(SentencePiece BPE) are supported",
                       (int)(model.len < 64 ? model.len : 64), model.p);
    c->model = slice_eq(model, "llama") ? TOK_SENTENCEPIECE : TOK_BYTE_BPE;
    rc = read_strs(g, "tokenizer.ggml.tokens", &s->text, &c->n_vocab, e);
    c->text = s->text;
    if (!rc)
        rc = read_types(g, s, c, e);
    if (!rc)
        rc = c->model == TOK_SENTENCEPIECE ? read_scores(g, s, c, e) : read_merges(g, s, c, e);
    if (!rc)
        rc = read_ids(g, c, e);
    if (!rc)
        rc = read_flag(g, "tokenizer.ggml.add_bos_token", &c->add_bos, e);
    return rc ? rc : read_flag(g, "tokenizer.ggml.add_eos_token", &c->add_eos, e);
}

int tok_from_gguf(struct tokenizer **out, const struct gguf *g, struct err *e)
{
    struct source s = {0};
    struct tok_config c = {.add_bos = -1, .add_eos = -1};
    *out = NULL;
    int rc = read_config(g, &s, &c, e);
    if (!rc)
        rc = tok_new(out, &c, e);
    mem_free(s.text);
    mem_free(s.merge);
    mem_free(s.type);
    mem_free(s.score);
    return rc;
}

/* ---- the tiny one ---- */

/* How the byte alphabet writes a byte; returns the number of bytes, at most 2. */
static size_t alphabet_put(int byte, char *out)
{
    int cp = byte;
    if (byte < 33)
        cp = 256 + byte;
    else if (byte >= 127 && byte < 161)
        cp = 256 + 33 + (byte - 127);
    else if (byte == 173)
        cp = 256 + 67;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xc0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 0x3f));
    return 2;
}

/* "t h" -> "th", at out. */
static struct slice joined(const char *merge, char *out)
{
    const char *space = strchr(merge + (*merge != 0), ' ');
    size_t n_left = space ? (size_t)(space - merge) : strlen(merge), n_right = space ? strlen(space + 1) : 0;
    memcpy(out, merge, n_left);
    if (space)
        memcpy(out + n_left, space + 1, n_right);
    return (struct slice){out, n_left + n_right};
}

int tok_new_tiny(struct tokenizer **out, const char *pre, const char *const *merge, int32_t n_merge, struct err *e)
{
    static const char *const control[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    int32_t n_vocab = TOK_TINY_MERGE0 + n_merge;
    size_t n_text = 512;
    for (int32_t i = 0; i < n_merge; i++)
        n_text += strlen(merge[i]);
    char *text = mem_alloc(n_text), *at = text;
    struct source s = {
        .text = mem_calloc((size_t)n_vocab, sizeof *s.text),
        .merge = mem_calloc((size_t)n_merge, sizeof *s.merge),
        .type = mem_calloc((size_t)n_vocab, sizeof *s.type),
    };
    int rc = 0;
    *out = NULL;
    if (!text || !s.text || !s.merge || !s.type) {
        rc = err_set(e, ERR_NOMEM, "out of memory");
        goto out;
    }
    for (int b = 0; b < 256; b++) {
        s.text[b] = (struct slice){at, alphabet_put(b, at)};
        at += s.text[b].len;
    }
    for (int k = 0; k < 3; k++) {
        s.text[TOK_TINY_EOT + k] = slice_of(control[k]);
        s.type[TOK_TINY_EOT + k] = TOK_CONTROL;
    }
    for (int32_t i = 0; i < n_merge; i++) {
        s.merge[i] = slice_of(merge[i]);
        s.text[TOK_TINY_MERGE0 + i] = joined(merge[i], at);
        at += s.text[TOK_TINY_MERGE0 + i].len;
    }
    struct tok_config c = {.pre = pre,
                           .n_vocab = n_vocab,
                           .text = s.text,
                           .type = s.type,
                           .n_merge = n_merge,
                           .merge = s.merge,
                           .ids = no_ids,
                           .add_bos = 0,
                           .add_eos = 0};
    c.ids.bos = c.ids.eos = TOK_TINY_EOT;
    rc = tok_new(out, &c, e);
out:
    mem_free(text);
    mem_free(s.text);
    mem_free(s.merge);
    mem_free(s.type);
    return rc;
}
