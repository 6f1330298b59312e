#include "navigation.h"

#include <ctype.h>
#include <string.h>

/* ---- Sets of texts ---- */

static bool set_has(const struct text_buf *set, const char *p, size_t n)
{
    for (size_t at = 0; at < set->n;) {
        size_t len;
        memcpy(&len, set->p + at, sizeof len);
        at += sizeof len;
        if (len == n && !memcmp(set->p + at, p, n))
            return true;
        at += len;
    }
    return false;
}

static void set_add(struct text_buf *set, const char *p, size_t n)
{
    tb_add(set, (const char *)&n, sizeof n);
    tb_add(set, p, n);
}

void nav_free(struct navigation *v)
{
    tb_free(&v->ids);
    tb_free(&v->tokens);
    tb_free(&v->items);
}

/* ---- Remembering ---- */

static bool is_space(char c)
{
    return isspace((unsigned char)c) != 0;
}

static struct slice trim(struct slice s)
{
    while (s.len && is_space(s.p[0]))
        s.p++, s.len--;
    while (s.len && is_space(s.p[s.len - 1]))
        s.len--;
    return s;
}

/* True: the token was not tried before. A token of nothing but spaces is known by its id alone. */
static bool try_token(struct navigation *v, struct nav_token t)
{
    struct slice text = trim(t.text);
    if (set_has(&v->ids, (const char *)&t.id, sizeof t.id) || (text.len && set_has(&v->tokens, text.p, text.len)))
        return false;
    set_add(&v->ids, (const char *)&t.id, sizeof t.id);
    if (text.len)
        set_add(&v->tokens, text.p, text.len);
    v->failed |= v->ids.failed || v->tokens.failed;
    return true;
}

int32_t nav_pick(struct navigation *v, const struct nav_token *ranked, int32_t n, int32_t most, int32_t *picked)
{
    int32_t n_picked = 0;
    for (int32_t i = 0; i < n && n_picked < most && !v->failed; i++)
        if (try_token(v, ranked[i]))
            picked[n_picked++] = i;
    return n_picked;
}

bool nav_find(struct navigation *v, const char *item, size_t n)
{
    struct text_buf folded = {0};
    struct slice s = trim((struct slice){item, n});
    for (size_t i = 0; i < s.len; i++)
        if (!is_space(s.p[i]))
            tb_add(&folded, &(char){s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] + ('a' - 'A') : s.p[i]}, 1);
        else if (!is_space(s.p[i - 1]))
            tb_add(&folded, " ", 1);
    bool is_new = folded.n > 0 && !set_has(&v->items, folded.p, folded.n);
    if (is_new)
        set_add(&v->items, folded.p, folded.n);
    v->n_item += is_new;
    v->failed |= folded.failed || v->items.failed;
    tb_free(&folded);
    return is_new;
}

/* ---- Items in texts ---- */

struct slice nav_cut(const char *text, size_t n, const char *stop, bool *ended)
{
    const char *at = n ? memmem(text, n, stop, strlen(stop)) : NULL;
    *ended = at != NULL;
    return trim((struct slice){n ? text : "", at ? (size_t)(at - text) : n});
}

/* What opens an item that `stop` ends; "" when nothing does. */
static const char *opening_of(const char *stop)
{
    static const char *const pair[][2] = {{"\"", "\""}, {"'", "'"}, {"`", "`"}, {")", "("}, {"]", "["},
                                          {"}", "{"},   {">", "<"}, {"»", "«"}, {"”", "“"}, {"’", "‘"}};
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++)
        if (!strncmp(stop, pair[i][0], strlen(pair[i][0])))
            return pair[i][1];
    return "";
}

static void write_item(struct text_buf *b, struct slice item, const char *stop, const char *opening)
{
    bool after_space = false;
    for (size_t i = 0; i < item.len; i++) {
        char c = item.p[i];
        bool space = is_space(c) || iscntrl((unsigned char)c);
        if (*opening && (c == '\\' || c == opening[0] || c == stop[0]) && !(c & 0x80))
            tb_str(b, "\\");
        if (!space)
            tb_add(b, &c, 1);
        else if (!after_space)
            tb_str(b, " ");
        after_space = space;
    }
}

void nav_write_line(struct text_buf *b, int32_t number, struct slice item, const char *stop)
{
    const char *opening = opening_of(stop);
    tb_printf(b, "%d. %s", number, opening);
    write_item(b, item, stop, opening);
    tb_str(b, stop);
    if (stop[strlen(stop) - 1] != '\n')
        tb_str(b, "\n");
}

/* No space at its end: models begin words with theirs. */
void nav_write_opening(struct text_buf *b, int32_t number, const char *stop)
{
    const char *opening = opening_of(stop);
    tb_printf(b, "%d.%s%s", number, *opening ? " " : "", opening);
}
