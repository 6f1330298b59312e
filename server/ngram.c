/* `galley ngram build`: an n-gram store from text, for the superposed way of decoding. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "mem.h"
#include "ngram_build.h"

static const struct flag ngram_flags[] = {
    {"--model", "PATH", NULL, "GGUF file with the tokenizer; the store serves models with the same one"},
    {"--out", "FILE", NULL, "where the store goes; temporary files lie beside it"},
    {"--max-n", "N", NULL, "longest n-grams, 2 to 6 tokens [6]"},
    {"--min-count", "N", NULL, "leave out n-grams that occur less often [1]"},
    {"--max-mb", "N", NULL, "leave out ever more frequent n-grams until the store has at most so many MB [no limit]"},
    {"--memory-mb", "N", NULL, "memory for counting; more text than fits goes through temporary files [256]"},
    {"--split", "LINE", NULL, "a line that ends a document; it and the line break before it are not text"},
    {"--special", NULL, NULL, "names of control tokens in the text, such as <|im_end|>, are those tokens"},
    {NULL},
};

static bool parse_int(const char *text, long lo, long hi, long *out)
{
    char *end;
    *out = strtol(text, &end, 10);
    return end != text && !*end && *out >= lo && *out <= hi;
}

static bool parse_megabytes(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end && *out >= 0.1 && *out <= 1e6;
}

struct flags {
    struct ngram_build_options o;
    const char **text; /* [argc] room for all arguments; owned */
};

static bool take_value(struct ngram_build_options *o, const char *name, const char *value)
{
    long n;
    double mb;
    if (!strcmp(name, "--model"))
        o->model_path = value;
    else if (!strcmp(name, "--out"))
        o->out_path = value;
    else if (!strcmp(name, "--split"))
        o->separator = value;
    else if (!strcmp(name, "--max-n") && parse_int(value, 2, NGRAM_BUILD_MAX_N, &n))
        o->max_n = (int32_t)n;
    else if (!strcmp(name, "--min-count") && parse_int(value, 1, NGRAM_BUILD_MAX_MIN_COUNT, &n))
        o->min_count = (uint32_t)n;
    else if (!strcmp(name, "--max-mb") && parse_megabytes(value, &mb))
        o->max_bytes = (uint64_t)(mb * 1e6);
    else if (!strcmp(name, "--memory-mb") && parse_megabytes(value, &mb))
        o->memory_bytes = (size_t)(mb * 1e6);
    else
        return false;
    return true;
}

/* Returns the argument that is wrong, or NULL. */
static const char *parse_flags(int argc, char **argv, struct flags *f)
{
    for (int i = 0; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--special"))
            f->o.parse_special = true;
        else if (name[0] != '-' || !name[1])
            f->text[f->o.n_text++] = name;
        else if (i + 1 == argc || !take_value(&f->o, name, argv[++i]))
            return name;
    }
    f->o.text_path = f->text;
    return !f->o.model_path ? "--model" : !f->o.out_path ? "--out" : !f->o.n_text ? "TEXT" : NULL;
}

static void print_progress(const struct ngram_build_report *r)
{
    static uint32_t shown;
    if (r->n_token - shown < 1 << 20 || !isatty(STDERR_FILENO))
        return;
    shown = r->n_token;
    fprintf(stderr, "galley ngram build: %u tokens of %u documents so far\n", r->n_token, r->n_doc);
}

static int build(int argc, char **argv)
{
    struct flags f = {.o = {.max_n = 6, .min_count = 1, .memory_bytes = 256000000, .progress = print_progress}};
    struct ngram_build_report r;
    struct err e = {0};
    f.text = mem_calloc((size_t)argc, sizeof *f.text);
    if (!f.text) {
        fputs("galley ngram build: out of memory\n", stderr);
        return 1;
    }
    const char *wrong = parse_flags(argc, argv, &f);
    int status = 0;
    if (wrong) {
        status = command_misused(&ngram_command, "%s is missing, unknown or has a bad value", wrong);
    } else if (ngram_build(&f.o, &r, &e)) {
        fprintf(stderr, "galley ngram build: %s\n", e.msg);
        status = 1;
    } else {
        printf("%s: %.2f MB of n-grams that occur at least %u times in %u tokens of %u documents\n", f.o.out_path,
               (double)r.file_bytes / 1e6, r.min_count, r.n_token, r.n_doc);
        for (int32_t n = 0; n < f.o.max_n; n++)
            printf("  %d-grams %10u\n", n + 1, r.n_gram[n]);
    }
    mem_free(f.text);
    return status;
}

static int ngram_main(int argc, char **argv)
{
    if (argc > 0 && !strcmp(argv[0], "build"))
        return build(argc - 1, argv + 1);
    return command_misused(&ngram_command, "build is the one thing it does");
}

const struct command ngram_command = {
    .name = "ngram",
    .args = "build --model PATH --out FILE [options] TEXT...",
    .about = "count a text's n-grams for superposed decoding and trigram drafts",
    .text = "Counts which tokens follow which in the files TEXT (-: standard input). A file is one document unless "
            "--split is\n"
            "given; n-grams do not cross documents. The same text gives the same file.\n",
    .flag = ngram_flags,
    .main = ngram_main,
};
