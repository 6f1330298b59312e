/* In-context navigation (autoregressive.md, section 12): rounds in which the likeliest first tokens that were not tried
 * yet are each continued greedily to an item; the items found so far stand in the prompt whose next tokens are ranked,
 * which pushes the ranking away from them. Items are continued from the prompt with the empty list. */
#include <string.h>

#include "job.h"
#include "mem.h"
#include "navigation.h"
#include "wake.h"

enum { MAX_PER_ROUND = 32, MAX_OPENING = 24 }; /* tokens of a line's beginning, and one to rank */

struct ids { /* token ids of a prompt; owned by the struct it stands in */
    int32_t *tok, n, cap;
};

struct navigate { /* owner: a job */
    struct navigation nav;
    struct ids initial; /* the client's prompt and the opening of the empty list */
    struct ids list;    /* the client's prompt and the items that are fed back */
    int32_t n_listed;   /* items in it */
    bool list_full;     /* another item would not fit the context */
    struct nav_token ranked[MAX_RANKED];
    int32_t n_ranked;
    bool is_ranking; /* the child is a request for a ranking; else the children are this round's items */
    int32_t choice0; /* the first of this round's choices */
    int32_t n_round, n_tried, n_found;
    int64_t deadline_ns; /* 0: none */
    bool is_late, is_over;
};

static void close_navigate(struct job *j)
{
    struct navigate *s = j->composed;
    if (!s)
        return;
    nav_free(&s->nav);
    mem_free(s->initial.tok);
    mem_free(s->list.tok);
    mem_free(s);
    j->composed = NULL;
}

static const struct tokenizer *tokenizer_of(const struct job *j)
{
    return engine_tokenizer(j->loop->srv->eng);
}

static bool out_of_memory(struct api_error *e)
{
    api_fail(e, 500, NULL, "The server is out of memory.");
    return false;
}

/* ---- Prompts ---- */

static bool ids_reserve(struct ids *to, int32_t n)
{
    if (to->n + n <= to->cap)
        return true;
    int32_t cap = 2 * (to->n + n);
    int32_t *p = mem_realloc(to->tok, (size_t)cap * sizeof *p);
    if (!p)
        return false;
    to->tok = p;
    to->cap = cap;
    return true;
}

static bool ids_add(struct ids *to, const int32_t *tok, int32_t n)
{
    if (!ids_reserve(to, n))
        return false;
    if (n)
        memcpy(to->tok + to->n, tok, sizeof *tok * (size_t)n);
    to->n += n;
    return true;
}

/* Text is only text here: an item that looks like a special token does not become one. A text has no more tokens than
 * bytes. */
static bool ids_add_text(struct job *j, struct ids *to, const struct text_buf *text)
{
    size_t n = 0;
    struct err err = {0};
    if (text->failed || !j->loop->scratch || !ids_reserve(to, (int32_t)text->n + 1) ||
        tok_encode(tokenizer_of(j), text->p, text->n, 0, to->tok + to->n, (size_t)(to->cap - to->n), &n,
                   j->loop->scratch, &err))
        return false;
    to->n += (int32_t)n;
    return true;
}

/* Lines of the list are lines: what stands before the first of them is ended, unless it is the template's. */
static void begin_line(struct job *j, const struct ids *to, struct text_buf *text)
{
    int32_t last = to->n ? to->tok[to->n - 1] : -1;
    struct slice piece = tok_piece(tokenizer_of(j), last);
    if (piece.len && piece.p[piece.len - 1] != '\n' && !tok_is_control(tokenizer_of(j), last))
        tb_str(text, "\n");
}

static bool add_opening(struct job *j, struct ids *to, int32_t number)
{
    struct text_buf text = {0};
    begin_line(j, to, &text);
    nav_write_opening(&text, number, j->how.navigate.item_stop);
    bool ok = ids_add_text(j, to, &text);
    tb_free(&text);
    return ok;
}

/* Feeds an item back while the list, its opening and a token fit the context: the first ones found stay, which are the
 * likeliest, and the prompt only ever grows at its end. */
static bool list_item(struct job *j, struct navigate *s, struct slice item)
{
    struct text_buf text = {0};
    int32_t n_before = s->list.n;
    if (s->list_full)
        return true;
    begin_line(j, &s->list, &text);
    nav_write_line(&text, s->n_listed + 1, item, j->how.navigate.item_stop);
    bool ok = ids_add_text(j, &s->list, &text);
    tb_free(&text);
    s->list_full = s->list.n + MAX_OPENING >= engine_n_ctx(j->loop->srv->eng);
    if (s->list_full)
        s->list.n = n_before;
    else
        s->n_listed++;
    return ok;
}

/* ---- Children ---- */

/* What is left of the client's time; when nothing is, the engine says so. */
static void set_timeout(const struct navigate *s, struct gen_params *p)
{
    int64_t left_ns = s->deadline_ns - clock_ns();
    p->timeout_ns = !s->deadline_ns ? 0 : left_ns > 1 ? left_ns : 1;
}

/* One request for one token, which tells the likeliest ones in their order. */
static bool ask_ranking(struct job *j, struct navigate *s, const struct ids *prompt, struct api_error *e)
{
    struct gen_params p = j->par.p;
    p.temperature = 0;
    p.max_tokens = 1;
    p.n_logprobs = MAX_RANKED;
    p.n_bias = 0; /* bans are heeded below, and must not leave nothing to sample here */
    p.decoding = (struct decoding_params){.strategy = DECODE_OFF};
    set_timeout(s, &p);
    s->is_ranking = true;
    s->choice0 = j->n_choice;
    return job_add_child(j, 0, prompt->tok, prompt->n, &p, e);
}

static bool ask_next_ranking(struct job *j, struct navigate *s, struct api_error *e)
{
    int32_t n_before = s->list.n;
    if (!add_opening(j, &s->list, s->n_listed + 1))
        return out_of_memory(e);
    bool ok = ask_ranking(j, s, &s->list, e);
    s->list.n = n_before;
    return ok;
}

/* Tokens of an item after its first. */
static int32_t max_continuation(const struct job *j, const struct navigate *s)
{
    int32_t max = j->how.navigate.max_item, room = engine_n_ctx(j->loop->srv->eng) - s->initial.n;
    if (j->par.max_tokens_given && j->par.p.max_tokens < max)
        max = j->par.p.max_tokens;
    return (max < room ? max : room) - 1;
}

/* An item begins with `first`: continued greedily from the client's prompt, unless the token is all of it. */
static bool ask_item(struct job *j, struct navigate *s, struct nav_token first, struct api_error *e)
{
    struct gen_params p = j->par.p;
    const char *stop[] = {j->how.navigate.item_stop};
    bool ended;
    nav_cut(first.text.p, first.text.len, stop[0], &ended);
    p.temperature = 0;
    p.max_tokens = max_continuation(j, s);
    p.stop = stop;
    p.n_stop = 1;
    p.emit_tokens = true;
    set_timeout(s, &p);
    if (!ids_add(&s->initial, &first.id, 1))
        return out_of_memory(e);
    bool ok = ended || p.max_tokens == 0 ? job_add_choice(j, 0, e) != NULL
                                         : job_add_child(j, 0, s->initial.tok, s->initial.n, &p, e);
    s->initial.n--;
    if (ok)
        choice_keep_token(&j->choice[j->n_choice - 1], &(struct gen_event){.tok = first.id}, tokenizer_of(j));
    return ok;
}

/* ---- Rounds ---- */

/* Whether an item can begin with it: text that the client has not banned, and that does not end the item at once. */
static bool can_begin(const struct job *j, struct nav_token t)
{
    const struct gen_params *p = &j->par.p;
    bool ended;
    if (tok_is_control(tokenizer_of(j), t.id) || tok_is_eog(tokenizer_of(j), t.id) || !t.text.len)
        return false;
    for (int32_t i = 0; i < p->n_stop_ids; i++)
        if (p->stop_ids[i] == t.id)
            return false;
    for (int32_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].tok == t.id && p->bias[i].bias <= -100)
            return false;
    return nav_cut(t.text.p, t.text.len, j->how.navigate.item_stop, &ended).len > 0 || !ended;
}

static void take_ranking(struct job *j, struct navigate *s)
{
    const struct choice *ch = &j->choice[s->choice0];
    s->is_late = ch->finish == FINISH_DEADLINE;
    s->is_over = s->is_late || ch->n_token == 0;
    s->n_ranked = 0;
    for (int32_t i = 0; ch->n_token && i < ch->token[0].n_top && i < MAX_RANKED; i++) {
        int32_t id = ch->top[ch->token[0].top0 + i].tok;
        struct nav_token t = {.id = id, .text = tok_piece(tokenizer_of(j), id)};
        if (can_begin(j, t))
            s->ranked[s->n_ranked++] = t;
    }
}

/* When nothing is left to try, that is the end. */
static bool begin_round(struct job *j, struct navigate *s, struct api_error *e)
{
    int32_t picked[MAX_PER_ROUND];
    int32_t n = nav_pick(&s->nav, s->ranked, s->n_ranked, j->how.navigate.per_round, picked);
    s->is_ranking = false;
    s->is_over = n == 0;
    s->choice0 = j->n_choice;
    s->n_tried += n;
    for (int32_t i = 0; i < n; i++)
        if (!ask_item(j, s, s->ranked[picked[i]], e))
            return false;
    return true;
}

/* A choice's tokens as one text: the first of them may be half a character. */
static void write_tokens(const struct job *j, const struct choice *ch, struct text_buf *text)
{
    struct detok d;
    size_t max = detok_bound(tokenizer_of(j));
    char *piece = mem_alloc(max);
    detok_init(&d, tokenizer_of(j), true);
    for (int32_t i = 0; piece && i < ch->n_token; i++)
        tb_add(text, piece, detok_push(&d, ch->token[i].tok, piece));
    if (piece)
        tb_add(text, piece, detok_flush(&d, piece));
    text->failed |= !piece;
    mem_free(piece);
}

/* The choice becomes an item of the answer if it is a new one. */
static bool settle_item(struct job *j, struct navigate *s, struct choice *ch)
{
    const char *stop = j->how.navigate.item_stop;
    struct text_buf text = {0};
    bool ended;
    write_tokens(j, ch, &text);
    struct slice item = nav_cut(text.p, text.n, stop, &ended);
    bool ok = !text.failed && !ch->failed, is_new = ok && nav_find(&s->nav, item.p, item.len);
    ch->text.n = 0;
    if (is_new) {
        ch->index = s->n_found++;
        tb_add(&ch->text, item.p, item.len);
        if (j->how.navigate.feed_back)
            ok = list_item(j, s, item);
    }
    if (ended && !ch->stop_text) { /* the stop is the first token's, in part at least */
        ch->finish = FINISH_STOP;
        ch->stop_id = -1;
        ch->stop_text = mem_strdup(stop);
    } else if (!ch->finish) {
        ch->finish = FINISH_LENGTH;
    }
    tb_free(&text);
    return ok && !ch->text.failed;
}

static bool end_round(struct job *j, struct navigate *s, struct api_error *e)
{
    for (int32_t i = s->choice0; i < j->n_choice; i++) {
        s->is_late |= j->choice[i].finish == FINISH_DEADLINE;
        if (j->choice[i].finish != FINISH_DEADLINE && !settle_item(j, s, &j->choice[i]))
            return out_of_memory(e);
    }
    s->n_round++;
    s->is_over = s->is_late || s->n_round == j->how.navigate.rounds;
    if (s->is_over)
        return true;
    return j->how.navigate.feed_back ? ask_next_ranking(j, s, e) : begin_round(j, s, e);
}

/* ---- As a way of composing ---- */

static bool begin(struct job *j, struct api_error *e)
{
    const struct prompt *prompt = &j->prompt[0];
    struct navigate *s = j->composed = mem_calloc(1, sizeof *s);
    int32_t n_ctx = engine_n_ctx(j->loop->srv->eng);
    if (!s)
        return out_of_memory(e);
    s->deadline_ns = j->par.p.timeout_ns ? clock_ns() + j->par.p.timeout_ns : 0;
    j->keeps_tokens = true; /* an item's text is made of its tokens */
    if (!j->loop->scratch || !ids_add(&s->initial, prompt->tok, prompt->n_tok) ||
        !ids_add(&s->list, prompt->tok, prompt->n_tok) || !add_opening(j, &s->initial, 1))
        return out_of_memory(e);
    if (s->initial.n + 2 > n_ctx) {
        api_fail(e, 400, j->format->prompt_field,
                 "This model's maximum context length is %d tokens, but the prompt and the beginning of a list have "
                 "%d, and an item needs 2.",
                 n_ctx, s->initial.n);
        e->code = "context_length_exceeded";
        e->no_retry = true;
        return false;
    }
    return ask_ranking(j, s, &s->initial, e);
}

static bool go_on(struct job *j, struct api_error *e)
{
    struct navigate *s = j->composed;
    int32_t n_child = j->n_child;
    bool ok = true;
    while (ok && !s->is_over && j->n_child == n_child) {
        if (!s->is_ranking) {
            ok = end_round(j, s, e);
            continue;
        }
        take_ranking(j, s);
        ok = s->is_over || begin_round(j, s, e);
    }
    job_retire_children(j);
    if (ok && s->nav.failed)
        return out_of_memory(e);
    if (ok && s->is_late && s->n_found == 0) {
        job_out_of_time(e, "an item was found");
        return false;
    }
    return ok;
}

static void tell(const struct job *j, struct text_buf *b)
{
    const struct navigate *s = j->composed;
    tb_printf(b, ",\"rounds\":%d,\"tried\":%d,\"found\":%d", s->n_round, s->n_tried, s->n_found);
}

const struct compose_ops compose_navigate = {.name = "navigate",
                                             .breadth_field = "decoding.per_round",
                                             .begin = begin,
                                             .go_on = go_on,
                                             .tell = tell,
                                             .close = close_navigate};
