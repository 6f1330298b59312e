/* Real vocabularies against the ids that ggml's own tests expect; needs ../shared/data. */
#include <check.h>
#include <time.h>

#include "../suite.h"
#include "tok_help.h"

static char *read_file(const char *name, const char *ext)
{
    char path[512];
    snprintf(path, sizeof path, "%s/data/tokenizers/ggml-vocab-%s.gguf.%s", GALLEY_SHARED_DIR, name, ext);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s is missing", path);
    char *text = calloc(1, 1 << 16);
    ck_assert_uint_lt(fread(text, 1, (1 << 16) - 1, f), (1 << 16) - 1);
    fclose(f);
    return text;
}

/* The file .inp has texts between separator lines, .out a line of ids for each. */
static void check_vectors(const struct tokenizer *t, const char *name)
{
    static const char sep[] = "\n__ggml_vocab_test__\n";
    char *inp = read_file(name, "inp"), *out = read_file(name, "out"), *line = out;
    int n_case = 0;
    for (char *text = inp, *end; (end = strstr(text, sep)); text = end + strlen(sep), n_case++) {
        *end = 0;
        size_t n;
        int32_t *id = encode(t, slice_of(text), 0, &n);
        for (size_t i = 0; i < n; i++)
            ck_assert_msg(*line != '\n' && strtol(line, &line, 10) == id[i], "%s: '%s' differs at token %zu", name,
                          text, i);
        line += strspn(line, " ");
        ck_assert_msg(*line == '\n', "%s: '%s' has too few tokens", name, text);
        line++;
        free(id);
    }
    ck_assert(n_case > 40 && *line == 0);
    free(inp);
    free(out);
}

static void check_real(const char *name)
{
    clock_t start = clock();
    struct tokenizer *t = real_tokenizer(name);
    if (!t)
        return;
    printf("%s: loaded in %.0f ms\n", name, 1e3 * (double)(clock() - start) / CLOCKS_PER_SEC);
    check_vectors(t, name);
    tok_free(t);
}

START_TEST(test_vectors)
{
    check_real("gpt-2");
    check_real("llama-bpe");
    check_real("qwen2");
    check_real("llama-spm");
}
END_TEST

START_TEST(test_long_runs)
{
    static const char *const names[] = {"gpt-2", "llama-bpe", "qwen2", "llama-spm"};
    enum { N = 1000000 };
    char *text = malloc(N);
    for (int k = 0; k < 4; k++) {
        struct tokenizer *t = real_tokenizer(names[k]);
        for (int run = 0; t && run < 3; run++) {
            size_t n, n_back = 0;
            memset(text, "a !"[run], N);
            clock_t start = clock();
            int32_t *id = encode(t, (struct slice){text, N}, 0, &n);
            printf("%s: 1 MB of '%c': %.2f s\n", names[k], "a !"[run], (double)(clock() - start) / CLOCKS_PER_SEC);
            for (size_t i = 0; i < n; i++)
                n_back += tok_piece(t, id[i]).len;
            ck_assert_uint_eq(n_back, N + (k == 3)); /* its first space */
            free(id);
        }
        tok_free(t);
    }
    free(text);
}
END_TEST

START_TEST(test_roles)
{
    struct tokenizer *t = real_tokenizer("llama-bpe");
    if (t) {
        ck_assert(tok_adds_bos(t) && tok_ids(t)->bos == 128000 && tok_is_eog(t, 128001) && tok_is_eog(t, 128009));
        EXPECT_IDS(t, "Hello<|eot_id|>", TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, 128000, 9906, 128009);
        tok_free(t);
    }
    t = real_tokenizer("qwen2");
    if (t) {
        ck_assert(!tok_adds_bos(t) && tok_is_eog(t, 151643) && tok_is_eog(t, 151645) && !tok_is_eog(t, 151644));
        EXPECT_IDS(t, "<|im_start|>Hello", TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, 151644, 9707);
        tok_free(t);
    }
    t = real_tokenizer("llama-spm");
    if (t) {
        ck_assert(tok_adds_bos(t) && tok_ids(t)->bos == 1 && tok_is_eog(t, 2) && !tok_is_eog(t, 0));
        EXPECT_IDS(t, "Hello world</s>Hello", TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, 1, 15043, 3186, 2, 15043);
        EXPECT_IDS(t, "Hello</s>", TOK_ADD_SPECIAL, 1, 15043, 829, 29879, 29958); /* its characters, not the token */
        ck_assert(slice_eq(tok_piece(t, 15043), " Hello") && slice_eq(tok_piece(t, 3 + 0xe2), "\xe2"));
        tok_free(t);
    }
}
END_TEST

/* A real file whose tokenizer calls itself by another name. */
START_TEST(test_other_models_are_refused)
{
    static const char key[] = "tokenizer.ggml.model";
    FILE *f = fopen(GALLEY_SHARED_DIR "/data/tokenizers/ggml-vocab-llama-spm.gguf", "rb");
    if (!f) {
        puts("skipped: no ../shared/data");
        return;
    }
    char *file = malloc(1 << 20);
    size_t n = fread(file, 1, 1 << 20, f);
    fclose(f);
    char *name = memmem(file, n, key, strlen(key));
    ck_assert_ptr_nonnull(name);
    name += strlen(key) + 4 + 8; /* its type and length */
    ck_assert_mem_eq(name, "llama", 5);
    memcpy(name, "other", 5);
    struct gguf *g;
    struct tokenizer *t;
    struct err e;
    ck_assert_int_eq(gguf_open_mem(&g, file, n, "patched", &e), 0);
    ck_assert_int_eq(tok_from_gguf(&t, g, &e), -ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "'other'"));
    gguf_close(g);
    free(file);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("tok_golden");
    tcase_add_test(tc, test_vectors);
    tcase_add_test(tc, test_long_runs);
    tcase_add_test(tc, test_roles);
    tcase_add_test(tc, test_other_models_are_refused);
    return suite_run(tc);
}
