/* `galley ngram build` below the command line: documents, separators, marks of beginning and end. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/gguf.h"
#include "ngram/documents.h"
#include "ngram_build.h"
#include "ngram_rig.h"
#include "tiny_gguf.h"
#include "tokenizer.h"
#include "../suite.h"

static char *model;
static char out[256], want_path[256], text_path[2][256];
static struct tokenizer *tok;

static void setup(void)
{
    struct gguf *g;
    struct err e = {0};
    model = tiny_gguf_write("llama", 64, 1, 0);
    ck_assert_int_eq(gguf_open(&g, model, &e), 0);
    ck_assert_int_eq(tok_from_gguf(&tok, g, &e), 0);
    gguf_close(g);
    rig_path(out, "ngram-build");
    rig_path(want_path, "ngram-build-want");
    rig_path(text_path[0], "ngram-build-text");
    rig_path(text_path[1], "ngram-build-text2");
}

static void teardown(void)
{
    unlink(model);
    free(model);
    unlink(out);
    unlink(want_path);
    unlink(text_path[0]);
    unlink(text_path[1]);
    tok_free(tok);
}

static void write_text(int i, const char *text, size_t n)
{
    FILE *f = fopen(text_path[i], "wb");
    ck_assert_uint_eq(fwrite(text, 1, n, f), n);
    fclose(f);
}

static struct ngram_build_options options(int n_text)
{
    static const char *path[2];
    path[0] = text_path[0];
    path[1] = text_path[1];
    return (struct ngram_build_options){.model_path = model,
                                        .out_path = out,
                                        .text_path = path,
                                        .n_text = n_text,
                                        .max_n = 4,
                                        .min_count = 1,
                                        .memory_bytes = 1 << 20};
}

/* A document as it is in one piece: its tokens and an end. */
static void add_document(struct text *t, const char *text, size_t n_byte, int flags)
{
    int32_t *ids = malloc((n_byte + 1) * sizeof *ids);
    struct tok_scratch *s = tok_scratch_new(tok);
    struct err e = {0};
    size_t n;
    ck_assert_msg(!tok_encode(tok, text, n_byte, flags, ids, n_byte, &n, s, &e), "%s", e.msg);
    if (n && ids[n - 1] != TINY_EOS && ids[n - 1] != TINY_IM_END)
        ids[n++] = TINY_EOS;
    text_add(t, ids, n);
    free(ids);
    tok_scratch_free(s);
}

/* The store that was built is, to the byte, that of these documents. Frees them. */
static void expect(struct text *t)
{
    struct ngram_write_options o = {
        .n_vocab = tok_n_vocab(tok), .max_n = 4, .fingerprint = ngram_fingerprint(tok), .min_count = 1};
    struct ngram_header h;
    struct err e = {0};
    size_t n, n_want;
    ck_assert_int_eq(rig_write(want_path, t, &o, 1 << 20, &h, &e), 0);
    uint8_t *data = rig_read(out, &n), *want = rig_read(want_path, &n_want);
    ck_assert_uint_eq(((const struct ngram_header *)(const void *)data)->n_doc, t->n_doc);
    ck_assert_uint_eq(((const struct ngram_header *)(const void *)data)->n_token, t->n_token);
    ck_assert(n == n_want && !memcmp(data, want, n));
    free(data);
    free(want);
    text_free(t);
}

static void build(const struct ngram_build_options *o)
{
    struct ngram_build_report r;
    struct err e = {0};
    ck_assert_msg(!ngram_build(o, &r, &e), "%s", e.msg);
}

START_TEST(a_file_is_a_document)
{
    static const char a[] = "bad cab dead face\n", b[] = "a bead; ---\nbad<|im_end|>";
    struct ngram_build_options o = options(2);
    struct text t = {0};
    write_text(0, a, sizeof a - 1);
    write_text(1, b, sizeof b - 1);
    build(&o);
    add_document(&t, a, sizeof a - 1, 0);
    add_document(&t, b, sizeof b - 1, 0);
    expect(&t);
    o.parse_special = true; /* then the second has an end already */
    build(&o);
    t = (struct text){0};
    add_document(&t, a, sizeof a - 1, 0);
    add_document(&t, b, sizeof b - 1, TOK_PARSE_SPECIAL);
    ck_assert_int_eq(t.tok[t.n - 2], TINY_IM_END);
    expect(&t);
    struct ngram *g;
    ck_assert_int_eq(ngram_open(&g, out, tok, NULL), 0);
    ngram_close(g);
}
END_TEST

START_TEST(separators_are_whole_lines)
{
    static const char text[] = "---\n---\nbad cab\n---\nface\r\n---\r\n--- \n ---\n----\n\n---\n\n---\nend\n---";
    static const char *const doc[] = {"bad cab", "face", "--- \n ---\n----\n", "", "end"};
    struct ngram_build_options o = options(1);
    struct text t = {0};
    o.separator = "---";
    write_text(0, text, sizeof text - 1);
    build(&o);
    for (size_t i = 0; i < sizeof doc / sizeof *doc; i++)
        add_document(&t, doc[i], strlen(doc[i]), 0);
    ck_assert_uint_eq(t.n_doc, 4); /* an empty one is none */
    expect(&t);
}
END_TEST

/* Words and lines of many kinds; `lines` 0: a single line of characters of two bytes. */
static char *long_text(struct rnd *r, size_t n, bool lines)
{
    static const char *const end[] = {"\n", ".\n", " ", " ", " ", "\n\n", " \n", "\r\n", "! "};
    char *text = malloc(n + 64), *at = text;
    while (at < text + n) {
        if (!lines) {
            at += sprintf(at, "\xc3\xa9");
            continue;
        }
        for (int32_t k = rnd_int(r, 1, 8); k > 0; k--)
            *at++ = (char)rnd_int(r, 'a', 'h');
        at += sprintf(at, "%s", end[rnd_int(r, 0, 8)]);
    }
    *at = 0;
    return text;
}

START_TEST(long_documents_are_cut_without_a_trace)
{
    struct rnd r = rnd_begin("long_documents_are_cut_without_a_trace", 9);
    for (int lines = 0; lines < 2; lines++) {
        char *text = long_text(&r, 2500001, lines);
        struct ngram_build_options o = options(1);
        struct text t = {0};
        write_text(0, text, strlen(text));
        build(&o);
        add_document(&t, text, strlen(text), 0);
        expect(&t);
        free(text);
    }
}
END_TEST

/* With GPT-2's way of cutting, two line breaks are one word at the end of a text and two before a letter: a cut behind
 * them would show. */
START_TEST(no_cut_shows_among_line_breaks)
{
    static const char *const merge[] = {"\xc4\x8a \xc4\x8a"}; /* U+010A: the line break */
    struct ngram_counter *c;
    struct documents *d;
    struct err e = {0};
    char *text = malloc(1100064), *at = text;
    for (int i = 0; at < text + 1100000; i++) /* single ones are rare */
        at += sprintf(at, i % 50 ? "face\n\n" : "face\n");
    tok_free(tok);
    ck_assert_int_eq(tok_new_tiny(&tok, "gpt-2", merge, 1, &e), 0);
    write_text(0, text, strlen(text));
    ck_assert_int_eq(ngram_counter_open(&c, out, 4, 1 << 24, &e), 0);
    ck_assert_int_eq(documents_open(&d, tok, c, NULL, false, &e), 0);
    ck_assert_int_eq(documents_read(d, text_path[0], NULL, NULL, &e), 0);
    size_t n, n_byte = strlen(text);
    int32_t *ids = malloc(n_byte * sizeof *ids);
    struct tok_scratch *s = tok_scratch_new(tok);
    ck_assert_int_eq(tok_encode(tok, text, n_byte, 0, ids, n_byte, &n, s, &e), 0);
    ck_assert_uint_eq(ngram_counter_n_token(c), n + 1); /* and the end */
    documents_close(d);
    ngram_counter_close(c);
    tok_scratch_free(s);
    free(ids);
    free(text);
}
END_TEST

/* A separator at every place around the end of the buffer of 1 MiB. */
START_TEST(a_separator_may_lie_anywhere)
{
    enum { MIB = 1 << 20 };
    static const char tail[] = "\nSEPARATOR\r\nbad face\n";
    char *text = malloc(MIB + 64);
    for (int kind = 0; kind < 3; kind++)
        for (int back = 0; back <= (int)sizeof tail; back++) {
            size_t n = (size_t)(MIB - back);
            struct ngram_build_options o = options(1);
            struct text t = {0};
            for (size_t i = 0; i < n; i++)
                text[i] = "bad face "[i % 9];
            if (kind) /* lines before it; else it is the first line break */
                for (size_t i = kind == 1 ? 50 : n - 2; i < n; i += 50)
                    text[i] = '\n';
            memcpy(text + n, tail, sizeof tail - 1);
            write_text(0, text, n + sizeof tail - 1);
            o.separator = "SEPARATOR";
            build(&o);
            struct ngram *g;
            ck_assert_int_eq(ngram_open(&g, out, tok, NULL), 0);
            ck_assert_uint_eq(g->n_doc, 2);
            ngram_close(g);
            if (kind == 1 && back % 5 == 0) { /* cut at line breaks: nothing else shows either */
                add_document(&t, text, n, 0);
                add_document(&t, "bad face\n", 9, 0);
                expect(&t);
            }
        }
    free(text);
}
END_TEST

START_TEST(what_is_refused)
{
    struct ngram_build_report r;
    struct err e = {0};
    static const char *const missing[] = {"/nonexistent/text"};
    struct ngram_build_options good = options(1), o = good;
    write_text(0, "", 0);
    ck_assert_int_eq(ngram_build(&o, &r, &e), -ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "no n-grams"));
    write_text(0, "bad cab", 7);
    o.min_count = 2;
    ck_assert_int_eq(ngram_build(&o, &r, &e), -ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.msg, "frequent enough"));
    o = good;
    o.min_count = 0;
    ck_assert_int_eq(ngram_build(&o, &r, &e), -ERR_INVALID);
    o = good;
    o.max_n = 7;
    ck_assert_int_eq(ngram_build(&o, &r, &e), -ERR_INVALID);
    o = good;
    o.separator = "two\nlines";
    ck_assert_int_eq(ngram_build(&o, &r, &e), -ERR_INVALID);
    o = good;
    o.text_path = missing;
    ck_assert_int_eq(ngram_build(&o, &r, &e), -ERR_NOTFOUND);
    o = good;
    o.model_path = text_path[0];
    ck_assert_int_eq(ngram_build(&o, &r, &e), -ERR_FORMAT);
    o = good;
    o.text_path = (const char *const[]){"/"};
    ck_assert_int_eq(ngram_build(&o, &r, &e), -ERR_IO);
    ck_assert_int_eq(access(out, F_OK), -1);
    ck_assert_int_eq(ngram_build(&good, &r, &e), 0);
    ck_assert_uint_eq(r.n_doc, 1);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ngram_build");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_file_is_a_document);
    tcase_add_test(tc, separators_are_whole_lines);
    tcase_add_test(tc, long_documents_are_cut_without_a_trace);
    tcase_add_test(tc, no_cut_shows_among_line_breaks);
    tcase_add_test(tc, a_separator_may_lie_anywhere);
    tcase_add_test(tc, what_is_refused);
    return suite_run(tc);
}
