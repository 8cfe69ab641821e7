// Whole page tables, and huge pages, move by mremap to where other pages lay; what is read there then.
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define MARKER 0x70746577
enum { SIZE = 4 << 20, STEP = 100000 };

static char *map(unsigned long at) {
    return mmap((void *)at, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

int main(void) {
    unsigned long sum = 0;
    for (int round = 0; round < 4; ++round) {
        char *const source = map(0x40000000), *const target = map(0x50000000);
        if (round & 1) madvise(source, SIZE, MADV_HUGEPAGE);
        for (int at = 0; at < SIZE; at += STEP) source[at] = round + at / STEP, target[at] = 100;
        syscall(MARKER);  // the stores to both are of an epoch that is over
        if (round & 2) source[0] = 50;
        if (mremap(source, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target) return 1;
        syscall(MARKER);
        for (int at = 0; at < SIZE; at += STEP) sum = sum * 3 + target[at];
        munmap(target, SIZE);
    }
    printf("%lx\n", sum);
    return 0;
}
