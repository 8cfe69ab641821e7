/*
 * The guest side of `ptewalk run --against linux`: init of a real kernel, which traces one program.
 *
 * The program runs in /tree, by itself, under ptrace. It stops where an epoch ends; then its areas and page map stand in the
 * mailbox, and nothing runs, so that the host reads page tables at rest. Host and tracer share the mailbox, one 2 MiB
 * hugetlb page: the host writes a command there and one byte to the serial port; the tracer writes the answer there and one
 * line to the port. The layout is that of program_guest.py.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define PAGE 4096UL
#define MAILBOX_BYTES (2UL << 20)
#define MAILBOX ((struct mailbox *)0x200000000UL)
#define TEXT_BYTES 65472
#define MOST_CALLS 8192
#define STATE_WORDS 229376
#define AREA_WORDS 16
#define TASK_END (1UL << 47)
#define USER 1000
#define MARKER 0x70746577
#define PIPE_BYTES (1 << 20)

enum { COMMAND_START = 1, COMMAND_PARK, COMMAND_UNPARK, COMMAND_NEXT, COMMAND_FILE, COMMAND_END };
enum { EPOCH_SYSCALLS = 1, EPOCH_MARKER };
enum { STOPPED_STARTED = 1, STOPPED_EPOCH, STOPPED_ENDED, STOPPED_PROCESS };

struct mailbox {
    /* From the host. */
    int64_t command, unused[2], kind, count, arguments, variables, offset;
    char text[TEXT_BYTES]; /* folder, path, arguments, variables: each ends with a zero byte; or the path of a file */
    /* From the tracer. */
    int64_t stopped, status, calls, logged, areas, pages, bytes, error;
    char padding[65536 - 8 * 8];
    struct {
        int64_t number, result;
    } log[MOST_CALLS];
    int64_t state[STATE_WORDS];
};
_Static_assert(sizeof(struct mailbox) <= MAILBOX_BYTES, "the mailbox does not fit");

static int port = -1;
static pid_t program;
static int pagemap = -1;
static int64_t ended_before; /* the number of the system call before which the last epoch ended */
static int fresh;            /* the program has executed nothing yet */

static void say(const char *format, ...)
{
    char line[256];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(line, sizeof line - 1, format, list);
    va_end(list);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    if (write(port, line, length) != length)
        pause();
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
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    close(fd);
    return n < 0 ? -1 : 0;
}

static void must_write(const char *path, const char *text)
{
    if (write_file(path, text) < 0)
        give_up(path);
}

/* ---- the program ---- */

/* What this program's kernel does not have, the model's has not either. */
static const struct {
    long number;
    int error;
} refused[] = {
    {334 /* rseq */, ENOSYS},     {435 /* clone3 */, ENOSYS}, {324 /* membarrier */, ENOSYS}, {444 /* landlock */, ENOSYS},
    {309 /* getcpu */, ENOSYS}, {41 /* socket */, EAFNOSUPPORT},
};

static int is_refused(long number)
{
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++)
        if (refused[i].number == number)
            return refused[i].error;
    return 0;
}

/* Copy everything from a pipe to a file, in a process of its own. */
static int drained(const char *path)
{
    int ends[2];
    static char block[1 << 16];
    if (pipe(ends) < 0)
        give_up("pipe");
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0) {
        close(ends[1]);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        ssize_t n;
        while ((n = read(ends[0], block, sizeof block)) > 0)
            if (write(fd, block, n) != n)
                break;
        _exit(0);
    }
    close(ends[0]);
    fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
    return ends[1];
}

/* A pipe that gives what the file /stdin holds. */
static int fed(int other, int another)
{
    int ends[2];
    static char block[1 << 16];
    if (pipe(ends) < 0)
        give_up("pipe");
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0) {
        signal(SIGPIPE, SIG_DFL);
        close(ends[0]);
        close(other);
        close(another);
        int fd = open("/stdin", O_RDONLY);
        ssize_t n;
        while (fd >= 0 && (n = read(fd, block, sizeof block)) > 0)
            if (write(ends[1], block, n) != n)
                break;
        _exit(0);
    }
    close(ends[1]);
    return ends[0];
}

static char *next_text(char **at)
{
    char *found = *at;
    *at += strlen(found) + 1;
    return found;
}

static void become_program(int go, int in, int out, int err)
{
    static char *arguments[4096], *variables[4096];
    char *at = MAILBOX->text, *folder = next_text(&at), *path = next_text(&at), byte;
    for (int64_t i = 0; i < MAILBOX->arguments; i++)
        arguments[i] = next_text(&at);
    for (int64_t i = 0; i < MAILBOX->variables; i++)
        variables[i] = next_text(&at);
    if (read(go, &byte, 1) != 1)
        _exit(127);
    struct sched_param usual = {0};
    sched_setscheduler(0, SCHED_OTHER, &usual);
    umask(022);
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    personality(ADDR_NO_RANDOMIZE);
    if (chroot("/tree") || chdir(folder) || setgroups(0, NULL) || setresgid(USER, USER, USER) || setresuid(USER, USER, USER))
        _exit(126);
    execve(path, arguments, variables);
    _exit(125);
}

static int wait_for(void)
{
    int status;
    if (waitpid(program, &status, __WALL) != program)
        give_up("waitpid");
    return status;
}

static void resume(int signal)
{
    if (ptrace(PTRACE_SYSCALL, program, 0, signal) < 0 && errno != ESRCH)
        give_up("PTRACE_SYSCALL");
}

/* Does a signal end the program? It is process 1 of its namespace, which no default action ends. */
static int ends(int signal)
{
    char path[64], line[256];
    unsigned long kept = 1UL << (SIGCHLD - 1) | 1UL << (SIGCONT - 1) | 1UL << (SIGURG - 1) | 1UL << (SIGWINCH - 1), mask;
    snprintf(path, sizeof path, "/proc/%d/status", program);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "SigIgn: %lx", &mask) == 1 || sscanf(line, "SigCgt: %lx", &mask) == 1)
            kept |= mask;
    if (f)
        fclose(f);
    return !(kept >> (signal - 1) & 1);
}

/* Go on to the next stop at a system call's start or end. Returns 0 when the program has ended, or made a process. */
static int to_call(void)
{
    int signal = 0;
    for (;;) {
        resume(signal);
        int status = wait_for();
        signal = 0;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            MAILBOX->stopped = STOPPED_ENDED;
            MAILBOX->status = status;
            return 0;
        }
        if (WSTOPSIG(status) == (SIGTRAP | 0x80))
            return 1;
        int event = status >> 16;
        if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_EXEC) {
            MAILBOX->stopped = STOPPED_PROCESS;
            return 0;
        }
        if (!event && ends(WSTOPSIG(status))) {
            MAILBOX->stopped = STOPPED_ENDED;
            MAILBOX->status = WSTOPSIG(status);
            return 0;
        }
        if (!event)
            signal = WSTOPSIG(status);
    }
}

static struct user_regs_struct registers(void)
{
    struct user_regs_struct found;
    if (ptrace(PTRACE_GETREGS, program, 0, &found) < 0)
        give_up("PTRACE_GETREGS");
    return found;
}

static void set_registers(struct user_regs_struct *values)
{
    if (ptrace(PTRACE_SETREGS, program, 0, values) < 0)
        give_up("PTRACE_SETREGS");
}

/* ---- its memory ---- */

static void put(int64_t word)
{
    static int64_t *const end = MAILBOX->state + STATE_WORDS;
    int64_t *at = MAILBOX->state + AREA_WORDS * MAILBOX->areas + 2 * MAILBOX->pages;
    if (at >= end - AREA_WORDS) {
        errno = 0;
        give_up("the program has more pages than the mailbox holds");
    }
    *at = word;
}

static struct {
    uint64_t start, end;
    char text[AREA_WORDS * 8 - 16];
} area;

static void put_area(void)
{
    int64_t words[AREA_WORDS];
    memcpy(words, &area, sizeof words);
    put(0);
    memcpy(MAILBOX->state + AREA_WORDS * MAILBOX->areas, words, sizeof words);
    MAILBOX->areas++;
}

/* The areas, and of each page that is present or swapped its number and its page map entry. */
static void put_state(void)
{
    enum { BLOCK = 8192 };
    static uint64_t entries[BLOCK];
    char path[64], line[512], rights[8];
    uint64_t start, end;
    MAILBOX->areas = MAILBOX->pages = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps", program);
    FILE *f = fopen(path, "re");
    if (!f)
        give_up(path);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3) {
            memset(&area, 0, sizeof area);
            area.start = start;
            area.end = end;
            strcpy(area.text, rights);
        } else if (!strncmp(line, "VmFlags:", 8) && area.start < TASK_END) {
            strncat(area.text, line + 8, sizeof area.text - 1 - strlen(area.text));
            put_area();
        }
    }
    fclose(f);
    int64_t count = MAILBOX->areas;
    for (int64_t i = 0; i < count; i++) {
        uint64_t page = MAILBOX->state[AREA_WORDS * i] / PAGE, last = MAILBOX->state[AREA_WORDS * i + 1] / PAGE;
        while (page < last) {
            uint64_t want = last - page < BLOCK ? last - page : BLOCK;
            ssize_t n = pread(pagemap, entries, want * 8, page * 8);
            if (n < 8)
                give_up("pagemap");
            for (int j = 0; j < n / 8; j++, page++)
                if (entries[j] >> 62) {
                    put(page);
                    MAILBOX->state[AREA_WORDS * count + 2 * MAILBOX->pages + 1] = entries[j];
                    MAILBOX->pages++;
                }
        }
    }
}

static void clear(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/clear_refs", program);
    must_write(path, "4");
}

/* ---- what system calls tell ---- */

/* A record of /answers, for the end of a call at which RSP is `stack`; `bytes` follow it. None: it is RAX that is told. */
struct answer {
    int64_t call, stack, result, address, bytes;
};

static FILE *answers;
static struct answer answer;

static void next_answer(void)
{
    if (!answers || fread(&answer, sizeof answer, 1, answers) != 1)
        answer.call = INT64_MAX;
}

/* Tell the program what the other side told it: times, inode numbers and random bytes, where the call itself did the same. */
static void tell(int64_t call, struct user_regs_struct *at)
{
    static char data[1 << 20];
    while (answer.call <= call) {
        size_t bytes = answer.bytes;
        if (bytes > sizeof data || fread(data, 1, bytes, answers) != bytes)
            give_up("/answers");
        int same = answer.call == call && (int64_t)at->rsp == answer.stack;
        if (same && !bytes) {
            at->rax = answer.result;
            set_registers(at);
        } else if (same && (int64_t)at->rax == answer.result) {
            struct iovec from = {data, bytes}, to = {(void *)answer.address, bytes};
            process_vm_writev(program, &from, 1, &to, 1, 0);
        }
        next_answer();
    }
}

/* ---- commands ---- */

static void start(void)
{
    int go[2];
    if (pipe(go) < 0)
        give_up("pipe");
    int out = drained("/stdout"), err = drained("/stderr"), in = fed(out, err);
    program = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
    if (program < 0)
        give_up("clone");
    if (program == 0)
        become_program(go[0], in, out, err);
    close(in);
    close(out);
    close(err);
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE
        | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SEIZE, program, 0, options) < 0)
        give_up("PTRACE_SEIZE");
    if (write(go[1], "g", 1) != 1)
        give_up("pipe");
    int status = wait_for();
    if (!WIFSTOPPED(status) || status >> 16 != PTRACE_EVENT_EXEC) {
        errno = 0;
        give_up(WIFEXITED(status) && WEXITSTATUS(status) == 125 ? "the program cannot be executed" : "no execve");
    }
    if (!to_call()) { /* the end of execve */
        errno = 0;
        give_up("the program ended at once");
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/pagemap", program);
    pagemap = open(path, O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        give_up(path);
    MAILBOX->calls = MAILBOX->logged = ended_before = 0;
    MAILBOX->stopped = STOPPED_STARTED;
    fresh = 1;
    answers = fopen("/answers", "re");
    next_answer();
    struct user_regs_struct at = registers();
    tell(0, &at);
    put_state();
}

/* Have the program wait in the kernel, with its tables loaded, while everybody else sleeps: the host reads CR3. */
static void park(void)
{
    if (fresh)
        clear();
    if (fresh && !to_call()) {
        errno = 0;
        give_up("the program made no system call");
    }
    fresh = 0;
    struct user_regs_struct at = registers();
    MAILBOX->status = at.orig_rax;
    at.orig_rax = SYS_pause;
    set_registers(&at);
    resume(0);
}

/* Take it back to the start of the system call at which it was parked. */
static void unpark(void)
{
    if (ptrace(PTRACE_INTERRUPT, program, 0, 0) < 0)
        give_up("PTRACE_INTERRUPT");
    int status = wait_for();
    if (WSTOPSIG(status) != (SIGTRAP | 0x80))
        give_up("no end of pause");
    struct user_regs_struct at = registers();
    at.rip -= 2; /* SYSCALL */
    at.rax = MAILBOX->status;
    at.orig_rax = -1;
    set_registers(&at);
    if (!to_call())
        give_up("the program ended while it was parked");
}

/* The program is at the start of a system call: make it, and those after it, up to the end of an epoch. */
static void next(void)
{
    if (MAILBOX->stopped != STOPPED_STARTED)
        clear();
    MAILBOX->logged = 0;
    for (;;) {
        struct user_regs_struct at = registers();
        long number = at.orig_rax;
        int64_t made = MAILBOX->calls + 1;
        int due = MAILBOX->kind == EPOCH_SYSCALLS ? made % MAILBOX->count == 0 : number == MARKER;
        if (due && made != ended_before) {
            ended_before = made;
            MAILBOX->stopped = STOPPED_EPOCH;
            put_state();
            return;
        }
        int error = is_refused(number);
        if (error) {
            at.orig_rax = -1;
            set_registers(&at);
        }
        if (!to_call()) {
            MAILBOX->calls++; /* exit_group, or what made a process */
            return;
        }
        at = registers();
        if (error) {
            at.rax = -error;
            set_registers(&at);
        }
        tell(made, &at);
        MAILBOX->calls = made;
        if (MAILBOX->logged < MOST_CALLS) {
            MAILBOX->log[MAILBOX->logged].number = number;
            MAILBOX->log[MAILBOX->logged++].result = at.rax;
        }
        if (!to_call())
            return;
    }
}

/* A part of a file into `state`. */
static void read_file(void)
{
    int fd = open(MAILBOX->text, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : pread(fd, MAILBOX->state, sizeof MAILBOX->state, MAILBOX->offset);
    MAILBOX->bytes = n;
    MAILBOX->error = n < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
}

/* The program goes, and what it wrote is whole. */
static void end(void)
{
    kill(program, SIGKILL);
    while (waitpid(-1, NULL, __WALL) > 0)
        ;
}

/* ---- start-up ---- */

static void make_devices(void)
{
    static const struct {
        const char *path;
        int minor;
    } devices[] = {
        {"/tree/dev/null", 3}, {"/tree/dev/zero", 5}, {"/tree/dev/full", 7}, {"/tree/dev/random", 8}, {"/tree/dev/urandom", 9},
    };
    umask(0);
    for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
        mknod(devices[i].path, S_IFCHR | 0666, makedev(1, devices[i].minor));
}

static uint64_t frame_of(volatile void *address)
{
    uint64_t entry;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, &entry, 8, (uint64_t)address / PAGE * 8) != 8)
        give_up("/proc/self/pagemap");
    close(fd);
    return entry & ((1UL << 55) - 1);
}

static void open_mailbox(void)
{
    must_write("/proc/sys/vm/nr_hugepages", "1");
    void *box = mmap(MAILBOX, MAILBOX_BYTES, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB | MAP_POPULATE, -1, 0);
    if (box == MAP_FAILED)
        give_up("mailbox");
    memset(box, 0, MAILBOX_BYTES);
    say("P %lx", frame_of(box) * PAGE);
}

int main(void)
{
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("proc", "/tree/proc", "proc", 0, NULL);
    port = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios mode;
    if (port < 0 || tcgetattr(port, &mode) < 0)
        return 1;
    cfmakeraw(&mode);
    cfsetspeed(&mode, B115200);
    mode.c_cflag |= CLOCAL;
    tcsetattr(port, TCSANOW, &mode);
    struct sched_param first = {.sched_priority = 1};
    if (sched_setscheduler(0, SCHED_FIFO, &first) < 0) /* the program runs when the tracer waits, and never before */
        give_up("SCHED_FIFO");
    must_write("/proc/sys/vm/overcommit_memory", "1");
    must_write("/proc/sys/kernel/randomize_va_space", "0");
    make_devices();
    open_mailbox();
    char byte;
    while (read(port, &byte, 1) == 1) {
        switch (MAILBOX->command) {
        case COMMAND_START: start(); break;
        case COMMAND_PARK: park(); break;
        case COMMAND_UNPARK: unpark(); break;
        case COMMAND_NEXT: next(); break;
        case COMMAND_FILE: read_file(); break;
        case COMMAND_END: end(); break;
        default: say("E unknown command %ld", MAILBOX->command);
        }
        say("K");
    }
    return 1;
}
