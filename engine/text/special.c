/* Tokens recognised by their names: in a text (a trie, longest match first), and by what they are for (the end of an
 * answer, fill in the middle). */
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "tok_impl.h"

static bool is_special(uint8_t type)
{
    return type == TOK_CONTROL || type == TOK_USER_DEFINED || type == TOK_UNKNOWN;
}

/* ---- the trie ---- */

static int32_t node_new(struct special *s, uint8_t byte, int32_t sibling)
{
    s->node[s->n_node] = (struct trie_node){.child = -1, .sibling = sibling, .id = -1, .byte = byte};
    return s->n_node++;
}

static int32_t *child_link(struct special *s, int32_t *link, uint8_t byte)
{
    while (*link >= 0 && s->node[*link].byte != byte)
        link = &s->node[*link].sibling;
    return link;
}

static void trie_insert(struct special *s, struct slice name, int32_t id)
{
    int32_t at = 0;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t byte = (uint8_t)name.p[i];
        int32_t *link = i == 0 ? &s->root_child[byte] : child_link(s, &s->node[at].child, byte);
        if (*link < 0)
            *link = node_new(s, byte, -1);
        at = *link;
    }
    if (s->node[at].id < 0)
        s->node[at].id = id;
}

static int trie_init(struct special *s, const struct vocab *v, struct err *e)
{
    size_t n_byte = 1;
    for (int32_t i = 0; i < v->n; i++)
        if (is_special(v->type[i]))
            n_byte += vocab_piece(v, i).len;
    s->node = n_byte <= INT32_MAX ? mem_calloc(n_byte, sizeof *s->node) : NULL;
    if (!s->node)
        return err_set(e, ERR_NOMEM, "out of memory for the names of special tokens");
    memset(s->root_child, 0xff, sizeof s->root_child);
    node_new(s, 0, -1);
    for (int32_t i = 0; i < v->n; i++)
        if (is_special(v->type[i]) && vocab_piece(v, i).len)
            trie_insert(s, vocab_piece(v, i), i);
    return 0;
}

int32_t special_match(const struct special *s, const struct vocab *v, const char *p, size_t n, bool with_control,
                      size_t *len)
{
    int32_t found = -1;
    if (n == 0)
        return -1;
    int32_t at = s->root_child[(uint8_t)p[0]];
    for (size_t i = 1; at >= 0; i++) {
        int32_t id = s->node[at].id;
        if (id >= 0 && (with_control || v->type[id] == TOK_USER_DEFINED)) {
            found = id;
            *len = i;
        }
        if (i == n)
            break;
        at = s->node[at].child;
        while (at >= 0 && s->node[at].byte != (uint8_t)p[i])
            at = s->node[at].sibling;
    }
    return found;
}

/* ---- roles ---- */

static int32_t find_name(const struct special *s, const struct vocab *v, const char *name)
{
    size_t n = strlen(name), len;
    int32_t id = special_match(s, v, name, n, true, &len);
    return id >= 0 && len == n ? id : -1;
}

static void complete(const struct special *s, const struct vocab *v, int32_t *id, const char *const *names)
{
    for (; *id < 0 && *names; names++)
        *id = find_name(s, v, *names);
}

static void ids_complete(const struct special *s, const struct vocab *v, struct tok_ids *ids)
{
#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})
    complete(s, v, &ids->eot, NAMES("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"));
    complete(s, v, &ids->eom, NAMES("<|eom_id|>"));
    complete(s, v, &ids->fim_prefix, NAMES("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>"));
    complete(s, v, &ids->fim_suffix, NAMES("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>"));
    complete(s, v, &ids->fim_middle, NAMES("<|fim_middle|>", "<fim-middle>", "<fim_middle>"));
    complete(s, v, &ids->fim_pad, NAMES("<|fim_pad|>", "<fim-pad>", "<fim_pad>"));
    complete(s, v, &ids->fim_repo, NAMES("<|repo_name|>", "<|fim_repo|>", "<fim-repo>", "<repo_name>", "<reponame>"));
    complete(s, v, &ids->fim_sep, NAMES("<|file_sep|>", "<file_sep>"));
#undef NAMES
}

static int id_cmp(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The names under which models end a turn or a document. Not among them: tokens of fill in the middle, which a
 * completion endpoint stops at by itself, and the starts of turns. */
static const char *const eog_name[] = {
    "<|im_end|>",    "<|eot_id|>",         "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<|end|>",
    "<end_of_turn>", "<|return|>",         "<|call|>",   "<EOT>",         "[EOT]",           "[EOS]",
    "<eos>",         "<end_of_utterance>", "</s>",       "< EOT >",       "<|eot|>",
};

static int eog_init(struct special *s, const struct vocab *v, const struct tok_config *c, const struct tok_ids *ids,
                    struct err *e)
{
    enum { N_NAME = sizeof eog_name / sizeof *eog_name };
    s->eog = mem_calloc((size_t)(N_NAME + 3 + c->n_eos), sizeof *s->eog);
    if (!s->eog)
        return err_set(e, ERR_NOMEM, "out of memory");
    int32_t n = 0, id;
    /* In the harmony format <|end|> only ends a message of an answer; <|return|> and <|call|> end the answer. */
    bool is_harmony = find_name(s, v, "<|return|>") >= 0 && find_name(s, v, "<|call|>") >= 0;
    for (int i = 0; i < N_NAME; i++)
        if ((id = find_name(s, v, eog_name[i])) >= 0 && !(is_harmony && !strcmp(eog_name[i], "<|end|>")))
            s->eog[n++] = id;
    for (int i = 0; i < 3; i++)
        if ((id = (const int32_t[]){ids->eos, ids->eot, ids->eom}[i]) >= 0)
            s->eog[n++] = id;
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] >= 0 && c->eos[i] < v->n)
            s->eog[n++] = c->eos[i];
    qsort(s->eog, (size_t)n, sizeof *s->eog, id_cmp);
    for (int32_t i = 0; i < n; i++)
        if (i == 0 || s->eog[i] != s->eog[i - 1])
            s->eog[s->n_eog++] = s->eog[i];
    return 0;
}

int special_init(struct special *s, const struct vocab *v, const struct tok_config *c, struct tok_ids *ids,
                 struct err *e)
{
    *s = (struct special){0};
    int rc = trie_init(s, v, e);
    if (rc)
        return rc;
    ids_complete(s, v, ids);
    return eog_init(s, v, c, ids, e);
}

void special_free(struct special *s)
{
    mem_free(s->node);
    mem_free(s->eog);
}
