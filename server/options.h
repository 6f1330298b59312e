/* One table of options drives flags, environment, YAML and --help. Precedence: flag, then GALLEY_NAME, then the
 * configuration file, then the default. Private to server/. */
#ifndef GALLEY_OPTIONS_H
#define GALLEY_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"

struct options { /* strings are owned; free with options_free */
    char *model, *draft_model, *ngram, *served_model_name, *chat_template, *config;
    char *quantization, *host, *backend, *pin, *repack_cache, *decoding, *ways, *kv_type, *cors_origin, *log_level;
    char *api_key;                                         /* comma-separated list */
    char *api_key_file, *unix_socket, *tls_cert, *tls_key; /* NULL or "": none */
    int64_t port, ctx, kv_mem, max_batch_tokens, max_seqs, max_choices, max_queue, max_draft, threads, loops;
    int64_t tensor_parallel;
    int64_t max_body, max_connections, idle_timeout, request_timeout, drain_timeout, ping_interval;
    bool deterministic, no_prefix_cache, no_contrastive, strict, check_config;
};

enum option_type { OPT_STRING, OPT_INT, OPT_SIZE, OPT_BOOL, OPT_CHOICE, OPT_CHOICES };

struct option {
    const char *name; /* "max-batch-tokens": --max-batch-tokens, GALLEY_MAX_BATCH_TOKENS, max_batch_tokens: */
    enum option_type type;
    size_t offset;        /* in struct options */
    int64_t lo, hi;       /* OPT_INT, OPT_SIZE */
    const char *choices;  /* OPT_CHOICE: "auto|ref|cpu"; OPT_CHOICES: of which several may be given, with commas */
    const char *unit;     /* shown as the value in --help */
    const char *fallback; /* text of the default, NULL: none */
    const char *group, *help;
};

extern const struct option option_table[];
extern const int n_option;

/* argv[0..n): flags only. Reads the environment and --config as well. Errors name the flag, the variable, or file,
 * line, column and key. */
int options_parse(struct options *o, int argc, char **argv, struct err *e);
void options_free(struct options *o);
void options_help(FILE *out);

/* Sets one option from text; `where` begins the error. Refuses a second value from the same source. */
struct option_source {
    bool set[64]; /* by index in the table */
};
int option_set(struct options *o, struct option_source *src, int index, const char *text, const char *where,
               struct err *e);
/* The text of OPT_CHOICES holds the word; NULL holds all. */
bool option_has(const char *list, const char *word);
/* Index of the option with this name, '_' and '-' being the same; -1. */
int option_find(const char *name, size_t len);
/* The nearest name, for "did you mean"; NULL when nothing is near. */
const char *option_nearest(const char *name);

/* options_yaml.c */
int options_read_yaml(struct options *o, struct option_source *src, const char *path, struct err *e);

#endif
