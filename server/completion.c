/* `galley completion SHELL`: what a shell should offer, from the tables of commands and options. */
#include <stdio.h>
#include <string.h>

#include "command.h"

static bool is_path(const struct flag *f)
{
    return f->unit && (!strcmp(f->unit, "PATH") || !strcmp(f->unit, "FILE") || !strcmp(f->unit, "DIR"));
}

/* "a|b" as "a b" */
static void print_choices(const char *choices)
{
    for (; *choices; choices++)
        putchar(*choices == '|' ? ' ' : *choices);
}

/* For the inside of single quotes; `escape`: characters that get a backslash besides. */
static void print_quoted(const char *text, const char *quote, const char *escape)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs(quote, stdout);
        else
            printf("%s%c", strchr(escape, *text) ? "\\" : "", *text);
    }
}

/* ---- bash ---- */

static void bash_name(void *arg, const struct flag *f, const char *group)
{
    printf(" %s", f->name);
}

static void bash_value(void *arg, const struct flag *f, const char *group)
{
    if (!f->unit)
        return;
    printf("        %s) ", f->name);
    if (f->choices) {
        fputs("words='", stdout);
        print_choices(f->choices);
        puts("' ;;");
    } else {
        puts(is_path(f) ? "files=1 ;;" : "return ;;");
    }
}

static void print_bash(void)
{
    fputs("# bash completion of galley, by `galley completion bash`\n"
          "_galley() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} flags= words= files=\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" = 1 ]; then\n"
          "        COMPREPLY=($(compgen -W '",
          stdout);
    for (int i = 0; command_table[i]; i++)
        printf("%s ", command_table[i]->name);
    puts("--help --version' -- \"$cur\"))\n"
         "        return\n"
         "    fi\n"
         "    case ${COMP_WORDS[1]} in");
    for (int i = 0; command_table[i]; i++) {
        printf("    %s)\n        flags='--help", command_table[i]->name);
        command_each_flag(command_table[i], bash_name, NULL);
        puts("'\n        case $prev in");
        command_each_flag(command_table[i], bash_value, NULL);
        puts(command_table[i] == &completion_command ? "        esac\n        words='bash zsh fish man' ;;"
                                                     : "        esac ;;");
    }
    puts("    *) return ;;\n"
         "    esac\n"
         "    if [ -n \"$words\" ]; then\n"
         "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
         "    elif [ -z \"$files\" ] && [[ $cur == -* ]]; then\n"
         "        COMPREPLY=($(compgen -W \"$flags\" -- \"$cur\"))\n"
         "    else\n"
         "        compopt -o filenames 2>/dev/null\n"
         "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
         "    fi\n"
         "}\n"
         "complete -F _galley galley");
}

/* ---- zsh ---- */

static const char zsh_quote[] = "'\\''", zsh_escape[] = "[]:\\";

static void zsh_flag(void *arg, const struct flag *f, const char *group)
{
    printf("            '%s[", f->name);
    print_quoted(f->help, zsh_quote, zsh_escape);
    fputs("]", stdout);
    if (f->unit)
        printf(":%s:%s", f->unit, is_path(f) ? "_files" : f->choices ? "" : " ");
    if (f->choices) {
        putchar('(');
        print_choices(f->choices);
        putchar(')');
    }
    puts("' \\");
}

static void print_zsh(void)
{
    puts("#compdef galley\n"
         "# zsh completion of galley, by `galley completion zsh`\n"
         "_galley() {\n"
         "    local -a commands=(");
    for (int i = 0; command_table[i]; i++) {
        printf("        '%s:", command_table[i]->name);
        print_quoted(command_table[i]->about, zsh_quote, zsh_escape);
        puts("'");
    }
    puts("    )\n"
         "    if (( CURRENT == 2 )); then\n"
         "        _describe command commands\n"
         "        return\n"
         "    fi\n"
         "    shift words\n"
         "    (( CURRENT-- ))\n"
         "    case $words[1] in");
    for (int i = 0; command_table[i]; i++) {
        printf("    %s)\n        _arguments \\\n", command_table[i]->name);
        command_each_flag(command_table[i], zsh_flag, NULL);
        puts(command_table[i] == &completion_command ? "            '1:SHELL:(bash zsh fish man)' ;;"
                                                     : "            '*:file:_files' ;;");
    }
    puts("    esac\n"
         "}\n"
         "if [[ $funcstack[1] == _galley ]]; then _galley \"$@\"; else compdef _galley galley; fi");
}

/* ---- fish ---- */

static const char fish_quote[] = "\\'", fish_escape[] = "\\";

static void fish_flag(void *arg, const struct flag *f, const char *group)
{
    const struct command *c = arg;
    printf("complete -c galley -n '__fish_seen_subcommand_from %s' -l %s", c->name, f->name + 2);
    if (f->choices) {
        fputs(" -x -a '", stdout);
        print_choices(f->choices);
        putchar('\'');
    } else if (f->unit) {
        fputs(is_path(f) ? " -r -F" : " -x", stdout);
    }
    fputs(" -d '", stdout);
    print_quoted(f->help, fish_quote, fish_escape);
    puts("'");
}

static void print_fish(void)
{
    puts("# fish completion of galley, by `galley completion fish`");
    for (int i = 0; command_table[i]; i++) {
        const struct command *c = command_table[i];
        printf("complete -c galley -n __fish_use_subcommand -f -a %s -d '", c->name);
        print_quoted(c->about, fish_quote, fish_escape);
        puts("'");
        command_each_flag(c, fish_flag, (void *)c);
    }
    puts("complete -c galley -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish man'");
}

/* ---- The command ---- */

static int completion_main(int argc, char **argv)
{
    const char *shell = argc == 1 ? argv[0] : "";
    if (!strcmp(shell, "bash"))
        print_bash();
    else if (!strcmp(shell, "zsh"))
        print_zsh();
    else if (!strcmp(shell, "fish"))
        print_fish();
    else if (!strcmp(shell, "man"))
        manual_print(stdout);
    else
        return command_misused(&completion_command, "one of bash, zsh, fish and man is needed");
    return 0;
}

const struct command completion_command = {
    .name = "completion",
    .args = "bash|zsh|fish|man",
    .about = "print what a shell should complete, or the manual page",
    .text = "For one session: source <(galley completion bash). Packages install all of them.\n",
    .main = completion_main,
};
