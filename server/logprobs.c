#include "logprobs.h"

#include <string.h>

static const struct tokenizer *tokenizer_of(const struct job *j)
{
    return engine_tokenizer(j->loop->srv->eng);
}

void write_ids(struct text_buf *b, const int32_t *id, int32_t n)
{
    tb_str(b, "[");
    for (int32_t i = 0; i < n; i++) {
        if (i)
            tb_str(b, ",");
        tb_int(b, id[i]);
    }
    tb_str(b, "]");
}

void write_record_ids(struct text_buf *b, const struct choice *ch, int32_t from, int32_t to)
{
    tb_str(b, "[");
    for (int32_t i = from; i < to; i++) {
        if (i > from)
            tb_str(b, ",");
        tb_int(b, ch->token[i].tok);
    }
    tb_str(b, "]");
}

/* ---- Chat ---- */

static void write_token(struct job *j, struct text_buf *b, int32_t tok, float logprob)
{
    struct slice s = tok_piece(tokenizer_of(j), tok);
    tb_str(b, "{\"token\":");
    tb_json(b, s.p, s.len);
    tb_str(b, ",\"logprob\":");
    tb_float(b, logprob);
    tb_str(b, ",\"bytes\":[");
    for (size_t i = 0; i < s.len; i++) {
        if (i)
            tb_str(b, ",");
        tb_int(b, (unsigned char)s.p[i]);
    }
    tb_str(b, "]");
}

void write_chat_logprobs(struct job *j, struct text_buf *b, const struct choice *ch, int32_t from, int32_t to)
{
    tb_str(b, "{\"content\":[");
    for (int32_t i = from; i < to; i++) {
        const struct token_record *t = &ch->token[i];
        if (i > from)
            tb_str(b, ",");
        write_token(j, b, t->tok, t->logprob);
        tb_str(b, ",\"top_logprobs\":[");
        for (int32_t k = 0; k < t->n_top; k++) {
            if (k)
                tb_str(b, ",");
            write_token(j, b, ch->top[t->top0 + k].tok, ch->top[t->top0 + k].logprob);
            tb_str(b, "}");
        }
        tb_str(b, "]}");
    }
    tb_str(b, "],\"refusal\":null}");
}

/* ---- Completions ---- */

static bool is_utf8(struct slice s)
{
    struct text_buf probe = {0};
    tb_json(&probe, s.p, s.len); /* malformed bytes grow into U+FFFD */
    bool ok = probe.n >= 2 && !memmem(probe.p, probe.n, "\xEF\xBF\xBD", 3);
    tb_free(&probe);
    return ok;
}

/* A token's text as a key: part of a character is written as OpenAI does, so that keys stay apart. */
static void write_key(struct job *j, struct text_buf *b, int32_t tok)
{
    struct slice s = tok_piece(tokenizer_of(j), tok);
    if (is_utf8(s)) {
        tb_json(b, s.p, s.len);
        return;
    }
    tb_str(b, "\"bytes:");
    for (size_t i = 0; i < s.len; i++)
        tb_printf(b, "\\\\x%02x", (unsigned char)s.p[i]);
    tb_str(b, "\"");
}

/* One position of the four parallel lists. */
struct position {
    int32_t tok, n_top, offset;
    float logprob;
    const struct top_logprob *top;
    bool first; /* of the prompt: nothing before it, so no probability */
};

int32_t token_chars(const struct tokenizer *tok, int32_t id)
{
    struct slice s = tok_piece(tok, id);
    int32_t count = 0;
    for (size_t i = 0; i < s.len; i++)
        count += (s.p[i] & 0xC0) != 0x80;
    return count;
}

static struct position position_of(const struct choice *ch, const struct prompt *p, int32_t i)
{
    struct position out = {0};
    if (p && i < p->n_tok) {
        int32_t rank;
        out.tok = p->tok[i];
        out.first = i == 0;
        if (i > 0)
            request_prompt_logprob(p->r, i, &out.logprob, &rank, &out.n_top, &out.top);
        return out;
    }
    const struct token_record *t = &ch->token[i - (p ? p->n_tok : 0)];
    out.tok = t->tok;
    out.n_top = t->n_top;
    out.logprob = t->logprob;
    out.top = ch->top + t->top0;
    return out;
}

static void write_top(struct job *j, struct text_buf *b, const struct position *at)
{
    bool listed = false;
    tb_str(b, "{");
    for (int32_t k = 0; k < at->n_top; k++) {
        listed |= at->top[k].tok == at->tok;
        tb_str(b, k ? "," : "");
        write_key(j, b, at->top[k].tok);
        tb_str(b, ":");
        tb_float(b, at->top[k].logprob);
    }
    if (!listed) {
        tb_str(b, at->n_top ? "," : "");
        write_key(j, b, at->tok);
        tb_str(b, ":");
        tb_float(b, at->logprob);
    }
    tb_str(b, "}");
}

/* Characters before each token, from the pieces themselves: what a client would see without stop strings. */
static void write_offsets(struct job *j, struct text_buf *b, const struct choice *ch, int32_t from, int32_t to,
                          const struct prompt *p)
{
    int32_t chars = !p && from < to ? ch->token[from].char_offset : 0;
    for (int32_t i = from; i < to; i++) {
        tb_str(b, i > from ? "," : "");
        tb_int(b, chars);
        chars += token_chars(tokenizer_of(j), position_of(ch, p, i).tok);
    }
}

void write_completion_logprobs(struct job *j, struct text_buf *b, const struct choice *ch, int32_t from, int32_t to,
                               const struct prompt *p)
{
    to += p ? p->n_tok : 0;
    tb_str(b, "{\"tokens\":[");
    for (int32_t i = from; i < to; i++) {
        tb_str(b, i > from ? "," : "");
        write_key(j, b, position_of(ch, p, i).tok);
    }
    tb_str(b, "],\"token_logprobs\":[");
    for (int32_t i = from; i < to; i++) {
        struct position at = position_of(ch, p, i);
        tb_str(b, i > from ? "," : "");
        if (at.first)
            tb_str(b, "null");
        else
            tb_float(b, at.logprob);
    }
    tb_str(b, "],\"top_logprobs\":[");
    for (int32_t i = from; i < to; i++) {
        struct position at = position_of(ch, p, i);
        tb_str(b, i > from ? "," : "");
        if (at.first)
            tb_str(b, "null");
        else
            write_top(j, b, &at);
    }
    tb_str(b, "],\"text_offset\":[");
    write_offsets(j, b, ch, from, to, p);
    tb_str(b, "]}");
}

static void write_prompt_entry(struct job *j, struct text_buf *b, int32_t tok, float logprob, int32_t rank)
{
    struct slice s = tok_piece(tokenizer_of(j), tok);
    tb_printf(b, "\"%d\":{\"logprob\":", tok);
    tb_float(b, logprob);
    tb_printf(b, ",\"rank\":%d,\"decoded_token\":", rank + 1);
    tb_json(b, s.p, s.len);
    tb_str(b, "}");
}

void write_prompt_logprobs(struct job *j, struct text_buf *b, const struct prompt *p)
{
    tb_str(b, "[null");
    for (int32_t i = 1; i < p->n_tok; i++) {
        float logprob;
        int32_t rank, n_top;
        const struct top_logprob *top;
        request_prompt_logprob(p->r, i, &logprob, &rank, &n_top, &top);
        tb_str(b, ",{");
        write_prompt_entry(j, b, p->tok[i], logprob, rank);
        for (int32_t k = 0; k < n_top; k++)
            if (top[k].tok != p->tok[i]) {
                tb_str(b, ",");
                write_prompt_entry(j, b, top[k].tok, top[k].logprob, k);
            }
        tb_str(b, "}");
    }
    tb_str(b, "]");
}
