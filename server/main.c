/* The command line: galley COMMAND [options]. */
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "engine.h"
#include "version.h"

static void help(FILE *out)
{
    fputs("galley " GALLEY_VERSION " - an LLM inference server that lets each request choose how it is decoded\n\n",
          out);
    for (int i = 0; command_table[i]; i++)
        fprintf(out, "  galley %-11s %s\n", command_table[i]->name, command_table[i]->about);
    fputs("  galley COMMAND --help\n"
          "                     what a command takes\n"
          "  galley --version   and which back ends this machine can use\n"
          "\n"
          "Try it:\n"
          "  galley run 'Tell me a story about a fox.'\n"
          "  galley serve &\n"
          "  curl localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
          "       -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Tell me a story about a fox.\"}]}'\n",
          out);
}

static void version(void)
{
    char backends[2048] = "";
    engine_backends(backends, sizeof backends);
    printf("galley " GALLEY_VERSION "\n\nback ends\n%s", backends);
}

static int is(const char *arg, const char *a, const char *b)
{
    return !strcmp(arg, a) || !strcmp(arg, b);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return 2;
    }
    if (is(argv[1], "--help", "-h") || is(argv[1], "help", "help")) {
        help(stdout);
        return 0;
    }
    if (is(argv[1], "--version", "version")) {
        version();
        return 0;
    }
    const struct command *c = command_find(argv[1]);
    if (!c) {
        fprintf(stderr, "galley: no command '%s'; galley --help lists them\n", argv[1]);
        return 2;
    }
    for (int i = 2; i < argc && strcmp(argv[i], "--"); i++)
        if (is(argv[i], "--help", "-h")) {
            command_usage(c, stdout);
            return 0;
        }
    return c->main(argc - 2, argv + 2);
}
