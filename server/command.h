/* The commands of `galley COMMAND ...`, each described once: what --help, shell completion and the manual page say is
 * read from here and from the option table. Private to server/. */
#ifndef GALLEY_COMMAND_H
#define GALLEY_COMMAND_H

#include <stdbool.h>
#include <stdio.h>

struct flag {
    const char *name;    /* "--url" */
    const char *unit;    /* shown as its value; NULL: it takes none. PATH, FILE and DIR are completed as such */
    const char *choices; /* "auto|cpu", or NULL */
    const char *help;
};

struct command {
    const char *name;
    const char *args;                   /* after the name in its usage: "[options] [PROMPT]" */
    const char *about;                  /* a line of `galley --help` */
    const char *text;                   /* more, for its own --help and the manual; NULL: nothing */
    const struct flag *flag;            /* ended by a NULL name; NULL: none */
    bool takes_options;                 /* of option_table, beside its own flags, which win */
    int (*main)(int argc, char **argv); /* without "galley NAME"; returns the exit status */
};

extern const struct command serve_command, run_command, bench_command, quantize_command, inspect_command, ngram_command,
    health_command, completion_command;

extern const struct command *const command_table[]; /* ended by NULL */
const struct command *command_find(const char *name);

void command_usage(const struct command *c, FILE *out);
/* "galley NAME: message", the usage; returns 2. */
int command_misused(const struct command *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Index in c->flag, or -1. */
int command_flag(const struct command *c, const char *name);

/* Every flag of a command, its own first, in the order of the tables. `group`: of an option; NULL: the command's own.
 */
void command_each_flag(const struct command *c, void (*each)(void *arg, const struct flag *f, const char *group),
                       void *arg);

/* manual.c: the manual page, for man(1). */
void manual_print(FILE *out);

#endif
