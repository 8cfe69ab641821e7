// One epoch between two markers: 3 pages get a new value, 2 the same again, and 4 pages of a new area their first.
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MARKER 0x70746577

int main(void) {
    volatile char *at = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset((char *)at, 5, 16 * 4096);
    syscall(MARKER);
    for (int page = 0; page < 3; page++) at[page * 4096] = 6;
    for (int page = 8; page < 10; page++) at[page * 4096 + 9] = 5;
    volatile char *fresh = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int page = 0; page < 4; page++) fresh[page * 4096] = 1;
    syscall(MARKER);
    return 0;
}
