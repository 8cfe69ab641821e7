// Heat on a plate: a stencil of five points, from one grid into the other, in whole numbers.
//
//   stencil [SIZE [STEPS]]
//
// Before each step it makes system call 0x70746577. Rows far from the source stay as they are for long: their pages are
// stored to with the same value.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MARKER 0x70746577

int main(int argc, char **argv) {
    const int size = argc > 1 ? atoi(argv[1]) : 192, steps = argc > 2 ? atoi(argv[2]) : 60;
    if (size < 8 || size > 4096 || steps < 0) return 1;
    const size_t bytes = (size_t)size * (size_t)size * sizeof(uint32_t);
    uint32_t *from = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *to = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (from == MAP_FAILED || to == MAP_FAILED) return 1;
    for (int x = 0; x < size; x++) from[x] = to[x] = 1u << 30;
    for (int step = 0; step < steps; step++) {
        syscall(MARKER);
        for (int y = 1; y < size - 1; y++)
            for (int x = 1; x < size - 1; x++) {
                const uint32_t *const at = from + (size_t)y * size + x;
                to[(size_t)y * size + x] = (at[-size] / 4) + (at[-1] / 4) + (at[1] / 4) + (at[size] / 4);
            }
        uint32_t *const other = from;
        from = to;
        to = other;
    }
    uint64_t sum = 0;
    for (size_t at = 0; at < (size_t)size * (size_t)size; at++) sum = sum * 31 + from[at];
    printf("%d steps, centre %u, sum %016llx\n", steps, from[(size_t)8 * size + size / 2], (unsigned long long)sum);
    return 0;
}
