#ifndef GALLEY_VERSION /* given by meson */
#define GALLEY_VERSION "unknown"
#endif
