/* `galley inspect` and `galley quantize`: what a model file holds, and one in a smaller type. */
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "inspect.h"
#include "quantize.h"

static int failed(const struct command *c, const struct err *e)
{
    fprintf(stderr, "galley %s: %s\n", c->name, e->msg);
    return 1;
}

/* ---- galley quantize ---- */

static int quantize_main(int argc, char **argv)
{
    struct err e = {0};
    if (argc != 3)
        return command_misused(&quantize_command, "IN, OUT and TYPE are needed; TYPE is one of %s",
                               model_quantize_types());
    return model_quantize(argv[0], argv[1], argv[2], &e) ? failed(&quantize_command, &e) : 0;
}

const struct command quantize_command = {
    .name = "quantize",
    .args = "IN OUT TYPE",
    .about = "write a GGUF file in a smaller type",
    .text = "Writes the model of the GGUF file IN to OUT with its weights as TYPE, such as Q8_0 or Q4_K_M; without\n"
            "arguments it lists the types.\n",
    .main = quantize_main,
};

/* ---- galley inspect ---- */

static const struct flag inspect_flags[] = {
    {"--metadata", NULL, NULL, "show the metadata"},
    {"--tensors", NULL, NULL, "list the tensors"},
    {"--template", NULL, NULL, "show the chat template"},
    {NULL},
};

static int inspect_main(int argc, char **argv)
{
    struct inspect_want want = {0};
    bool *const wanted[] = {&want.metadata, &want.tensors, &want.chat_template}; /* by index in inspect_flags */
    struct err e = {0};
    const char *path = NULL;
    for (int i = 0; i < argc; i++) {
        int at = command_flag(&inspect_command, argv[i]);
        if (at >= 0)
            *wanted[at] = true;
        else if (argv[i][0] == '-' || path)
            return command_misused(&inspect_command, "%s is one too many", argv[i]);
        else
            path = argv[i];
    }
    if (!path)
        return command_misused(&inspect_command, "PATH is missing");
    return model_inspect(path, &want, stdout, &e) ? failed(&inspect_command, &e) : 0;
}

const struct command inspect_command = {
    .name = "inspect",
    .args = "PATH [options]",
    .about = "what a model file holds, and the memory it would take",
    .text = "PATH: a GGUF file or a Hugging Face directory.\n",
    .flag = inspect_flags,
    .main = inspect_main,
};
