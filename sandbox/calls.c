/* sandbox/calls.c: see sandbox.h. The filter is a list of comparisons; the kernel works out beforehand which
 * calls always pass (since 5.11), so its length costs them nothing. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/sanitize.h"
#include "sandbox/sandbox.h"

#if defined(SANITIZE_ADDRESS) || defined(SANITIZE_THREAD)
#define SANDBOX_SANITIZED 1
#endif

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#error "name the architecture for seccomp"
#endif
#define X32_BIT 0x40000000U /* of x86-64: the same calls under other numbers */

#define FILTER_MAX 512
#define ERRNO(e)   (SECCOMP_RET_ERRNO | ((uint32_t)(e)&SECCOMP_RET_DATA))

/* Little-endian: an argument's lower half comes first. */
#define ARG(i) (uint32_t)(offsetof(struct seccomp_data, args) + (size_t)(i) * sizeof(uint64_t))

struct filter {
    struct sock_filter code[FILTER_MAX];
    size_t n;
};

static void emit(struct filter *f, uint16_t code, uint32_t k)
{
    must(f->n < FILTER_MAX);
    f->code[f->n++] = (struct sock_filter){.code = code, .k = k};
}

/* `then` when what is loaded is `value`. */
static void emit_if(struct filter *f, uint32_t value, uint32_t then)
{
    must(f->n < FILTER_MAX);
    f->code[f->n++] = (struct sock_filter){.code = BPF_JMP | BPF_JEQ | BPF_K, .jf = 1, .k = value};
    emit(f, BPF_RET | BPF_K, then);
}

/* A call that is allowed when an argument, masked, is one of a few values. */
struct by_argument {
    uint32_t call;
    uint8_t arg;
    uint32_t mask;
    uint32_t values[8];
    uint8_t value_count;
    int error; /* else */
};

static void emit_by_argument(struct filter *f, const struct by_argument *r)
{
    must(f->n < FILTER_MAX);
    /* Past the load, the mask, two for each value, and the refusal. */
    f->code[f->n++] = (struct sock_filter){
        .code = BPF_JMP | BPF_JEQ | BPF_K, .jf = (uint8_t)(3 + 2 * r->value_count), .k = r->call};
    emit(f, BPF_LD | BPF_W | BPF_ABS, ARG(r->arg));
    emit(f, BPF_ALU | BPF_AND | BPF_K, r->mask);
    for (unsigned i = 0; i < r->value_count; i++)
        emit_if(f, r->values[i], SECCOMP_RET_ALLOW);
    emit(f, BPF_RET | BPF_K, ERRNO(r->error));
}

#define VALUES(...)                                                                                          \
    .values = {__VA_ARGS__}, .value_count = sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t)
#define ALL UINT32_MAX

static void emit_arguments(struct filter *f)
{
    const struct by_argument rows[] = {
        /* The resolver, the admin side and the relay; NETLINK to ask for our own addresses. */
        {__NR_socket, 0, ALL, VALUES(AF_INET, AF_INET6, AF_UNIX, AF_NETLINK), EAFNOSUPPORT},
        /* No memory that can be written and run. */
        {__NR_mmap, 2, PROT_WRITE | PROT_EXEC, VALUES(0, PROT_WRITE, PROT_EXEC), EPERM},
        {__NR_mprotect, 2, PROT_EXEC, VALUES(0), EPERM},
    /* Threads, no processes. clone3 keeps its flags in memory, where no filter looks: glibc goes back to
     * clone. */
#ifndef SANDBOX_SANITIZED
        {__NR_clone, 0, CLONE_THREAD | CLONE_NEWUSER, VALUES(CLONE_THREAD), EPERM},
#else
        {__NR_clone, 0, CLONE_NEWUSER, VALUES(0), EPERM},
#endif
        {__NR_tgkill, 0, ALL, VALUES((uint32_t)getpid()), EPERM},
        {__NR_ioctl, 1, ALL, VALUES(FIONBIO, FIONREAD, FIOCLEX, TCGETS), ENOTTY},
        {__NR_io_uring_register, 1, ALL,
         VALUES(IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS), EPERM},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        emit_by_argument(f, &rows[i]);
}

static void build(struct filter *f)
{
    emit(f, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    f->code[f->n++] = (struct sock_filter){.code = BPF_JMP | BPF_JEQ | BPF_K, .jt = 1, .k = THIS_ARCH};
    emit(f, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    emit(f, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
    f->code[f->n++] = (struct sock_filter){.code = BPF_JMP | BPF_JGE | BPF_K, .jf = 1, .k = X32_BIT};
    emit(f, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
#endif
#define CALL(name)   emit_if(f, __NR_##name, SECCOMP_RET_ALLOW);
#define DEADLY(name) emit_if(f, __NR_##name, SECCOMP_RET_KILL_PROCESS);
#include "sandbox/calls.def"
#undef CALL
#undef DEADLY
    emit_arguments(f);
    emit(f, BPF_RET | BPF_K, ERRNO(ENOSYS));
}

err_t calls_lock(bool *on, struct gbuf *notes)
{
    struct filter f = {.n = 0};
    build(&f);
    const struct sock_fprog program = {.len = (unsigned short)f.n, .filter = f.code};
    *on = false;
    long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                      SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG, &program);
    if (rc < 0 && errno == ENOSYS) {
        gbuf_cstr(notes, "sandbox: this kernel has no seccomp: every system call stays possible\n");
        return 0;
    }
    if (rc != 0) { /* above 0: the thread that could not be brought along */
        err_t err = rc < 0 ? -errno : -ESRCH;
        gbuf_printf(notes, "sandbox: seccomp cannot be switched on: %s; `sandbox: off` goes without\n",
                    err_text(err));
        return err;
    }
    *on = true;
    return 0;
}
