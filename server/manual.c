/* The manual page, from the tables of commands and options: `galley completion man`. */
#include <string.h>

#include "command.h"
#include "options.h"
#include "version.h"

struct page {
    FILE *out;
    const char *group; /* of the option before */
};

/* Text as roff wants it: a hyphen that may be copied, no line that is taken for a request. */
static void print_text(FILE *out, const char *text)
{
    bool at_start = true;
    for (; *text; text++) {
        if (at_start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\\')
            fputs("\\e", out);
        else
            fputc(*text, out);
        at_start = *text == '\n';
    }
}

static void print_flag(void *arg, const struct flag *f, const char *group)
{
    struct page *p = arg;
    if (group && (!p->group || strcmp(group, p->group)))
        fprintf(p->out, ".SS %s\n", group);
    p->group = group;
    fputs(".TP\n\\fB", p->out);
    print_text(p->out, f->name);
    fputs("\\fR", p->out);
    if (f->unit)
        fprintf(p->out, " \\fI%s\\fR", f->unit);
    fputc('\n', p->out);
    print_text(p->out, f->help);
    fputc('\n', p->out);
    if (f->choices) {
        fputs("(", p->out);
        print_text(p->out, f->choices);
        fputs(")\n", p->out);
    }
}

static void print_command(struct page *p, const struct command *c)
{
    fprintf(p->out, ".SS galley %s\n.B galley %s\n", c->name, c->name);
    print_text(p->out, c->args);
    fputs("\n.PP\n", p->out);
    if (c->text)
        print_text(p->out, c->text);
    else
        fprintf(p->out, "%s.\n", c->about);
    if (c->flag)
        command_each_flag(&(struct command){.flag = c->flag}, print_flag, p);
}

static void print_defaults(FILE *out)
{
    for (int i = 0; i < n_option; i++) {
        const struct option *o = &option_table[i];
        if (!o->fallback || !*o->fallback || o->type == OPT_BOOL)
            continue;
        fputs(".br\n", out);
        print_text(out, o->name);
        fputc(' ', out);
        print_text(out, o->fallback);
        fputc('\n', out);
    }
}

void manual_print(FILE *out)
{
    struct page p = {.out = out};
    fputs(".TH GALLEY 1 \"\" \"galley " GALLEY_VERSION "\" \"User Commands\"\n"
          ".SH NAME\ngalley \\- LLM inference server that lets each request choose how it is decoded\n"
          ".SH SYNOPSIS\n",
          out);
    for (int i = 0; command_table[i]; i++) {
        fprintf(out, "%s.B galley %s\n", i ? ".br\n" : "", command_table[i]->name);
        print_text(out, command_table[i]->args);
        fputc('\n', out);
    }
    fputs(
        ".SH DESCRIPTION\n"
        "Galley serves language models from GGUF files or Hugging Face directories over the OpenAI API, over HTTP or\n"
        "HTTPS, on a port or a Unix socket.  All requests share one continuous batch, and each may choose its own way\n"
        "of decoding.\n"
        ".SH COMMANDS\n",
        out);
    for (int i = 0; command_table[i]; i++)
        print_command(&p, command_table[i]);
    fputs(".SH OPTIONS\nThese are the options of\n.BR \"galley serve\" .\n"
          "Each can also be set as GALLEY_NAME in the environment, or as a line \\(lqname: value\\(rq of the\n"
          ".B \\-\\-config\nfile.  A flag wins over the environment, the environment over the file.\n",
          out);
    command_each_flag(&serve_command, print_flag, &p);
    fputs(".SS Defaults\n", out);
    print_defaults(out);
    fputs(".SH SIGNALS\n"
          ".TP\nSIGTERM, SIGINT\nRunning requests end first, as far as\n.B \\-\\-drain\\-timeout\nallows; a second one "
          "ends at "
          "once.\n"
          ".TP\nSIGHUP\nReads\n.B \\-\\-tls\\-cert\nand\n.B \\-\\-api\\-key\\-file\nagain.  Open connections stay as "
          "they are; a bad "
          "file changes nothing and is logged.\n"
          ".SH EXIT STATUS\n"
          ".TP\n0\nAll went well.\n.TP\n1\nIt did not; one line says why.\n.TP\n2\nThe command line is wrong.\n"
          ".TP\n75\nThe device broke: a restart may help.\n.TP\n130\n.B galley run\nwas stopped by Ctrl\\-C.\n"
          ".SH FILES\n"
          ".TP\n.I ~/.local/state/galley/history\nWhat was typed in\n.BR \"galley run\" .\n"
          ".TP\n.I /etc/galley/galley.yaml\nThe configuration of the packaged service.\n"
          ".SH EXAMPLES\n.EX\n"
          "galley run \\(aqTell me a story about a fox.\\(aq\n"
          "galley serve \\-\\-model model.gguf \\-\\-host 0.0.0.0 \\-\\-api\\-key\\-file keys\n"
          "curl localhost:8080/v1/models\n"
          ".EE\n",
          out);
}
