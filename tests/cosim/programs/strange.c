// Programs that ask for too much.
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    (void)argc;
    if (!strcmp(argv[1], "unshare")) return unshare(CLONE_NEWNS);
    if (!strcmp(argv[1], "pause")) return pause();
    for (volatile unsigned long n = 0; !strcmp(argv[1], "spin") && n >= 0; n++);
    while (!strcmp(argv[1], "eat")) memset(malloc(1 << 20), 1, 1 << 20);
    return 0;
}
