/* The command line: galley COMMAND [options]. */
#include <stdio.h>
#include <string.h>

#include "engine.h"
#include "inspect.h"
#include "options.h"
#include "quantize.h"
#include "serve.h"
#include "version.h"

static void help(FILE *out)
{
    fputs("galley " GALLEY_VERSION " - an LLM inference server that lets each request choose how it is decoded\n"
          "\n"
          "  galley serve [options]           serve a model over the OpenAI API (without --model: the bundled demo)\n"
          "  galley bench [options]           measure prefill and decode on this machine\n"
          "  galley quantize IN OUT TYPE      write a GGUF file in a smaller type\n"
          "  galley inspect PATH              what a model file holds, and the memory it would take\n"
          "  galley ngram build ...           count a text's n-grams for superposed decoding and trigram drafts\n"
          "  galley COMMAND --help            what a command takes\n"
          "  galley --version                 and which back ends this machine can use\n"
          "\n"
          "Try it:\n"
          "  galley serve &\n"
          "  curl localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
          "       -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Tell me a story about a fox.\"}]}'\n",
          out);
}

static int quantize(int argc, char **argv)
{
    struct err e = {0};
    if (argc != 3 || !strcmp(argv[0], "--help")) {
        fprintf(argc == 1 ? stdout : stderr, "usage: galley quantize IN OUT TYPE\n\nTYPE: %s\n",
                model_quantize_types());
        return argc == 1 ? 0 : 2;
    }
    if (model_quantize(argv[0], argv[1], argv[2], &e)) {
        fprintf(stderr, "galley quantize: %s\n", e.msg);
        return 1;
    }
    return 0;
}

static int inspect(int argc, char **argv)
{
    static const char usage[] = "usage: galley inspect PATH [--metadata] [--tensors] [--template]\n\n"
                                "PATH: a GGUF file or a Hugging Face directory. The options show more of it.\n";
    struct inspect_want want = {0};
    struct err e = {0};
    const char *path = NULL;
    for (int i = 0; i < argc; i++) {
        bool *flag = !strcmp(argv[i], "--metadata")   ? &want.metadata
                     : !strcmp(argv[i], "--tensors")  ? &want.tensors
                     : !strcmp(argv[i], "--template") ? &want.chat_template
                                                      : NULL;
        if (flag) {
            *flag = true;
        } else if (argv[i][0] == '-' || path) {
            bool is_help = !strcmp(argv[i], "--help");
            fputs(usage, is_help ? stdout : stderr);
            return is_help ? 0 : 2;
        } else {
            path = argv[i];
        }
    }
    if (!path) {
        fputs(usage, stderr);
        return 2;
    }
    if (model_inspect(path, &want, stdout, &e)) {
        fprintf(stderr, "galley inspect: %s\n", e.msg);
        return 1;
    }
    return 0;
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
    const char *command = argv[1];
    int help_wanted = argc > 2 && is(argv[2], "--help", "-h");
    if (is(command, "--help", "-h") || is(command, "help", "help")) {
        help(stdout);
        return 0;
    }
    if (is(command, "--version", "version")) {
        version();
        return 0;
    }
    if (is(command, "serve", "serve")) {
        if (help_wanted) {
            puts("usage: galley serve [options]");
            options_help(stdout);
            return 0;
        }
        return serve_main(argc - 2, argv + 2, NULL);
    }
    if (is(command, "quantize", "quantize"))
        return quantize(argc - 2, argv + 2);
    if (is(command, "inspect", "inspect"))
        return inspect(argc - 2, argv + 2);
    if (is(command, "bench", "bench"))
        return bench_main(argc - 2, argv + 2);
    if (is(command, "ngram", "ngram"))
        return ngram_main(argc - 2, argv + 2);
    fprintf(stderr, "galley: no command '%s'; galley --help lists them\n", command);
    return 2;
}
