/*
 * The guest side of `ptewalk record`: init of a real kernel, which executes the operations of a scenario.
 *
 * Process 1 is the controller. Each process of a scenario is a worker, forked from it (number 0) or from another worker
 * (the fork operation); a worker touches nothing of the scenario's window but what its operations say. Controller, workers
 * and host share the mailbox, one 2 MiB hugetlb page at one physical address: the host writes a command there and one byte
 * to the serial port; the agent writes the answer there and one line to the port. Between the two lines nothing runs, so
 * that the host reads page tables at rest. All layouts are those of guest.py and machine.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MAILBOX_BYTES (2UL << 20)
#define BAIT_BYTES (4UL << 20) /* holds an aligned huge page wherever it lies */
#define MAILBOX ((struct mailbox *)0x200000000UL)
#define WINDOW_BYTES (1UL << 39)
#define WORKERS 16
#define FILES 5
#define DISK_FILE 4 /* s4 and p4: not in memory, but on a disk */
#define DISK_FILE_PAGES 64
#define FILE_PAGES 8192
#define VALUES 262144
#define STATE_WORDS 180224
#define PINS 16
#define SPIN_MARK 0x5054455f5350494eUL

/* Commands of the host to the controller. */
enum { COMMAND_BEGIN = 1, COMMAND_SPIN, COMMAND_OPERATION, COMMAND_END, COMMAND_FILE };

/* Operations of a worker. The last ones belong to the recorder, not to a scenario. */
enum {
    OP_MMAP = 1, OP_MUNMAP, OP_MPROTECT, OP_MREMAP, OP_MADVISE, OP_MLOCK, OP_MUNLOCK, OP_WRITE, OP_READ, OP_MEM_WRITE,
    OP_MEM_READ, OP_SYSCALL_READ_INTO, OP_FILE_WRITE, OP_FILE_READ, OP_FTRUNCATE, OP_CLEAR_REFS, OP_FORK, OP_EXIT, OP_SETUID, OP_UFFD_OPEN,
    OP_UFFD_REGISTER, OP_UFFD_UNREGISTER, OP_UFFD_PROTECT, OP_PIN, OP_UNPIN, OP_PKEY_MPROTECT, OP_WRPKRU, OP_PAGEMAP_SCAN,
    OP_MOVE_PAGES, OP_KSM_SCAN, OP_REMAP_FILE, OP_FILL, OP_SYNC, OP_SWAPOFF, OP_SWAPON, OP_SPIN
};

/* Values of an access beyond the byte that was read (0 to 255). */
enum { VALUE_OK = 256, VALUE_MAPERR, VALUE_ACCERR, VALUE_BUS, VALUE_PKUERR, VALUE_ERRNO = 512 };

struct scan_region {
    uint64_t start, end, categories;
};

struct mailbox {
    /* From the host. */
    int64_t command, operation, who, arguments[14];
    char text[64];
    /* The host's permission for a spinning worker to go on. */
    volatile int64_t go;
    /* From the worker. */
    int64_t result, error, value_count, process, scan_end, region_count;
    /* From the controller: words used in `state`, and the pid that each live worker has (0: not live). */
    int64_t state_words, pids[WORKERS];
    char padding[4096 - 8 * (17 + 8 + 1 + 6 + 1 + WORKERS)];
    union {
        int16_t values[VALUES];
        struct scan_region regions[VALUES * 2 / sizeof(struct scan_region)];
    };
    int64_t state[STATE_WORDS];
};
_Static_assert(sizeof(struct mailbox) <= MAILBOX_BYTES, "the mailbox does not fit");

/* What the controller knows of a worker: `ends` is the socket pair, [0] the controller's; pid 0 is a free place. */
struct worker {
    int pid, pidfd, pagemap, ends[2];
    int pinned;
};

static struct worker workers[WORKERS];
static int files[FILES];
static int port = -1;
static int kpageflags = -1;
static uint64_t window;
static int ksm_used;
static const char *swap_device;

/* Worker state. */
static int uffd = -1;
static int own_pagemap = -1;
static int zero_device = -1;
static int keys_allocated;
static struct { uint64_t address; int ring; } pins[PINS];
static sigjmp_buf landing;
static volatile int landed;

static void say(const char *format, ...)
{
    char line[512];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(line, sizeof line - 1, format, list);
    va_end(list);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    for (int done = 0; done < length;) {
        ssize_t n = write(port, line + done, length - done);
        if (n <= 0)
            break;
        done += n;
    }
}

/* Report that the guest cannot go on; the host stops the machine. */
static void give_up(const char *what)
{
    say("E %s: %s", what, strerror(errno));
    for (;;)
        pause();
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return n < 0 ? -1 : 0;
}

static void must_write(const char *path, const char *text)
{
    if (write_file(path, text) < 0)
        give_up(path);
}

static long read_number(const char *path)
{
    char text[64] = "";
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        give_up(path);
    close(fd);
    return strtol(text, NULL, 10);
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* ---- the worker ---- */

static void on_signal(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (signal == SIGBUS)
        landed = VALUE_BUS;
    else if (info->si_code == SEGV_MAPERR)
        landed = VALUE_MAPERR;
    else if (info->si_code == SEGV_PKUERR)
        landed = VALUE_PKUERR;
    else
        landed = VALUE_ACCERR;
    siglongjmp(landing, 1);
}

static int access_byte(uint64_t address, int write, uint8_t value)
{
    if (sigsetjmp(landing, 0))
        return landed;
    if (write) {
        *(volatile uint8_t *)address = value;
        return VALUE_OK;
    }
    return *(volatile uint8_t *)address;
}

static void touch(struct mailbox *box, int write)
{
    uint64_t address = box->arguments[0], count = box->arguments[1], step = box->arguments[2];
    for (uint64_t i = 0; i < count; i += step)
        box->values[box->value_count++] = access_byte(address + i * PAGE + 8, write, box->arguments[3]);
}

static void touch_memory_file(struct mailbox *box, int write)
{
    int fd = open("/proc/self/mem", O_RDWR);
    for (int64_t i = 0; i < box->arguments[1]; i += box->arguments[2]) {
        uint8_t byte = box->arguments[3];
        off_t offset = box->arguments[0] + i * PAGE + 8;
        ssize_t n = fd < 0 ? -1 : write ? pwrite(fd, &byte, 1, offset) : pread(fd, &byte, 1, offset);
        box->values[box->value_count++] = n < 0 ? VALUE_ERRNO + errno : write ? VALUE_OK : byte;
    }
    close(fd);
}

static long clear_refs(struct mailbox *box)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/clear_refs", (int)box->arguments[0]);
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    long n = write(fd, box->text, box->arguments[1]);
    int error = errno;
    close(fd);
    errno = error;
    return n;
}

/* What a fork leaves behind of the parent's own descriptors. */
static void forget_descriptors(void)
{
    for (int i = 0; i < PINS; i++)
        if (pins[i].address) {
            close(pins[i].ring);
            pins[i].address = 0;
        }
    if (uffd >= 0)
        close(uffd);
    if (own_pagemap >= 0)
        close(own_pagemap);
    if (zero_device >= 0)
        close(zero_device);
    uffd = own_pagemap = zero_device = -1;
}

static void serve(int who);

static long fork_worker(struct mailbox *box)
{
    int child = box->arguments[0];
    pid_t pid = fork();
    if (pid < 0)
        return -1;
    if (pid == 0) {
        /* An unmapping empties the batches of the LRU lists: else the writes to this process's own pages might, or not. */
        munmap(mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), PAGE);
        forget_descriptors();
        serve(child);
    }
    box->process = pid;
    return 0;
}

static long become_user(struct mailbox *box)
{
    if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534) || prctl(PR_SET_DUMPABLE, 1))
        return -1;
    if (own_pagemap >= 0)
        close(own_pagemap);
    own_pagemap = open("/proc/self/pagemap", O_RDONLY);
    box->arguments[0] = own_pagemap;
    return 0;
}

/* Open the userfaultfd that the following operations use: arguments[2] are its features. */
static long open_uffd(struct mailbox *box)
{
    if (uffd >= 0)
        close(uffd);
    uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (uffd < 0)
        return -1;
    struct uffdio_api api = {.api = UFFD_API, .features = box->arguments[2]};
    return ioctl(uffd, UFFDIO_API, &api);
}

static long register_uffd(struct mailbox *box)
{
    if (uffd < 0 && open_uffd(box) < 0)
        return -1;
    struct uffdio_register request = {.range = {box->arguments[0], box->arguments[1]}, .mode = UFFDIO_REGISTER_MODE_WP};
    return ioctl(uffd, UFFDIO_REGISTER, &request);
}

static long unregister_uffd(struct mailbox *box)
{
    struct uffdio_range range = {box->arguments[0], box->arguments[1]};
    return ioctl(uffd, UFFDIO_UNREGISTER, &range);
}

static long protect_uffd(struct mailbox *box)
{
    struct uffdio_writeprotect request = {
        .range = {box->arguments[0], box->arguments[1]},
        .mode = box->arguments[2] ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
    };
    return ioctl(uffd, UFFDIO_WRITEPROTECT, &request);
}

/* Pin by an io_uring of its own with one registered buffer. */
static long pin(struct mailbox *box)
{
    int slot = 0;
    while (slot < PINS && pins[slot].address)
        slot++;
    if (slot == PINS) {
        errno = ENFILE;
        return -1;
    }
    uint64_t parameters[15] = {0}; /* struct io_uring_params: 120 bytes, all zero */
    int ring = syscall(SYS_io_uring_setup, 1, parameters);
    if (ring < 0)
        return -1;
    struct iovec buffer = {(void *)box->arguments[0], box->arguments[1]};
    long result = syscall(SYS_io_uring_register, ring, 0 /* IORING_REGISTER_BUFFERS */, &buffer, 1);
    if (result < 0) {
        int error = errno;
        close(ring);
        errno = error;
        return -1;
    }
    pins[slot].address = box->arguments[0];
    pins[slot].ring = ring;
    return result;
}

/* Take back the buffer at arguments[0], or all of them where that is 0. */
static long unpin(struct mailbox *box)
{
    long result = -1;
    int error = ENXIO;
    for (int i = 0; i < PINS; i++)
        if (pins[i].address && (!box->arguments[0] || pins[i].address == (uint64_t)box->arguments[0])) {
            result = syscall(SYS_io_uring_register, pins[i].ring, 1 /* IORING_UNREGISTER_BUFFERS */, NULL, 0);
            error = errno;
            close(pins[i].ring);
            pins[i].address = 0;
            if (result < 0 || box->arguments[0])
                break;
        }
    errno = error;
    return result;
}

/* Keys are allocated in order, 1 upwards, when an operation first names them. */
static long protect_by_key(struct mailbox *box)
{
    int key = box->arguments[3];
    while (keys_allocated < key) {
        if (syscall(SYS_pkey_alloc, 0, 0) < 0)
            break;
        keys_allocated++;
    }
    return syscall(SYS_pkey_mprotect, box->arguments[0], box->arguments[1], box->arguments[2], key);
}

static long write_pkru(struct mailbox *box)
{
    uint32_t value, high;
    __asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(value), "=d"(high) : "c"(0)); /* rdpkru */
    value &= ~(3u << 2 * box->arguments[0]);
    value |= (uint32_t)box->arguments[1] << 2 * box->arguments[0];
    __asm__ volatile(".byte 0x0f, 0x01, 0xef" : : "a"(value), "c"(0), "d"(0) : "memory"); /* wrpkru */
    return 0;
}

static long scan_pagemap(struct mailbox *box)
{
    /* struct pm_scan_arg: size flags start end walk_end vec vec_len max_pages inverted mask anyof return_mask */
    uint64_t request[12];
    for (int i = 0; i < 12; i++)
        request[i] = box->arguments[i];
    if (box->arguments[12])
        request[5] = (uint64_t)box->regions;
    int fd = box->arguments[13] ? open("/proc/self/pagemap", O_RDONLY) : -1;
    long result = ioctl(fd, 0xc0606610UL /* PAGEMAP_SCAN */, request);
    int error = errno;
    if (fd >= 0)
        close(fd);
    box->scan_end = request[4];
    long most = sizeof box->regions / sizeof *box->regions;
    box->region_count = result < 0 ? 0 : result < most ? result : most;
    if (!box->arguments[12]) /* the scenario's own vector took the regions */
        memcpy(box->regions, (void *)request[5], box->region_count * sizeof *box->regions);
    errno = error;
    return result;
}

static long move_pages(struct mailbox *box)
{
    enum { LIMIT = 65536 };
    static void *pages[LIMIT];
    static int nodes[LIMIT], status[LIMIT];
    long count = box->arguments[1];
    if (count > LIMIT) {
        errno = E2BIG;
        return -1;
    }
    for (long i = 0; i < count; i++) {
        pages[i] = (void *)(box->arguments[0] + i * PAGE);
        nodes[i] = box->arguments[2];
        status[i] = -999; /* not written by the call */
    }
    long result = syscall(SYS_move_pages, 0, count, pages, nodes, status, 2 /* MPOL_MF_MOVE */);
    int error = errno;
    for (long i = 0; i < count && i < 64; i++)
        box->values[box->value_count++] = status[i];
    errno = error;
    return result;
}

/* Stay in user mode, marked by r15, until the host has read CR3. */
static void spin(struct mailbox *box)
{
    volatile int64_t *go = &box->go;
    __asm__ volatile("mov %1, %%r15\n1: pause\ncmpq $0, (%0)\nje 1b\nxor %%r15, %%r15"
                     :
                     : "r"(go), "r"(SPIN_MARK)
                     : "r15", "cc", "memory");
}

static long read_into(struct mailbox *box)
{
    if (zero_device < 0)
        zero_device = open("/dev/zero", O_RDONLY);
    return read(zero_device, (void *)box->arguments[0], 1);
}

/* Whole pages of one byte, which a page merge finds alike. */
static long fill(struct mailbox *box)
{
    volatile uint64_t address = box->arguments[0];
    volatile uint64_t end = address + box->arguments[1];
    for (; address < end; address += PAGE)
        if (!sigsetjmp(landing, 0))
            memset((void *)address, 0x5a, PAGE);
    return 0;
}

static long execute(struct mailbox *box)
{
    int64_t *a = box->arguments;
    uint8_t byte;
    long result;
    switch (box->operation) {
    case OP_MMAP: return syscall(SYS_mmap, a[0], a[1], a[2], a[3], a[4] < 0 ? -1 : files[a[4]], a[5]);
    case OP_MUNMAP: return syscall(SYS_munmap, a[0], a[1]);
    case OP_MPROTECT: return syscall(SYS_mprotect, a[0], a[1], a[2]);
    case OP_MREMAP: return syscall(SYS_mremap, a[0], a[1], a[2], a[3], a[4]);
    case OP_MADVISE: return syscall(SYS_madvise, a[0], a[1], a[2]);
    case OP_MLOCK: return syscall(SYS_mlock, a[0], a[1]);
    case OP_MUNLOCK: return syscall(SYS_munlock, a[0], a[1]);
    case OP_WRITE: touch(box, 1); return 0;
    case OP_READ: touch(box, 0); return 0;
    case OP_MEM_WRITE: touch_memory_file(box, 1); return 0;
    case OP_MEM_READ: touch_memory_file(box, 0); return 0;
    case OP_SYSCALL_READ_INTO: return read_into(box);
    case OP_FILE_WRITE:
        byte = a[2];
        result = pwrite(files[a[0]], &byte, 1, a[1]);
        box->values[box->value_count++] = byte;
        return result;
    case OP_FILE_READ:
        byte = 0;
        result = pread(files[a[0]], &byte, 1, a[1]);
        box->values[box->value_count++] = byte;
        return result;
    case OP_FTRUNCATE: return ftruncate(files[a[0]], a[1]);
    case OP_CLEAR_REFS: return clear_refs(box);
    case OP_FORK: return fork_worker(box);
    case OP_EXIT: _exit(0);
    case OP_SETUID: return become_user(box);
    case OP_UFFD_OPEN: return open_uffd(box);
    case OP_UFFD_REGISTER: return register_uffd(box);
    case OP_UFFD_UNREGISTER: return unregister_uffd(box);
    case OP_UFFD_PROTECT: return protect_uffd(box);
    case OP_PIN: return pin(box);
    case OP_UNPIN: return unpin(box);
    case OP_PKEY_MPROTECT: return protect_by_key(box);
    case OP_WRPKRU: return write_pkru(box);
    case OP_PAGEMAP_SCAN: return scan_pagemap(box);
    case OP_MOVE_PAGES: return move_pages(box);
    case OP_REMAP_FILE: return syscall(SYS_remap_file_pages, a[0], a[1], 0, a[2], 0);
    case OP_FILL: return fill(box);
    case OP_SYNC: return fdatasync(files[a[0]]);
    case OP_SWAPOFF: return swapoff(swap_device);
    case OP_SWAPON: return swapon(swap_device, 0);
    case OP_SPIN: spin(box); return 0;
    }
    errno = ENOSYS;
    return -1;
}

/* A worker's life: one operation for each byte of its socket. */
static void serve(int who)
{
    signal(SIGCHLD, SIG_IGN);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    char byte;
    while (read(workers[who].ends[1], &byte, 1) == 1) {
        errno = 0;
        MAILBOX->result = execute(MAILBOX);
        MAILBOX->error = MAILBOX->result == -1 ? errno : 0;
        if (write(workers[who].ends[1], "k", 1) != 1)
            break;
    }
    _exit(0);
}

/* ---- the controller: workers ---- */

static void adopt(int who, int pid)
{
    char path[64];
    struct worker *w = &workers[who];
    w->pid = pid;
    w->pinned = 0;
    w->pidfd = syscall(SYS_pidfd_open, pid, 0); /* -1 before Linux 5.3: `ask` looks for the process */
    snprintf(path, sizeof path, "/proc/%d/pagemap", pid);
    w->pagemap = open(path, O_RDONLY | O_CLOEXEC);
    if (w->pagemap < 0)
        give_up(path);
    MAILBOX->pids[who] = pid;
}

/* Wait until a process that exits or was killed is gone with all that it held. */
static void bury(int who)
{
    struct worker *w = &workers[who];
    for (int i = 0; kill(w->pid, 0) == 0; i++) {
        if (i == 10000)
            give_up("a process does not end");
        sleep_ms(1);
    }
    close(w->pagemap);
    if (w->pidfd >= 0)
        close(w->pidfd);
    if (w->pinned)
        sleep_ms(50); /* an io_uring drops its pins from a kernel thread */
    w->pid = 0;
    MAILBOX->pids[who] = 0;
}

/* Have a worker execute the operation of the mailbox. Returns 0 when it died instead of answering. */
static int ask(int who)
{
    struct worker *w = &workers[who];
    MAILBOX->value_count = MAILBOX->process = MAILBOX->region_count = 0;
    if (write(w->ends[0], "o", 1) != 1)
        give_up("socket");
    struct pollfd both[2] = {{.fd = w->ends[0], .events = POLLIN}, {.fd = w->pidfd, .events = POLLIN}};
    for (;;) {
        int ready = poll(both, 2, w->pidfd < 0 ? 20 : -1);
        char byte;
        if (ready > 0 && both[0].revents & POLLIN)
            return read(w->ends[0], &byte, 1) == 1;
        if (ready > 0 && both[1].revents)
            return 0;
        if (ready == 0 && kill(w->pid, 0) < 0)
            return 0;
    }
}

static void free_hugetlb_pages(void)
{
    char line[128];
    for (int i = 0; i < 500; i++) {
        long available = -1;
        FILE *f = fopen("/proc/meminfo", "r");
        while (f && fgets(line, sizeof line, f))
            sscanf(line, "HugePages_Free: %ld", &available);
        if (f)
            fclose(f);
        if (available == 8)
            return;
        sleep_ms(2);
    }
    errno = 0;
    give_up("the 8 hugetlb pages of a scenario are not free");
}

/* Some sequences of operations leave pages reserved for ever: what comes next needs another machine. */
static int reservations_left(void)
{
    static const char *const pools[] = {
        "/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages",
    };
    for (int i = 0; i < 2; i++)
        if (access(pools[i], R_OK) == 0 && read_number(pools[i]) != 0)
            return 1;
    return 0;
}

/* A file of zeros without a name: in memory, or number DISK_FILE on the disk where there is one. */
static int new_file(int number)
{
    int fd = number == DISK_FILE ? -1 : memfd_create("scenario", 0);
    if (fd < 0) { /* before Linux 3.17 */
        const char *path = number == DISK_FILE ? "/disk/file" : "/memory/file";
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        unlink(path);
    }
    if (number == DISK_FILE) {
        static const char zeros[PAGE];
        for (int i = 0; fd >= 0 && i < DISK_FILE_PAGES; i++)
            if (write(fd, zeros, PAGE) != PAGE)
                give_up("/disk");
        return fd;
    }
    if (fd < 0 || ftruncate(fd, FILE_PAGES * PAGE) < 0)
        give_up("a file in memory");
    return fd;
}

static void begin(void)
{
    window = MAILBOX->arguments[0];
    free_hugetlb_pages();
    for (int i = 0; i < FILES; i++)
        files[i] = new_file(i);
    for (int i = 0; i < WORKERS; i++)
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, workers[i].ends) < 0)
            give_up("socketpair");
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0)
        serve(0);
    adopt(0, pid);
}

static void end(void)
{
    for (int i = 0; i < WORKERS; i++)
        if (workers[i].pid) {
            kill(workers[i].pid, SIGKILL);
            bury(i);
        }
    for (int i = 0; i < WORKERS; i++) {
        close(workers[i].ends[0]);
        close(workers[i].ends[1]);
    }
    for (int i = 0; i < FILES; i++)
        if (files[i] >= 0)
            close(files[i]);
    if (ksm_used) {
        must_write("/sys/kernel/mm/ksm/run", "2");
        must_write("/sys/kernel/mm/ksm/run", "0");
        write_file("/sys/kernel/mm/ksm/use_zero_pages", "0");
        ksm_used = 0;
    }
    if (swap_device && swapon(swap_device, 0) < 0 && errno != EBUSY)
        give_up("swapon");
}

/* Five full passes of ksmd, then stop it. It scans even when the scenario offers it nothing: see `set_policy`. */
static void scan_ksm(void)
{
    ksm_used = 1;
    write_file("/sys/kernel/mm/ksm/use_zero_pages", MAILBOX->arguments[0] ? "1" : "0"); /* since Linux 4.12 */
    must_write("/sys/kernel/mm/ksm/pages_to_scan", "100000");
    must_write("/sys/kernel/mm/ksm/sleep_millisecs", "1");
    long goal = read_number("/sys/kernel/mm/ksm/full_scans") + 5;
    must_write("/sys/kernel/mm/ksm/run", "1");
    for (int i = 0; read_number("/sys/kernel/mm/ksm/full_scans") < goal; i++) {
        if (i == 10000) {
            errno = 0;
            give_up("ksmd does not scan");
        }
        sleep_ms(1);
    }
    must_write("/sys/kernel/mm/ksm/run", "0");
    MAILBOX->result = MAILBOX->error = MAILBOX->value_count = 0;
}

/* ---- the controller: the state of the live processes ---- */

enum { VMA_WORDS = 16, RUN_WORDS = 6, MOST_VMAS = 8192 };

static void put(int64_t word)
{
    if (MAILBOX->state_words == STATE_WORDS) {
        errno = 0;
        give_up("the state of a step is too large for the mailbox");
    }
    MAILBOX->state[MAILBOX->state_words++] = word;
}

static struct { uint64_t start, end; } vmas[MOST_VMAS];

/* Put a record {start, end, AnonHugePages, ShmemPmdMapped, 96 characters of rights and flags} for each VMA of the window. */
static int put_vmas(int pid)
{
    char path[64], line[512], text[96];
    snprintf(path, sizeof path, "/proc/%d/smaps", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        give_up(path);
    int count = 0;
    uint64_t start = 0, end = 0, anon = 0, shmem = 0, value, value2;
    while (fgets(line, sizeof line, f)) {
        char rights[8];
        if (sscanf(line, "%lx-%lx %4s", &value, &value2, rights) == 3) {
            start = value;
            end = value2;
            memset(text, 0, sizeof text);
            strcpy(text, rights);
            anon = shmem = 0;
        } else if (sscanf(line, "AnonHugePages: %lu", &value) == 1) {
            anon = value;
        } else if (sscanf(line, "ShmemPmdMapped: %lu", &value) == 1) {
            shmem = value;
        } else if (!strncmp(line, "VmFlags:", 8) && start >= window && start < window + WINDOW_BYTES) {
            if (count == MOST_VMAS)
                give_up("too many VMAs");
            strncat(text, line + 8, sizeof text - 1 - strlen(text));
            /* smaps of Linux before 4.12 leaves out the guard page that a stack has mapped below its start. */
            uint64_t guard = strstr(line, " gd") ? PAGE : 0;
            vmas[count].start = count && vmas[count - 1].end > start - guard ? start : start - guard;
            vmas[count++].end = end;
            put(start);
            put(end);
            put(anon);
            put(shmem);
            for (unsigned i = 0; i < sizeof text; i += 8) {
                int64_t word;
                memcpy(&word, text + i, 8);
                put(word);
            }
        }
    }
    fclose(f);
    return count;
}

/* A run of pages: flags are bits 55..63 of their pagemap entries, frame and step as in the format. */
static struct run {
    uint64_t page, count, flags, frame, step, kind;
} run;
static int run_count;

static void flush_run(void)
{
    if (!run.count)
        return;
    uint64_t words[RUN_WORDS] = {run.page, run.count, run.flags, run.frame, run.step, run.kind};
    for (int i = 0; i < RUN_WORDS; i++)
        put(words[i]);
    run_count++;
    run.count = 0;
}

static void add_page(uint64_t page, uint64_t entry, uint64_t kind)
{
    uint64_t flags = entry >> 55;
    uint64_t frame = entry >> 62 ? entry & ((1UL << 55) - 1) : 0; /* of a swapped page: type and offset */
    if (!flags) {
        flush_run();
        return;
    }
    if (run.count && page == run.page + run.count && flags == run.flags && kind == run.kind && !frame == !run.frame) {
        if (run.count == 1 && frame == run.frame + 1)
            run.step = 1;
        if (frame == run.frame + run.count * run.step) {
            run.count++;
            return;
        }
    }
    flush_run();
    run = (struct run){page, 1, flags, frame, 0, kind};
}

/* kpageflags, read ahead in blocks: `kinds_valid` words from frame `kinds_first`, forgotten after each step. */
static uint64_t kinds[512], kinds_first, kinds_valid;

/* The frame of the zero page, which kpageflags names since Linux 4.0 only. */
static uint64_t zero_frame;

static uint64_t kind_of(uint64_t frame)
{
    if (frame < kinds_first || frame >= kinds_first + kinds_valid) {
        ssize_t n = pread(kpageflags, kinds, sizeof kinds, frame * 8);
        if (n < 8)
            give_up("/proc/kpageflags");
        kinds_first = frame;
        kinds_valid = n / 8;
    }
    /* ANON, HUGE, THP, ZERO_PAGE */
    return (kinds[frame - kinds_first] & (1UL << 12 | 1UL << 17 | 1UL << 22 | 1UL << 24)) | (uint64_t)(frame == zero_frame) << 24;
}

static void put_pages(int pagemap, uint64_t start, uint64_t end)
{
    enum { BLOCK = 8192 };
    static uint64_t entries[BLOCK];
    for (uint64_t page = start / PAGE; page < end / PAGE;) {
        uint64_t want = end / PAGE - page < BLOCK ? end / PAGE - page : BLOCK;
        ssize_t n = pread(pagemap, entries, want * 8, page * 8);
        if (n < 8)
            give_up("pagemap");
        for (int i = 0; i < n / 8; i++, page++) {
            uint64_t frame = entries[i] >> 63 ? entries[i] & ((1UL << 55) - 1) : 0;
            add_page(page, entries[i], frame ? kind_of(frame) : 0);
        }
    }
}

static void put_state(void)
{
    MAILBOX->state_words = 0;
    kinds_valid = 0;
    for (int who = 0; who < WORKERS; who++) {
        struct worker *w = &workers[who];
        if (!w->pid)
            continue;
        put(who);
        int at = MAILBOX->state_words;
        put(0);
        put(0);
        int count = put_vmas(w->pid);
        run_count = 0;
        for (int i = 0; i < count; i++)
            put_pages(w->pagemap, vmas[i].start, vmas[i].end);
        flush_run();
        MAILBOX->state[at] = count;
        MAILBOX->state[at + 1] = run_count;
    }
}

/* Execute the operation of the mailbox, follow what it does to the set of live processes, and put the state. */
static void operate(void)
{
    int who = MAILBOX->who;
    struct worker *w = &workers[who];
    if (MAILBOX->operation == OP_CLEAR_REFS)
        MAILBOX->arguments[0] = workers[MAILBOX->arguments[0]].pid;
    if (MAILBOX->operation == OP_KSM_SCAN)
        scan_ksm();
    else if (!ask(who)) {
        bury(who);
        if (MAILBOX->operation != OP_EXIT) {
            say("D process %d died in the operation", who);
            return;
        }
        MAILBOX->result = MAILBOX->error = 0;
    } else if (MAILBOX->result == 0 && MAILBOX->operation == OP_FORK) {
        adopt(MAILBOX->arguments[0], MAILBOX->process);
    } else if (MAILBOX->result == 0 && MAILBOX->operation == OP_SETUID) {
        int own = syscall(SYS_pidfd_getfd, w->pidfd, (int)MAILBOX->arguments[0], 0);
        if (own >= 0) {
            close(w->pagemap);
            w->pagemap = own;
        } else if (w->pidfd >= 0) { /* without pidfd, before Linux 4.2, a page map hides no frames */
            give_up("pidfd_getfd");
        }
    } else if (MAILBOX->result == 0 && MAILBOX->operation == OP_PIN) {
        w->pinned = 1;
    }
    put_state();
    say("K");
}

/* At most arguments[1] bytes of a file from arguments[0] on, into `state`. A path opens it, and it stays open for calls without. */
static void read_file(void)
{
    static int kept = -1;
    if (MAILBOX->text[0]) {
        if (kept >= 0)
            close(kept);
        kept = open(MAILBOX->text, O_RDONLY | O_CLOEXEC);
    }
    char *to = (char *)MAILBOX->state;
    int64_t from = MAILBOX->arguments[0], most = MAILBOX->arguments[1], done = 0;
    ssize_t n = kept < 0 ? -1 : 0;
    if (kept >= 0)
        while (done < most && (n = pread(kept, to + done, most - done, from + done)) > 0)
            done += n;
    MAILBOX->result = n < 0 ? -1 : done;
    MAILBOX->error = n < 0 ? errno : 0;
    say("K");
}

/* ---- start-up ---- */

static void load_modules(void)
{
    char path[64];
    for (int i = 0;; i++) {
        snprintf(path, sizeof path, "/modules/%d.ko", i);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return;
        if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
            give_up(path);
        close(fd);
    }
}

/* Swap on zram, or on a RAM disk where the kernel has no zram; none where it has neither (its modules are missing). */
static void swap_on(void)
{
    enum { ZRAM_PAGES = 65536, DISK_PAGES = 32768 };
    char header[PAGE], size[32];
    snprintf(size, sizeof size, "%lu", ZRAM_PAGES * PAGE);
    int zram = write_file("/sys/block/zram0/disksize", size) == 0;
    swap_device = zram ? "/dev/zram0" : "/dev/ram0";
    if (access(swap_device, F_OK) < 0) {
        swap_device = NULL;
        return;
    }
    memset(header, 0, sizeof header);
    uint32_t version_and_last_page[2] = {1, (zram ? ZRAM_PAGES : DISK_PAGES) - 1};
    memcpy(header + 1024, version_and_last_page, sizeof version_and_last_page);
    memcpy(header + PAGE - 10, "SWAPSPACE2", 10);
    int fd = open(swap_device, O_WRONLY);
    if (fd < 0 || write(fd, header, PAGE) != PAGE || fsync(fd) < 0)
        give_up(swap_device);
    close(fd);
    if (swapon(swap_device, 0) < 0)
        give_up("swapon");
}

/* The file system of /disk.image, if there is one, on a RAM disk at /disk: its files count dirty pages. */
static void mount_disk(void)
{
    static char block[1 << 16];
    int image = open("/disk.image", O_RDONLY), disk = open("/dev/ram1", O_WRONLY);
    ssize_t n = 0;
    while (image >= 0 && disk >= 0 && (n = read(image, block, sizeof block)) > 0)
        if (write(disk, block, n) != n)
            give_up("/dev/ram1");
    if (image >= 0)
        close(image);
    if (disk >= 0)
        close(disk);
    mount("/dev/ram1", "/disk", "ext2", 0, NULL);
}

static void set_policy(void)
{
    /* What an older kernel lacks is written with write_file. */
    must_write("/proc/sys/vm/overcommit_memory", "1");
    write_file("/proc/sys/vm/compaction_proactiveness", "0");
    write_file("/proc/sys/vm/watermark_boost_factor", "0");
    must_write("/proc/sys/kernel/randomize_va_space", "0");
    write_file("/proc/sys/kernel/numa_balancing", "0");
    must_write("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "1000000000");
    must_write("/sys/kernel/mm/transparent_hugepage/khugepaged/alloc_sleep_millisecs", "1000000000");
    must_write("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
    must_write("/sys/kernel/mm/transparent_hugepage/defrag", "madvise");
    must_write("/sys/kernel/mm/transparent_hugepage/use_zero_page", "1");
    write_file("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "advise");
    must_write("/sys/kernel/mm/ksm/run", "0");
    must_write("/proc/sys/vm/nr_hugepages", "9");
    must_write("/proc/self/clear_refs", "4"); /* 3.11's page maps have their second layout from the first one on */

    /* khugepaged looks once at the first process that asks for huge pages: let that be this one, then let it sleep. */
    const char *scans = "/sys/kernel/mm/transparent_hugepage/khugepaged/full_scans";
    long before = read_number(scans);
    volatile char *bait = mmap(NULL, BAIT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bait == MAP_FAILED)
        give_up("MADV_HUGEPAGE");
    *bait = 1; /* an area without an anon_vma is not looked at */
    if (madvise((void *)bait, BAIT_BYTES, MADV_HUGEPAGE) || madvise((void *)bait, BAIT_BYTES, MADV_DONTFORK))
        give_up("MADV_HUGEPAGE");
    for (int i = 0; i < 100 && read_number(scans) == before; i++)
        sleep_ms(10);
    sleep_ms(50);

    /* ksmd makes passes only while some process offers it a page; this one matches no other. */
    uint64_t *lure = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (lure == MAP_FAILED || madvise(lure, PAGE, MADV_MERGEABLE) || madvise(lure, PAGE, MADV_DONTFORK))
        give_up("MADV_MERGEABLE");
    *lure = SPIN_MARK;
}

static uint64_t frame_of(volatile void *address)
{
    uint64_t entry;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    if (fd < 0 || pread(fd, &entry, 8, (uint64_t)address / PAGE * 8) != 8)
        give_up("/proc/self/pagemap");
    close(fd);
    return entry & ((1UL << 55) - 1);
}

static void find_zero_frame(void)
{
    volatile char *page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || *page)
        give_up("a page of zeros");
    zero_frame = frame_of(page);
}

static void open_mailbox(void)
{
    void *box = mmap(MAILBOX, MAILBOX_BYTES, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB | MAP_POPULATE, -1, 0);
    if (box == MAP_FAILED)
        give_up("mailbox");
    memset(box, 0, MAILBOX_BYTES);
    say("P %lx%s", frame_of(box) * PAGE, swap_device ? "" : " noswap");
}

int main(void)
{
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    port = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios mode;
    if (port < 0 || tcgetattr(port, &mode) < 0)
        return 1;
    cfmakeraw(&mode);
    cfsetspeed(&mode, B115200);
    mode.c_cflag |= CLOCAL;
    tcsetattr(port, TCSANOW, &mode);
    signal(SIGCHLD, SIG_IGN);
    load_modules();
    set_policy();
    swap_on();
    mount("tmpfs", "/memory", "tmpfs", 0, NULL);
    mount_disk();
    kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
    if (kpageflags < 0)
        give_up("/proc/kpageflags");
    find_zero_frame();
    open_mailbox();
    char byte;
    while (read(port, &byte, 1) == 1) {
        switch (MAILBOX->command) {
        case COMMAND_BEGIN: begin(); say("K"); break;
        case COMMAND_SPIN:
            MAILBOX->operation = OP_SPIN;
            say(ask(MAILBOX->who) ? "K" : "D the new process died");
            break;
        case COMMAND_OPERATION: operate(); break;
        case COMMAND_FILE: read_file(); break;
        case COMMAND_END: end(); say(reservations_left() ? "K spent" : "K"); break;
        default: say("E unknown command %ld", MAILBOX->command);
        }
    }
    return 1;
}
