/* engine/text/spm.c: merging by scores agrees with its definition on random vocabularies; what is no token falls back
 * to bytes, and to the unknown token where bytes have none; spaces. */
#include <check.h>
#include <math.h>

#include "mem.h"
#include "../suite.h"
#include "text/tok_impl.h"
#include "tok_help.h"

enum { MAX_VOCAB = 400, MAX_TEXT = 120 };

/* "<unk>", a token for each byte or none, then tokens of text. */
struct words {
    char text[MAX_VOCAB][16];
    struct slice slice[MAX_VOCAB];
    int32_t type[MAX_VOCAB];
    float score[MAX_VOCAB];
    int32_t n;
};

static void add(struct words *w, const char *text, int type, float score)
{
    snprintf(w->text[w->n], sizeof w->text[0], "%s", text);
    w->slice[w->n] = slice_of(w->text[w->n]);
    w->type[w->n] = type;
    w->score[w->n++] = score;
}

static void begin(struct words *w, bool with_bytes)
{
    w->n = 0;
    add(w, "<unk>", TOK_UNKNOWN, 0);
    for (int b = 0; b < 256 && with_bytes; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        add(w, name, TOK_BYTE, 0);
    }
}

static struct tokenizer *make(const struct words *w, bool space_prefix)
{
    struct tokenizer *t;
    struct err e;
    struct tok_config c = {.model = TOK_SENTENCEPIECE,
                           .n_vocab = w->n,
                           .text = w->slice,
                           .type = w->type,
                           .score = w->score,
                           .ids = {.bos = -1,
                                   .eos = -1,
                                   .eot = -1,
                                   .eom = -1,
                                   .unk = 0,
                                   .sep = -1,
                                   .pad = -1,
                                   .fim_prefix = -1,
                                   .fim_suffix = -1,
                                   .fim_middle = -1,
                                   .fim_pad = -1,
                                   .fim_repo = -1,
                                   .fim_sep = -1},
                           .prefix = space_prefix ? TOK_PREFIX_ALWAYS : TOK_PREFIX_NONE};
    ck_assert_msg(tok_new(&t, &c, &e) == 0, "%s", e.msg);
    return t;
}

/* The definition, on a text of one-byte characters: pieces are [at[i], at[i + 1]). Returns the pieces. */
static int merge_by_definition(const struct words *w, const struct tokenizer *t, const char *text, int n, int *at)
{
    int n_piece = n;
    for (int i = 0; i <= n; i++)
        at[i] = i;
    for (;;) {
        int best = -1;
        float score = 0;
        for (int i = 0; i + 1 < n_piece; i++) {
            int32_t id = vocab_find(&t->vocab, text + at[i], (size_t)(at[i + 2] - at[i]));
            if (id >= 0 && (best < 0 || w->score[id] > score)) {
                best = i;
                score = w->score[id];
            }
        }
        if (best < 0)
            return n_piece;
        memmove(at + best + 1, at + best + 2, (size_t)(n_piece - best - 1) * sizeof *at);
        n_piece--;
    }
}

static void random_word(uint64_t *seed, char *out)
{
    int n = 1 + (int)(test_random(seed) % 6);
    for (int i = 0; i < n; i++)
        out[i] = "aaabbc"[test_random(seed) % 6];
    out[n] = 0;
}

START_TEST(test_against_definition)
{
    static struct words w;
    uint64_t seed = 3;
    for (int round = 0; round < 300; round++) {
        begin(&w, true);
        for (int i = 0; i < 40; i++) {
            char word[8];
            random_word(&seed, word);
            add(&w, word, TOK_NORMAL, (float)(int)(test_random(&seed) % 12) - 6); /* many are equal */
        }
        struct tokenizer *t = make(&w, false);
        for (int k = 0; k < 20; k++) {
            char text[MAX_TEXT];
            int at[MAX_TEXT + 1], n = 1 + (int)(test_random(&seed) % MAX_TEXT);
            for (int i = 0; i < n; i++)
                text[i] = "aaaabbbbcd"[test_random(&seed) % 10];
            size_t n_id, place = 0;
            int32_t *id = encode(t, (struct slice){text, (size_t)n}, 0, &n_id);
            int n_piece = merge_by_definition(&w, t, text, n, at);
            for (int i = 0; i < n_piece; i++, place++) {
                int32_t want = vocab_find(&t->vocab, text + at[i], (size_t)(at[i + 1] - at[i]));
                if (want < 0) /* a lone character that is no token */
                    want = 1 + (uint8_t)text[at[i]];
                ck_assert_msg(place < n_id && id[place] == want, "round %d: %.*s", round, n, text);
            }
            ck_assert_uint_eq(place, n_id);
            free(id);
        }
        tok_free(t);
    }
}
END_TEST

START_TEST(test_fallback)
{
    static struct words w;
    begin(&w, true);
    add(&w, "a", TOK_NORMAL, 0);
    struct tokenizer *t = make(&w, false);
    EXPECT_IDS(t, "a\xc3\xa9 \xff", 0, 257, 1 + 0xc3, 1 + 0xa9, 1 + ' ', 1 + 0xff);
    tok_free(t);
    begin(&w, false);
    add(&w, "a", TOK_NORMAL, 0);
    t = make(&w, false);
    EXPECT_IDS(t, "a\xc3\xa9 a", 0, 1, 0, 0, 1); /* a character that has no bytes is unknown once */
    tok_free(t);
}
END_TEST

START_TEST(test_spaces)
{
    static struct words w;
    begin(&w, true);
    add(&w, "\xe2\x96\x81", TOK_NORMAL, -1);
    add(&w,
        "\xe2\x96\x81"
        "a",
        TOK_NORMAL, 0);
    add(&w, "a", TOK_NORMAL, -2);
    add(&w, "<x>", TOK_CONTROL, 0);
    struct tokenizer *t = make(&w, true);
    ck_assert(slice_eq(tok_piece(t, 258), " a"));
    EXPECT_IDS(t, "a a", 0, 258, 258);
    EXPECT_IDS(t, " a", 0, 257, 258);
    EXPECT_IDS(t,
               "\xe2\x96\x81"
               "a",
               0, 257, 258); /* what stands for a space is one */
    EXPECT_IDS(t, "a<x>a<x>", TOK_PARSE_SPECIAL, 258, 260, 258, 260);
    tok_free(t);
    t = make(&w, false);
    EXPECT_IDS(t, "a a", 0, 259, 258);
    tok_free(t);
}
END_TEST

START_TEST(test_scores_must_be_numbers)
{
    static struct words w;
    struct tokenizer *t;
    struct err e;
    begin(&w, false);
    add(&w, "a", TOK_NORMAL, NAN);
    struct tok_config c = {.model = TOK_SENTENCEPIECE, .n_vocab = w.n, .text = w.slice, .score = w.score};
    ck_assert_int_eq(tok_new(&t, &c, &e), -ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "token 1"));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("spm");
    tcase_add_test(tc, test_against_definition);
    tcase_add_test(tc, test_fallback);
    tcase_add_test(tc, test_spaces);
    tcase_add_test(tc, test_scores_must_be_numbers);
    return suite_run(tc);
}
