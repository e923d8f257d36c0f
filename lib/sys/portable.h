// For binaries that run where they were not built (scripts/prebuild.mjs): the linker would ask for the newest version of
// each of glibc's symbols that it finds here, and glibc 2.32 to 2.34 gave these new ones when they moved into libc.so,
// without another meaning. The versions named are the first of each architecture; Node.js itself asks for glibc 2.28.
#ifndef TULLE_PORTABLE_H
#define TULLE_PORTABLE_H

#include <features.h>
#if defined(__x86_64__)
#define TULLE_FIRST_GLIBC "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define TULLE_FIRST_GLIBC "GLIBC_2.17"
#else
#error "name the first version of glibc for this architecture"
#endif
#define TULLE_FIRST(name) __asm__(".symver " #name "," #name "@" TULLE_FIRST_GLIBC)
TULLE_FIRST(pthread_create);
TULLE_FIRST(pthread_join);
TULLE_FIRST(pthread_detach);
TULLE_FIRST(pthread_sigmask);
TULLE_FIRST(pthread_attr_setstacksize);

#endif
