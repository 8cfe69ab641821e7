// A store, then mprotect: kernels before VM_SOFTDIRTY forgot the store's mark there.
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MARKER 0x70746577

int main(void) {
    volatile char *at = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset((char *)at, 5, 4 * 4096);
    syscall(MARKER);
    at[4096] = 6;
    mprotect((char *)at + 4096, 4096, PROT_READ);
    syscall(MARKER);
    printf("%d\n", at[4096]);
    return 0;
}
