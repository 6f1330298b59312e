/* tokenizer.json of every kind that is read, against the ids that the tokenizers library makes
 * (tests/golden/hf/make.py), and what is refused. */
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <jansson.h>

#include "../unit/suite.h"
#include "tokenizer.h"

#define TOKENIZERS GOLDEN_DIR "/hf/tokenizers/"

static const char *const kinds[] = {"gpt2",    "llama3",    "qwen2", "smollm",  "deepseek",     "llama2",
                                    "mistral", "metaspace", "gemma", "unigram", "unigram-bytes"};
enum { N_KIND = sizeof kinds / sizeof *kinds };

static void path_of(char out[512], const char *kind, const char *file)
{
    snprintf(out, 512, TOKENIZERS "%s%s%s", kind, *file ? "/" : "", file);
}

static struct tokenizer *open_kind(const char *kind)
{
    char dir[512];
    struct tokenizer *t;
    struct err e;
    path_of(dir, kind, "");
    ck_assert_msg(!tok_from_hf(&t, dir, NULL, 0, &e), "%s: %s", kind, e.msg);
    return t;
}

static void check_text(const struct tokenizer *t, const char *kind, const json_t *one)
{
    enum { CAP = 512 };
    const json_t *text = json_object_get(one, "text"), *ids = json_object_get(one, "ids");
    struct tok_scratch *s = tok_scratch_new(t);
    struct err e;
    int32_t got[CAP];
    size_t n;
    ck_assert_msg(!tok_encode(t, json_string_value(text), json_string_length(text), TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL,
                              got, CAP, &n, s, &e),
                  "%s", e.msg);
    bool same = n == json_array_size(ids);
    for (size_t i = 0; same && i < n; i++)
        same = got[i] == json_integer_value(json_array_get(ids, i));
    if (!same) {
        printf("got ");
        for (size_t i = 0; i < n; i++)
            printf(" %d", got[i]);
        char *want = json_dumps(ids, 0);
        printf("\nwant %s\n", want);
        free(want);
    }
    ck_assert_msg(same, "%s: '%s'", kind, json_string_value(text));
    tok_scratch_free(s);
}

START_TEST(ids_are_the_librarys)
{
    char path[512];
    struct tokenizer *t = open_kind(kinds[_i]);
    path_of(path, kinds[_i], "expected.json");
    json_t *all = json_load_file(path, 0, NULL);
    ck_assert_uint_ge(json_array_size(all), 20);
    for (size_t i = 0; i < json_array_size(all); i++)
        check_text(t, kinds[_i], json_array_get(all, i));
    json_decref(all);
    tok_free(t);
}
END_TEST

START_TEST(roles_come_from_the_files)
{
    char dir[512];
    struct tokenizer *t = open_kind("llama3");
    struct err e;
    ck_assert(tok_adds_bos(t) && !tok_adds_eos(t) && tok_ids(t)->bos >= 0);
    ck_assert(tok_is_eog(t, tok_ids(t)->eos) && tok_is_control(t, tok_ids(t)->bos));
    ck_assert_int_eq(tok_find(t, slice_of("<keep>")), tok_n_vocab(t) - 1);
    ck_assert(!tok_is_control(t, tok_n_vocab(t) - 1));
    tok_free(t);
    path_of(dir, "gpt2", "");
    ck_assert(!tok_from_hf(&t, dir, (int32_t[]){3, 99999}, 2, &e));
    ck_assert(!tok_adds_bos(t) && tok_is_eog(t, 3) && !tok_is_eog(t, 4));
    tok_free(t);
}
END_TEST

/* A directory with one edited tokenizer.json: `key` of the file replaced by a JSON text. */
static void expect_refusal_of(const char *kind, const char *key, const char *value, const char *message)
{
    char path[512], dir[] = "/tmp/galley-tok-XXXXXX";
    struct tokenizer *t;
    struct err e;
    path_of(path, kind, "tokenizer.json");
    json_t *file = json_load_file(path, 0, NULL);
    json_object_set_new(file, key, json_loads(value, JSON_DECODE_ANY, NULL));
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    ck_assert_int_eq(json_dump_file(file, path, 0), 0);
    json_decref(file);
    ck_assert_int_eq(tok_from_hf(&t, dir, NULL, 0, &e), -ERR_FORMAT);
    ck_assert_msg(strstr(e.msg, message) != NULL, "%s", e.msg);
    unlink(path);
    rmdir(dir);
}

static void expect_refusal(const char *key, const char *value, const char *message)
{
    expect_refusal_of("gpt2", key, value, message);
}

START_TEST(what_is_unknown_is_refused)
{
    struct tokenizer *t;
    struct err e;
    expect_refusal("normalizer", "{\"type\": \"Lowercase\"}", "normalizer 'Lowercase'");
    expect_refusal("pre_tokenizer", "{\"type\": \"Whitespace\"}", "pre_tokenizer 'Whitespace'");
    expect_refusal("pre_tokenizer",
                   "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}, \"behavior\": \"Isolated\"}",
                   "does not compile");
    expect_refusal("post_processor", "{\"type\": \"BertProcessing\"}", "post_processor 'BertProcessing'");
    expect_refusal("model", "{\"type\": \"WordPiece\"}", "model 'WordPiece'");
    expect_refusal("model", "{\"type\": \"Unigram\"}", "Metaspace");
    expect_refusal_of("unigram", "model", "{\"type\": \"Unigram\", \"vocab\": {\"a\": 0}}", "model.vocab");
    expect_refusal_of("unigram", "model", "{\"type\": \"Unigram\", \"vocab\": [[\"a\", -1], [\"b\"]]}", "token 1");
    expect_refusal_of("unigram", "model", "{\"type\": \"Unigram\", \"unk_id\": 9999999999, \"vocab\": [[\"a\", -1]]}",
                      "special token id");
    expect_refusal("model", "{\"type\": \"BPE\", \"vocab\": [], \"merges\": []}", "model.vocab");
    expect_refusal("model", "{\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}", "'a'");
    expect_refusal("model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}", "merge 0");
    expect_refusal("model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a a\"]}", "merge 0");
    ck_assert_int_eq(tok_from_hf(&t, "/nonexistent", NULL, 0, &e), -ERR_NOTFOUND);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("tok_hf");
    tcase_add_loop_test(tc, ids_are_the_librarys, 0, N_KIND);
    tcase_add_test(tc, roles_come_from_the_files);
    tcase_add_test(tc, what_is_unknown_is_refused);
    return suite_run(tc);
}
