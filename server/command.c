#include "command.h"

#include <stdarg.h>
#include <string.h>

#include "options.h"

const struct command *const command_table[] = {&serve_command,   &run_command,        &bench_command,
                                               &inspect_command, &quantize_command,   &ngram_command,
                                               &health_command,  &completion_command, NULL};

const struct command *command_find(const char *name)
{
    for (int i = 0; command_table[i]; i++)
        if (!strcmp(command_table[i]->name, name))
            return command_table[i];
    return NULL;
}

int command_flag(const struct command *c, const char *name)
{
    for (int i = 0; c->flag && c->flag[i].name; i++)
        if (!strcmp(c->flag[i].name, name))
            return i;
    return -1;
}

void command_each_flag(const struct command *c, void (*each)(void *arg, const struct flag *f, const char *group),
                       void *arg)
{
    for (const struct flag *f = c->flag; f && f->name; f++)
        each(arg, f, NULL);
    for (int i = 0; c->takes_options && i < n_option; i++) {
        const struct option *o = &option_table[i];
        char name[64];
        snprintf(name, sizeof name, "--%s", o->name);
        struct flag f = {name, o->unit, o->choices, o->help};
        if (command_flag(c, name) < 0)
            each(arg, &f, o->group);
    }
}

void command_usage(const struct command *c, FILE *out)
{
    fprintf(out, "usage: galley %s %s\n", c->name, c->args);
    if (c->text)
        fprintf(out, "\n%s", c->text);
    if (c->flag)
        fputc('\n', out);
    for (const struct flag *f = c->flag; f && f->name; f++) {
        char left[64];
        snprintf(left, sizeof left, "%s%s%s", f->name, f->unit ? " " : "", f->unit ? f->unit : "");
        fprintf(out, "  %-22s %s", left, f->help);
        fprintf(out, f->choices ? " (%s)\n" : "\n", f->choices);
    }
    if (c->takes_options && !c->flag) /* else they would bury its own */
        options_help(out);
}

int command_misused(const struct command *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "galley %s: ", c->name);
    vfprintf(stderr, fmt, ap);
    fputs("\n\n", stderr);
    va_end(ap);
    fprintf(stderr, "usage: galley %s %s\n       galley %s --help says more\n", c->name, c->args, c->name);
    return 2;
}
