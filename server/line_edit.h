/* Lines typed at a terminal, over libedit: editing, history in a file that outlives the program. Private to server/. */
#ifndef GALLEY_LINE_EDIT_H
#define GALLEY_LINE_EDIT_H

#include "err.h"
#include "interrupt.h"

struct line_edit;

enum line_end { LINE_TEXT, LINE_INTERRUPTED, LINE_EOF };

/* The history lies in $XDG_STATE_HOME/galley/history (~/.local/state); without a home there is none. */
int line_edit_open(struct interrupt *in, struct line_edit **out, struct err *e);
void line_edit_close(struct line_edit *l); /* NULL is legal */

/* Reads a line without its line break; *text lives until the next call. LINE_INTERRUPTED: Ctrl-C, or the end that `in`
 * tells of; what was typed is forgotten. */
enum line_end line_edit_read(struct line_edit *l, const char *prompt, const char **text);
/* Adds to the history, and to its file at once. */
void line_edit_remember(struct line_edit *l, const char *text);

#endif
