/* `galley serve`, which the test server over the fake back end runs as well. Private to server/ and tests/. */
#ifndef GALLEY_SERVE_H
#define GALLEY_SERVE_H

struct backend_ops;

/* argv without "serve". `ops` replaces the --backend when not NULL. Returns the exit status. */
int serve_main(int argc, char **argv, const struct backend_ops *ops);

#endif
