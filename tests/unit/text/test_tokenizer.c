/* engine/text/{tokenizer,vocab,special,normalize,tok_gguf}.c on small vocabularies. */
#include <check.h>
#include <pthread.h>

#include "mem.h"
#include "../suite.h"
#include "text/tok_impl.h"
#include "tok_help.h"

static const char *const merges[] = {"h e", "l l", "he ll", "hell o", "\u0120 w", "\u0120w o", "i n"};
enum { N_MERGE = sizeof merges / sizeof *merges, HE = TOK_TINY_MERGE0, LL, HELL, HELLO, _W, _WO, IN };

static struct tokenizer *tiny(const char *pre)
{
    struct tokenizer *t;
    struct err e;
    ck_assert_msg(tok_new_tiny(&t, pre, merges, N_MERGE, &e) == 0, "%s", e.msg);
    return t;
}

START_TEST(test_merges)
{
    struct tokenizer *t = tiny("gpt-2");
    EXPECT_IDS(t, "hello", 0, HELLO);
    EXPECT_IDS(t, "hello world", 0, HELLO, _WO, 'r', 'l', 'd');
    EXPECT_IDS(t, "hellhe", 0, HELL, HE);
    EXPECT_IDS(t, "\u00e9", 0, 0xc3, 0xa9);
    size_t n;
    free(encode(t, slice_of(""), TOK_ADD_SPECIAL, &n));
    ck_assert_uint_eq(n, 0);
    tok_free(t);
}
END_TEST

START_TEST(test_special_tokens_in_text)
{
    struct tokenizer *t = tiny("gpt-2");
    EXPECT_IDS(t, "in<|im_end|>in", TOK_PARSE_SPECIAL, IN, TOK_TINY_IM_END, IN);
    EXPECT_IDS(t, "<|im_start|><|im_end|>", TOK_PARSE_SPECIAL, TOK_TINY_IM_START, TOK_TINY_IM_END);
    EXPECT_IDS(t, "<|im_", TOK_PARSE_SPECIAL, '<', '|', 'i', 'm', '_');
    EXPECT_IDS(t, "<|<|im_end|>", TOK_PARSE_SPECIAL, '<', '|', TOK_TINY_IM_END);
    EXPECT_IDS(t, "<|im_end|>", 0, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>');
    tok_free(t);
}
END_TEST

START_TEST(test_room)
{
    struct tokenizer *t = tiny("gpt-2");
    struct tok_scratch *s = tok_scratch_new(t);
    struct err e;
    int32_t out[4] = {-7, -7, -7, -7};
    size_t n;
    ck_assert_int_eq(tok_encode(t, "abcdef", 6, 0, out, 3, &n, s, &e), -ERR_TOOLONG);
    ck_assert_uint_eq(n, 6);
    ck_assert(out[2] == 'c' && out[3] == -7);
    ck_assert_int_eq(tok_encode(t, "abcdef", 6, 0, NULL, 0, &n, s, &e), -ERR_TOOLONG);
    ck_assert_uint_eq(n, 6);
    ck_assert_int_eq(tok_encode(t, "abcd", 4, 0, out, 4, &n, s, &e), 0);
    tok_scratch_free(s);
    tok_free(t);
}
END_TEST

START_TEST(test_any_bytes_come_back)
{
    static const char *const pre[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
    uint64_t seed = 3;
    for (int k = 0; k < 4; k++) {
        struct tokenizer *t = tiny(pre[k]);
        for (int round = 0; round < 500; round++) {
            char text[64], back[600];
            size_t len = test_random(&seed) % sizeof text, n, n_back = 0;
            for (size_t i = 0; i < len; i++) /* qwen2 would normalise valid text: bytes that make none */
                text[i] = (char)(round % 2 && k != 3 ? test_random(&seed) % 256
                                                     : (uint8_t) "hello w\xff\x80<|"[test_random(&seed) % 11]);
            int32_t *id = encode(t, (struct slice){text, len}, round % 3 ? TOK_PARSE_SPECIAL : 0, &n);
            for (size_t i = 0; i < n; i++) {
                struct slice piece = tok_piece(t, id[i]);
                memcpy(back + n_back, piece.p, piece.len);
                n_back += piece.len;
            }
            ck_assert(n_back == len && !memcmp(back, text, len));
            free(id);
        }
        tok_free(t);
    }
}
END_TEST

START_TEST(test_lookups)
{
    struct tokenizer *t = tiny("gpt-2");
    int32_t n;
    ck_assert_int_eq(tok_n_vocab(t), TOK_TINY_MERGE0 + N_MERGE);
    ck_assert(slice_eq(tok_piece(t, _WO), " wo"));
    ck_assert(slice_eq(tok_piece(t, TOK_TINY_IM_END), "<|im_end|>"));
    ck_assert_uint_eq(tok_piece(t, -1).len, 0);
    ck_assert_uint_eq(tok_piece(t, 100000).len, 0);
    ck_assert_int_eq(tok_find(t, slice_of(" wo")), _WO);
    ck_assert_int_eq(tok_find(t, slice_of("<|im_end|>")), TOK_TINY_IM_END);
    ck_assert_int_eq(tok_find(t, slice_of("<|im_end")), -1);
    ck_assert_int_eq(tok_find(t, slice_of("")), -1);
    for (int b = 0; b < 256; b++)
        ck_assert_int_eq(tok_find(t, (struct slice){&(char){(char)b}, 1}), b);
    ck_assert(tok_is_control(t, TOK_TINY_EOT) && !tok_is_control(t, HELLO) && tok_is_control(t, 100000));
    ck_assert(tok_is_eog(t, TOK_TINY_EOT) && tok_is_eog(t, TOK_TINY_IM_END) && !tok_is_eog(t, TOK_TINY_IM_START));
    const int32_t *eog = tok_eog(t, &n);
    ck_assert(n == 2 && eog[0] == TOK_TINY_EOT && eog[1] == TOK_TINY_IM_END);
    ck_assert_int_eq(tok_ids(t)->eos, TOK_TINY_EOT);
    ck_assert_int_eq(tok_ids(t)->eot, TOK_TINY_IM_END);
    ck_assert_int_eq(tok_ids(t)->pad, -1);
    ck_assert(!tok_adds_bos(t) && !tok_adds_eos(t));
    tok_free(t);
}
END_TEST

/* ---- vocabularies by hand ---- */

enum { MAX_TOKEN = 300 };

static const struct tok_ids no_ids = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

struct hand {
    struct slice text[MAX_TOKEN], merge[16];
    int32_t type[MAX_TOKEN];
    struct tok_config c;
};

static void hand_init(struct hand *h, const char *pre)
{
    memset(h, 0, sizeof *h);
    h->c = (struct tok_config){
        .pre = pre, .text = h->text, .type = h->type, .merge = h->merge, .ids = no_ids, .add_bos = -1, .add_eos = -1};
}

static int32_t hand_token(struct hand *h, const char *text, int type)
{
    h->text[h->c.n_vocab] = slice_of(text);
    h->type[h->c.n_vocab] = type;
    return h->c.n_vocab++;
}

START_TEST(test_user_defined_and_longest_match)
{
    struct hand h;
    struct tokenizer *t;
    struct err e;
    hand_init(&h, "gpt-2");
    int32_t a = hand_token(&h, "a", TOK_NORMAL), think = hand_token(&h, "<think>", TOK_USER_DEFINED);
    int32_t lt = hand_token(&h, "<t", TOK_USER_DEFINED), ctrl = hand_token(&h, "<think>a</think>", TOK_CONTROL);
    int32_t sp = hand_token(&h, "   ", TOK_USER_DEFINED), unused = hand_token(&h, "[unused]", TOK_UNUSED);
    ck_assert_int_eq(tok_new(&t, &h.c, &e), 0);
    EXPECT_IDS(t, "a<think>a", 0, a, think, a);
    EXPECT_IDS(t, "<ta<think>", 0, lt, a, think);
    EXPECT_IDS(t, "<think>a</think>", TOK_PARSE_SPECIAL, ctrl);
    EXPECT_IDS(t, "a   a", 0, a, sp, a);
    EXPECT_IDS(t, "[unused]a", TOK_PARSE_SPECIAL, a); /* bytes without a token are dropped, as by its peers */
    ck_assert(tok_is_control(t, unused) && !tok_is_control(t, think));
    tok_free(t);
}
END_TEST

START_TEST(test_ignore_merges_and_bos)
{
    struct hand h;
    struct tokenizer *t;
    struct err e;
    hand_init(&h, "llama-bpe");
    int32_t a = hand_token(&h, "a", TOK_NORMAL), b = hand_token(&h, "b", TOK_NORMAL),
            ab = hand_token(&h, "ab", TOK_NORMAL);
    int32_t bos = hand_token(&h, "<s>", TOK_CONTROL), eos = hand_token(&h, "</s>", TOK_CONTROL);
    h.c.ids.bos = bos;
    h.c.ids.eos = eos;
    ck_assert_int_eq(tok_new(&t, &h.c, &e), 0);
    EXPECT_IDS(t, "ab", 0, ab);
    EXPECT_IDS(t, "ab", TOK_ADD_SPECIAL, bos, ab);
    tok_free(t);
    h.c.pre = "gpt-2"; /* without a merge the whole word is out of reach */
    h.c.add_bos = h.c.add_eos = 1;
    ck_assert_int_eq(tok_new(&t, &h.c, &e), 0);
    EXPECT_IDS(t, "ab", 0, a, b);
    EXPECT_IDS(t, "ab", TOK_ADD_SPECIAL, bos, a, b, eos);
    tok_free(t);
}
END_TEST

START_TEST(test_byte_and_unknown_tokens)
{
    struct hand h;
    struct tokenizer *t;
    struct err e;
    hand_init(&h, "gpt-2");
    int32_t unk = hand_token(&h, "<unk>", TOK_UNKNOWN), x0a = hand_token(&h, "<0x0A>", TOK_BYTE);
    h.c.ids.unk = unk;
    ck_assert_int_eq(tok_new(&t, &h.c, &e), 0);
    EXPECT_IDS(t, "z\n", 0, unk, x0a);
    ck_assert(slice_eq(tok_piece(t, x0a), "\n"));
    tok_free(t);
}
END_TEST

START_TEST(test_harmony_end_is_no_end)
{
    struct hand h;
    struct tokenizer *t;
    struct err e;
    hand_init(&h, "gpt-2");
    int32_t end = hand_token(&h, "<|end|>", TOK_CONTROL), ret = hand_token(&h, "<|return|>", TOK_CONTROL);
    h.c.ids.eos = ret;
    ck_assert_int_eq(tok_new(&t, &h.c, &e), 0);
    ck_assert(tok_is_eog(t, end));
    tok_free(t);
    int32_t call = hand_token(&h, "<|call|>", TOK_CONTROL);
    h.c.ids.eot = call;
    ck_assert_int_eq(tok_new(&t, &h.c, &e), 0);
    ck_assert(!tok_is_eog(t, end) && tok_is_eog(t, ret) && tok_is_eog(t, call));
    tok_free(t);
}
END_TEST

START_TEST(test_refusals)
{
    static const struct {
        const char *merge, *reason;
    } bad[] = {{"a", "not two tokens"},
               {"a ", "not two tokens"},
               {"a z", "not in the vocabulary"},
               {"b a", "not in the vocabulary"}};
    struct hand h;
    struct tokenizer *t;
    struct err e;
    for (int i = 0; i < 4; i++) {
        hand_init(&h, NULL);
        hand_token(&h, "a", TOK_NORMAL);
        hand_token(&h, "b", TOK_NORMAL);
        h.merge[0] = slice_of(bad[i].merge);
        h.c.n_merge = 1;
        ck_assert_int_eq(tok_new(&t, &h.c, &e), -ERR_FORMAT);
        ck_assert_ptr_null(t);
        ck_assert_msg(strstr(e.msg, bad[i].reason) != NULL, "%s", e.msg);
    }
    hand_init(&h, "unheard-of");
    hand_token(&h, "a", TOK_NORMAL);
    ck_assert_int_eq(tok_new(&t, &h.c, &e), -ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "unheard-of"));
    hand_init(&h, NULL);
    ck_assert_int_eq(tok_new(&t, &h.c, &e), -ERR_FORMAT);
    hand_token(&h, "a", 9);
    ck_assert_int_eq(tok_new(&t, &h.c, &e), -ERR_FORMAT);
    h.type[0] = TOK_NORMAL;
    h.c.ids.eos = 1;
    ck_assert_int_eq(tok_new(&t, &h.c, &e), -ERR_FORMAT);
}
END_TEST

/* ---- normalisation ---- */

static void expect_nfc(const char *text, const char *want)
{
    struct normal_scratch s = {0};
    struct slice out;
    ck_assert_int_eq(normalize_nfc(&s, slice_of(text), &out), 0);
    ck_assert_msg(slice_eq(out, want), "'%s' becomes '%.*s'", text, (int)out.len, out.p);
    mem_free(s.cp);
    mem_free(s.text);
}

START_TEST(test_nfc)
{
    expect_nfc("plain", "plain");
    expect_nfc("", "");
    expect_nfc("e\u0301", "\u00e9");
    expect_nfc("xe\u0301y e\u0301", "x\u00e9y \u00e9");
    expect_nfc("\u0301", "\u0301");
    expect_nfc("a\u0301\u0323", "\u1ea1\u0301"); /* marks are ordered first */
    expect_nfc("\u1112\u1161\u11ab", "\ud55c");
    expect_nfc("\u212b \uf900 \u0958", "\u00c5 \u8c48 \u0915\u093c"); /* singletons, and one excluded from composing */
    expect_nfc("ok \u4f60\u597d ok", "ok \u4f60\u597d ok");
}
END_TEST

/* Sorting marks must not take quadratic time: an endless run stays as it is. */
START_TEST(test_nfc_endless_marks)
{
    enum { N = 100000 };
    char *text = malloc(4 * N + 1);
    for (int i = 0; i < N; i++)
        memcpy(text + 4 * i, "\u0301\u0323", 4);
    struct normal_scratch s = {0};
    struct slice out;
    ck_assert_int_eq(normalize_nfc(&s, (struct slice){text, 4 * N}, &out), 0);
    ck_assert(out.len == 4 * N && !memcmp(out.p, text, 4 * N));
    mem_free(s.cp);
    mem_free(s.text);
    free(text);
}
END_TEST

/* ---- memory, threads ---- */

START_TEST(test_warm_scratch_allocates_nothing)
{
    static const char text[] =
        "hello world, he\u0301llo \u4f60\u597d <|im_end|> 0123456789 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct tokenizer *t = tiny("qwen2");
    struct tok_scratch *s = tok_scratch_new(t);
    struct err e;
    int32_t out[200];
    size_t n;
    for (int round = 0; round < 3; round++) {
        unsigned long before = mem_thread_count();
        ck_assert_int_eq(tok_encode(t, text, strlen(text), TOK_PARSE_SPECIAL, out, 200, &n, s, &e), 0);
        ck_assert(round == 0 || mem_thread_count() == before);
    }
    tok_scratch_free(s);
    tok_free(t);
}
END_TEST

START_TEST(test_out_of_memory)
{
    static const char text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa e\u0301";
    struct tokenizer *t;
    struct err e;
    int rc = -1;
    for (int nth = 1; rc; nth++) {
        mem_fail_nth(nth);
        rc = tok_new_tiny(&t, "qwen2", merges, N_MERGE, &e);
        mem_fail_nth(0);
        ck_assert(rc == 0 || rc == -ERR_NOMEM);
        ck_assert_int_lt(nth, 100);
    }
    struct tok_scratch *s = NULL;
    for (int nth = 1; !s; nth++) {
        mem_fail_nth(nth);
        s = tok_scratch_new(t);
        mem_fail_nth(0);
        ck_assert_int_lt(nth, 100);
    }
    rc = -1;
    for (int nth = 1; rc; nth++) {
        int32_t out[100];
        size_t n;
        mem_fail_nth(nth);
        rc = tok_encode(t, text, strlen(text), 0, out, 100, &n, s, &e);
        mem_fail_nth(0);
        ck_assert(rc == 0 || rc == -ERR_NOMEM);
        ck_assert_int_lt(nth, 100);
    }
    tok_scratch_free(s);
    tok_free(t);
}
END_TEST

struct job {
    const struct tokenizer *t;
    size_t n_token;
};

static void *encode_many(void *arg)
{
    struct job *job = arg;
    struct tok_scratch *s = tok_scratch_new(job->t);
    uint64_t seed = 17;
    for (int round = 0; round < 2000; round++) {
        char text[100];
        int32_t out[100];
        size_t n;
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = "hello win"[test_random(&seed) % 9];
        if (!s || tok_encode(job->t, text, sizeof text, 0, out, 100, &n, s, NULL))
            return NULL;
        for (size_t i = 0; i < n; i++)
            job->n_token += (size_t)out[i] * (i + 1);
    }
    tok_scratch_free(s);
    return NULL;
}

START_TEST(test_threads_agree)
{
    struct tokenizer *t = tiny("gpt-2");
    struct job job[4];
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) {
        job[i] = (struct job){.t = t};
        ck_assert_int_eq(pthread_create(&thread[i], NULL, encode_many, &job[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < 4; i++)
        ck_assert(job[i].n_token == job[0].n_token && job[i].n_token > 0);
    tok_free(t);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("tokenizer");
    tcase_add_test(tc, test_merges);
    tcase_add_test(tc, test_special_tokens_in_text);
    tcase_add_test(tc, test_room);
    tcase_add_test(tc, test_any_bytes_come_back);
    tcase_add_test(tc, test_lookups);
    tcase_add_test(tc, test_user_defined_and_longest_match);
    tcase_add_test(tc, test_ignore_merges_and_bos);
    tcase_add_test(tc, test_byte_and_unknown_tokens);
    tcase_add_test(tc, test_harmony_end_is_no_end);
    tcase_add_test(tc, test_refusals);
    tcase_add_test(tc, test_nfc);
    tcase_add_test(tc, test_nfc_endless_marks);
    tcase_add_test(tc, test_warm_scratch_allocates_nothing);
    tcase_add_test(tc, test_out_of_memory);
    tcase_add_test(tc, test_threads_agree);
    return suite_run(tc);
}
