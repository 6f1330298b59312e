/* The tokens and merges as tables: token -> bytes, bytes -> token, pair of tokens -> merge. Built once, then read
 * by all threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "mem.h"
#include "text/utf8.h"
#include "tok_impl.h"

/* ---- GPT-2's byte alphabet ---- */

/* GPT-2 writes every byte as a visible character: printable Latin-1 stands for itself, the 68 others follow from U+0100
 * on in order. Returns the byte, or -1 for a character outside of the alphabet. */
static int alphabet_byte(int32_t cp)
{
    if ((cp >= 33 && cp <= 126) || (cp >= 161 && cp <= 172) || (cp >= 174 && cp <= 255))
        return cp;
    if (cp < 256 || cp >= 256 + 68)
        return -1;
    int k = cp - 256; /* the k-th of 0..32, 127..160, 173 */
    return k < 33 ? k : k < 67 ? 127 + (k - 33) : 173;
}

/* Decodes to at most s.len bytes at out. Characters outside of the alphabet, and what is not UTF-8, stay as they are.
 */
static size_t alphabet_decode(struct slice s, char *out)
{
    size_t n = 0;
    for (size_t at = 0, len; at < s.len; at += len) {
        int32_t cp = utf8_next((const uint8_t *)s.p + at, s.len - at, &len);
        int byte = cp >= 0 ? alphabet_byte(cp) : -1;
        if (byte >= 0) {
            out[n++] = (char)byte;
        } else {
            memcpy(out + n, s.p + at, len);
            n += len;
        }
    }
    return n;
}

/* "<0xAB>", how byte tokens are spelled; -1 for anything else. */
static int byte_token_value(struct slice s)
{
    if (s.len != 6 || memcmp(s.p, "<0x", 3) || s.p[5] != '>')
        return -1;
    int v = 0;
    for (int i = 3; i < 5; i++) {
        char c = s.p[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* ---- tokens ---- */

static int types_check(struct vocab *v, const struct tok_config *c, struct err *e)
{
    for (int32_t i = 0; i < v->n; i++) {
        int32_t type = c->type ? c->type[i] : TOK_NORMAL;
        if (type < 0 || type > TOK_BYTE)
            return err_set(e, ERR_FORMAT, "token %d has the unknown type %d", i, type);
        v->type[i] = (uint8_t)(type ? type : TOK_NORMAL);
    }
    return 0;
}

/* U+2581 is how SentencePiece writes a space. */
static size_t spaces_decode(struct slice s, char *out)
{
    size_t n = 0;
    for (size_t at = 0; at < s.len;) {
        bool is_space = s.len - at >= 3 && !memcmp(s.p + at, "\xe2\x96\x81", 3);
        out[n++] = is_space ? ' ' : s.p[at];
        at += is_space ? 3 : 1;
    }
    return n;
}

static size_t token_decode(const struct vocab *v, enum tok_model model, int32_t id, struct slice text, char *out)
{
    if (v->type[id] == TOK_NORMAL && model == TOK_BYTE_BPE)
        return alphabet_decode(text, out);
    if ((v->type[id] == TOK_NORMAL || v->type[id] == TOK_USER_DEFINED) && model == TOK_SENTENCEPIECE)
        return spaces_decode(text, out);
    int byte = v->type[id] == TOK_BYTE ? byte_token_value(text) : -1;
    if (byte >= 0) {
        out[0] = (char)byte;
        return 1;
    }
    memcpy(out, text.p, text.len);
    return text.len;
}

static int bytes_fill(struct vocab *v, const struct tok_config *c, struct err *e)
{
    size_t total = 0;
    for (int32_t i = 0; i < v->n; i++)
        total += c->text[i].len;
    if (total > UINT32_MAX)
        return err_set(e, ERR_FORMAT, "the tokens take %zu bytes together", total);
    v->bytes = mem_alloc(total);
    if (!v->bytes)
        return err_set(e, ERR_NOMEM, "out of memory for %d tokens", v->n);
    uint32_t at = 0;
    for (int32_t i = 0; i < v->n; i++) {
        v->offset[i] = at;
        size_t n = token_decode(v, c->model, i, c->text[i], v->bytes + at);
        at += (uint32_t)n;
        if (n > v->max_bytes)
            v->max_bytes = n;
    }
    v->offset[v->n] = at;
    return 0;
}

static uint32_t pow2_at_least(uint64_t n)
{
    uint32_t size = 16;
    while (size < n)
        size *= 2;
    return size;
}

static void slot_insert(struct vocab *v, int32_t id)
{
    struct slice s = vocab_piece(v, id);
    if (s.len == 0 || vocab_find(v, s.p, s.len) >= 0) /* of equal tokens the first counts */
        return;
    uint32_t hash = (uint32_t)XXH3_64bits(s.p, s.len), at = hash & v->slot_mask;
    while (v->slot[at].id >= 0)
        at = (at + 1) & v->slot_mask;
    v->slot[at] = (struct vocab_slot){hash, id};
}

/* A byte's own token. SentencePiece has others for characters of one byte, and falls back to these for bytes alone. */
static void byte_ids_fill(struct vocab *v, enum tok_model model)
{
    for (int b = 0; b < 256; b++)
        v->byte_id[b] = model == TOK_BYTE_BPE ? vocab_find(v, &(char){(char)b}, 1) : -1;
    for (int32_t i = v->n - 1; i >= 0 && model == TOK_SENTENCEPIECE; i--)
        if (v->type[i] == TOK_BYTE && vocab_piece(v, i).len == 1)
            v->byte_id[(uint8_t)*vocab_piece(v, i).p] = i;
}

static int slots_fill(struct vocab *v, enum tok_model model, struct err *e)
{
    uint32_t size = pow2_at_least((uint64_t)v->n * 2);
    v->slot = mem_alloc(size * sizeof *v->slot);
    if (!v->slot)
        return err_set(e, ERR_NOMEM, "out of memory for %d tokens", v->n);
    memset(v->slot, 0xff, size * sizeof *v->slot);
    v->slot_mask = size - 1;
    for (int32_t i = 0; i < v->n; i++)
        if (v->type[i] == TOK_NORMAL || (v->type[i] == TOK_BYTE && model == TOK_BYTE_BPE))
            slot_insert(v, i);
    for (int32_t i = 0; i < v->n; i++)
        if (v->type[i] == TOK_USER_DEFINED)
            slot_insert(v, i);
    byte_ids_fill(v, model);
    return 0;
}

int32_t vocab_find(const struct vocab *v, const char *p, size_t n)
{
    uint32_t hash = (uint32_t)XXH3_64bits(p, n);
    for (uint32_t at = hash & v->slot_mask; v->slot[at].id >= 0; at = (at + 1) & v->slot_mask) {
        if (v->slot[at].hash != hash)
            continue;
        struct slice s = vocab_piece(v, v->slot[at].id);
        if (s.len == n && !memcmp(s.p, p, n))
            return v->slot[at].id;
    }
    return -1;
}

/* ---- merges ---- */

static uint32_t pair_hash(int32_t left, int32_t right)
{
    uint64_t x = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(x >> 32) ^ (uint32_t)(x >> 13);
}

const struct merge_slot *vocab_merge(const struct vocab *v, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return NULL;
    uint32_t at = pair_hash(left, right) & v->merge_mask;
    for (; v->merge[at].left >= 0; at = (at + 1) & v->merge_mask)
        if (v->merge[at].left == left && v->merge[at].right == right)
            return &v->merge[at];
    return NULL;
}

static int merge_fail(struct slice m, int32_t rank, const char *what, struct err *e)
{
    return err_set(e, ERR_FORMAT, "merge %d, '%.*s': %s", rank, (int)(m.len < 100 ? m.len : 100), m.p, what);
}

static int merge_insert(struct vocab *v, enum tok_model model, struct slice m, int32_t rank, char *buf, struct err *e)
{
    const char *space = m.len > 1 ? memchr(m.p + 1, ' ', m.len - 1) : NULL;
    if (!space || space == m.p + m.len - 1)
        return merge_fail(m, rank, "not two tokens with a space between", e);
    struct slice a = {m.p, (size_t)(space - m.p)}, b = {space + 1, (size_t)(m.p + m.len - space - 1)};
    size_t n_left = model == TOK_BYTE_BPE ? alphabet_decode(a, buf) : spaces_decode(a, buf);
    size_t n = n_left + (model == TOK_BYTE_BPE ? alphabet_decode(b, buf + n_left) : spaces_decode(b, buf + n_left));
    int32_t left = vocab_find(v, buf, n_left), right = vocab_find(v, buf + n_left, n - n_left),
            id = vocab_find(v, buf, n);
    if (left < 0 || right < 0 || id < 0)
        return merge_fail(m, rank, "a part or the whole is not in the vocabulary", e);
    if (vocab_merge(v, left, right))
        return 0;
    uint32_t at = pair_hash(left, right) & v->merge_mask;
    while (v->merge[at].left >= 0)
        at = (at + 1) & v->merge_mask;
    v->merge[at] = (struct merge_slot){left, right, rank, id};
    return 0;
}

static int merges_fill(struct vocab *v, const struct tok_config *c, struct err *e)
{
    size_t longest = 0;
    for (int32_t i = 0; i < c->n_merge; i++)
        if (c->merge[i].len > longest)
            longest = c->merge[i].len;
    uint32_t size = pow2_at_least((uint64_t)c->n_merge * 3 / 2);
    v->merge = mem_alloc(size * sizeof *v->merge);
    char *buf = mem_alloc(longest);
    int rc = 0;
    if (!v->merge || !buf) {
        rc = err_set(e, ERR_NOMEM, "out of memory for %d merges", c->n_merge);
        goto out;
    }
    memset(v->merge, 0xff, size * sizeof *v->merge);
    v->merge_mask = size - 1;
    for (int32_t i = 0; !rc && i < c->n_merge; i++)
        rc = merge_insert(v, c->model, c->merge[i], i, buf, e);
out:
    mem_free(buf);
    return rc;
}

/* ---- scores ---- */

struct scored {
    float score;
    int32_t id;
};

static int higher_first(const void *a, const void *b)
{
    float x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return (x < y) - (x > y);
}

static int ranks_fill(struct vocab *v, const struct tok_config *c, struct err *e)
{
    struct scored *order = mem_alloc((size_t)v->n * sizeof *order);
    v->rank = mem_alloc((size_t)v->n * sizeof *v->rank);
    int rc = order && v->rank ? 0 : err_set(e, ERR_NOMEM, "out of memory for %d scores", v->n);
    for (int32_t i = 0; !rc && i < v->n; i++) {
        order[i] = (struct scored){c->score[i], i};
        if (isnan(c->score[i]))
            rc = err_set(e, ERR_FORMAT, "the score of token %d is not a number", i);
    }
    if (!rc) {
        qsort(order, (size_t)v->n, sizeof *order, higher_first);
        for (int32_t i = 0; i < v->n; i++)
            v->rank[order[i].id] = i && order[i].score == order[i - 1].score ? v->rank[order[i - 1].id] : i;
    }
    mem_free(order);
    return rc;
}

/* The tokenizers library's penalty for what is unknown (models/unigram). */
static const double UNKNOWN_PENALTY = 10;

static int log_probs_fill(struct vocab *v, const struct tok_config *c, struct err *e)
{
    double least = 0;
    v->log_prob = mem_alloc((size_t)v->n * sizeof *v->log_prob);
    if (!v->log_prob)
        return err_set(e, ERR_NOMEM, "out of memory for %d scores", v->n);
    for (int32_t i = 0; i < v->n; i++) {
        v->log_prob[i] = c->log_prob[i];
        if (isnan(c->log_prob[i]) || c->log_prob[i] == (double)INFINITY)
            return err_set(e, ERR_FORMAT, "the score of token %d is not a number", i);
        if (c->log_prob[i] > (double)-INFINITY && c->log_prob[i] < least)
            least = c->log_prob[i];
    }
    v->unk_log_prob = least - UNKNOWN_PENALTY;
    return 0;
}

/* ---- all of it ---- */

int vocab_init(struct vocab *v, const struct tok_config *c, struct err *e)
{
    *v = (struct vocab){.n = c->n_vocab};
    v->type = mem_alloc((size_t)v->n);
    v->offset = mem_calloc((size_t)v->n + 1, sizeof *v->offset);
    if (!v->type || !v->offset)
        return err_set(e, ERR_NOMEM, "out of memory for %d tokens", v->n);
    int rc = types_check(v, c, e);
    if (!rc)
        rc = bytes_fill(v, c, e);
    if (!rc)
        rc = slots_fill(v, c->model, e);
    if (!rc && c->log_prob)
        return log_probs_fill(v, c, e);
    if (!rc && c->score)
        return ranks_fill(v, c, e);
    return rc ? rc : merges_fill(v, c, e);
}

void vocab_free(struct vocab *v)
{
    mem_free(v->type);
    mem_free(v->offset);
    mem_free(v->bytes);
    mem_free(v->slot);
    mem_free(v->merge);
    mem_free(v->rank);
    mem_free(v->log_prob);
}
