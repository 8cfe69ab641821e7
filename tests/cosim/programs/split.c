// Accesses that lie on two pages: loads and stores of 8 bytes, 3 before the end of a page, on pages that were cleared,
// and on pages that nobody touched before.
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 8 };

int main(void) {
    char *const at = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return 1;
    for (int page = 0; page < 4; ++page) *(volatile char *)(at + page * 4096) = 1;
    syscall(0x70746577);  // the epoch ends: stores to pages 0 to 3 fault again in `off`
    for (int page = 0; page < PAGES; page += 2) {
        *(volatile uint64_t *)(at + page * 4096 + 4093) = 0x0807060504030201;
        if (*(volatile uint64_t *)(at + page * 4096 + 4093) != 0x0807060504030201) return 2;
    }
    printf("%lx\n", (unsigned long)at);
    return 0;
}
