// A mark-and-sweep collector that knows by soft-dirty which pages of its heap were stored to since the last collection.
//
//   collector [ROUNDS [tell|trust]]
//
// Marks are sticky: a collection keeps those of the last one, and follows pointers only from the roots and from marked
// objects on pages that /proc/self/pagemap reports. Each tenth one begins anew. After each, a full mark that uses no
// soft-dirty checks that nothing live would be freed. It tries first whether a store is reported; where it is not, and
// without "trust", every page counts as stored to. With "tell" it says how many pages it looked at. Each round makes one
// system call 0x70746577, right before it clears.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MARKER 0x70746577
#define PAGES 64
#define OBJECTS 64  // of 64 bytes on a page
#define COUNT (PAGES * OBJECTS)
#define ROOTS 24

struct object {
    uint32_t to[4];  // numbers of objects, 0: none
    uint32_t live, value;
    uint64_t rest[5];
};

static struct object *heap;
static uint8_t marks[COUNT], check[COUNT];
static uint32_t roots[ROOTS], stack[COUNT], depth, free_list[COUNT], frees;
static int pagemap, clear_refs, tracked;
static uint64_t seen[PAGES];
static uint32_t chance = 12345;

static uint32_t draw(uint32_t below) {
    chance = chance * 1664525u + 1013904223u;
    return (chance >> 8) % below;
}

static int clear(void) { return pwrite(clear_refs, "4", 1, 0) == 1 ? 0 : -1; }

static int look(void) {
    return pread(pagemap, seen, sizeof seen, (off_t)((uintptr_t)heap / 4096 * 8)) == sizeof seen ? 0 : -1;
}

static int reported(uint32_t page) { return !tracked || (seen[page] >> 55 & 1); }

static void push(uint8_t *where, uint32_t number) {
    if (number && !where[number]) {
        where[number] = 1;
        stack[depth++] = number;
    }
}

static void follow(uint8_t *where) {
    while (depth) {
        const struct object *o = &heap[stack[--depth]];
        for (int n = 0; n < 4; n++) push(where, o->to[n]);
    }
}

static uint32_t allocate(void) {
    if (!frees) return 0;
    const uint32_t number = free_list[--frees];
    memset(&heap[number], 0, sizeof heap[number]);
    heap[number].live = 1;
    heap[number].value = draw(1000000);
    return number;
}

static void mutate(int round) {
    // Pointers are stored to a quarter of the heap, another one each round.
    const uint32_t first = (uint32_t)(round % 4) * (COUNT / 4);
    for (int n = 0; n < 120; n++) {
        uint32_t at = roots[draw(ROOTS)];
        for (uint32_t steps = draw(12); steps && at && heap[at].to[0]; steps--) at = heap[at].to[draw(4)] ?: heap[at].to[0];
        if (!at || at < first || at >= first + COUNT / 4) {
            if (draw(8)) continue;
        }
        const uint32_t fresh = allocate();
        if (!fresh) break;
        if (at) heap[at].to[draw(4)] = fresh;
        else roots[draw(ROOTS)] = fresh;
        if (!draw(3)) roots[draw(ROOTS)] = fresh;
    }
}

static int collect(int round, uint32_t *looked, uint32_t *freed) {
    const int anew = round % 10 == 0;
    if (look()) return -1;
    if (anew) memset(marks, 0, sizeof marks);
    depth = *looked = *freed = 0;
    for (int n = 0; n < ROOTS; n++) push(marks, roots[n]);
    for (uint32_t page = 0; !anew && page < PAGES; page++) {
        if (!reported(page)) continue;
        ++*looked;
        for (uint32_t number = page * OBJECTS; number < (page + 1) * OBJECTS; number++)
            if (marks[number]) for (int n = 0; n < 4; n++) push(marks, heap[number].to[n]);
    }
    follow(marks);
    memset(check, 0, sizeof check);
    for (int n = 0; n < ROOTS; n++) push(check, roots[n]);
    follow(check);
    for (uint32_t number = 1; number < COUNT; number++) {
        if (check[number] && !marks[number]) return -1;  // a store was missed
        if (heap[number].live && !marks[number]) {
            heap[number].live = 0;
            free_list[frees++] = number;
            ++*freed;
        }
    }
    syscall(MARKER);
    return clear();
}

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 60, tell = argc > 2 && !strcmp(argv[2], "tell");
    pagemap = open("/proc/self/pagemap", O_RDONLY);
    clear_refs = open("/proc/self/clear_refs", O_WRONLY);
    heap = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pagemap < 0 || clear_refs < 0 || heap == MAP_FAILED) return 1;
    memset(heap, 0, PAGES * 4096);
    if (clear() || look()) return 1;
    const uint64_t before = seen[1];
    heap[OBJECTS].value = 1;
    if (look()) return 1;
    const int trust = argc > 2 && !strcmp(argv[2], "trust");
    tracked = trust || (!(before >> 55 & 1) && (seen[1] >> 55 & 1));
    for (uint32_t number = COUNT - 1; number; number--) free_list[frees++] = number;
    uint64_t sum = 0;
    for (int round = 0; round < rounds; round++) {
        uint32_t looked, freed;
        mutate(round);
        if (collect(round, &looked, &freed)) {
            printf("round %d: a live object would have been freed\n", round);
            return 1;
        }
        sum = sum * 31 + freed;
        if (tell) printf("round %d: %u pages of %d, freed %u\n", round, looked, PAGES, freed);
    }
    printf("%d collections, %u free, sum %016llx\n", rounds, frees, (unsigned long long)sum);
    return 0;
}
