/* What is forbidden, tried: each case in a process of its own, as nothing of it can be undone. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/sanitize.h"
#include "sandbox/sandbox.h"

#if defined(SANITIZE_ADDRESS) || defined(SANITIZE_THREAD)
#define IS_SANITIZED true /* the filter leaves them what they need */
#else
#define IS_SANITIZED false
#endif

static char dir[64];

static void say(struct gbuf *notes)
{
    if (notes->n)
        fprintf(stderr, STR_FMT, STR_ARG(gbuf_view(notes)));
    gbuf_free(notes);
}

static bool enter(void)
{
    struct gbuf notes = {0};
    struct user user = {0};
    bool files, calls;
    const struct file_rule rules[] = {{dir, FILE_KEEP, false}, {"/nowhere/at/all", FILE_READ, false}};
    bool ok = user_become(&user, &notes) == 0 && files_lock(rules, COUNT_OF(rules), &files, &notes) == 0 &&
              calls_lock(&calls, &notes) == 0;
    say(&notes);
    return ok && files && calls;
}

/* Runs `attempt` inside the sandbox. Returns its result (0..100), or 128 + the signal that ended it. */
static int inside(int (*attempt)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(enter() ? attempt() : 99);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int result(long rc)
{
    return rc < 0 ? errno : 0;
}

static int nothing(void)
{
    return 0;
}

static int write_shadow(void)
{
    return result(open("/etc/shadow", O_WRONLY));
}

static int read_passwd(void)
{
    return result(open("/etc/passwd", O_RDONLY));
}

static int make_outside(void)
{
    return result(open("/tmp/postern-sandbox-outside", O_WRONLY | O_CREAT, 0600));
}

static int keep_inside(void)
{
    char a[96], b[96];
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    int fd = open(a, O_RDWR | O_CREAT, 0600);
    return fd >= 0 && ftruncate(fd, 4096) == 0 && rename(a, b) == 0 && unlink(b) == 0 ? 0 : errno;
}

static int run_program(void)
{
    char program[] = "/bin/true", *argv[] = {program, NULL};
    return result(execv(argv[0], argv));
}

static int trace(void)
{
    return result(ptrace(PTRACE_TRACEME, 0, 0, 0));
}

static int make_process(void)
{
    return result(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL));
}

static int make_ring(void)
{
    char params[120] = {0};
    return result(syscall(SYS_io_uring_setup, 8, params));
}

static int packet_socket(void)
{
    return result(socket(AF_PACKET, SOCK_RAW, 0));
}

static int alg_socket(void)
{
    return result(socket(AF_ALG, SOCK_SEQPACKET, 0));
}

static int inet_socket(void)
{
    return result(socket(AF_INET6, SOCK_STREAM, 0)) | result(socket(AF_INET, SOCK_DGRAM, 0)) |
           result(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int writable_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                   MAP_FAILED
               ? errno
               : 0;
}

static int become_code(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return result(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int kill_others(void)
{
    return result(syscall(SYS_tgkill, getppid(), getppid(), 0));
}

static int unknown_call(void)
{
    return result(syscall(SYS_quotactl, 0, NULL, 0, NULL));
}

static int open_by_handle(void)
{
    return result(syscall(SYS_open_by_handle_at, -1, NULL, 0));
}

static int capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct now[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capget, &head, now) < 0)
        return errno;
    return now[0].effective || now[0].permitted || now[1].effective || now[1].permitted ||
           prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1;
}

static void *thread_main(void *arg)
{
    *(int *)arg = open("/etc/passwd", O_RDONLY) < 0 ? errno : 0;
    return NULL;
}

static int threads(void)
{
    pthread_t t;
    int said = 0;
    if (pthread_create(&t, NULL, thread_main, &said) || pthread_join(t, NULL))
        return 1;
    return said;
}

static const struct {
    const char *name;
    int (*attempt)(void);
    int wanted;
    bool plain_only; /* sanitizers are left this */
} cases[] = {
    {"nothing", nothing, 0, false},
    {"the spool", keep_inside, 0, false},
    {"sockets of the internet", inet_socket, 0, false},
    {"no capability, no new privileges", capabilities, 0, false},
    {"writing /etc/shadow", write_shadow, EACCES, false},
    {"reading /etc/passwd", read_passwd, EACCES, false},
    {"a thread reading /etc/passwd", threads, EACCES, false},
    {"a file outside", make_outside, EACCES, false},
    {"a packet socket", packet_socket, EAFNOSUPPORT, false},
    {"a crypto socket", alg_socket, EAFNOSUPPORT, false},
    {"code that can be written", writable_code, EPERM, false},
    {"memory made code", become_code, EPERM, false},
    {"signals to others", kill_others, EPERM, false},
    {"a call that is not in the table", unknown_call, ENOSYS, false},
    {"another process", make_process, EPERM, true},
    {"a program", run_program, 128 + SIGSYS, true},
    {"ptrace", trace, 128 + SIGSYS, true},
    {"another ring", make_ring, 128 + SIGSYS, false},
    {"files by handle", open_by_handle, 128 + SIGSYS, false},
};

static void test_forbidden(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        if (cases[i].plain_only && IS_SANITIZED)
            continue;
        int said = inside(cases[i].attempt);
        if (said != cases[i].wanted)
            fail_msg("%s: %d, not %d", cases[i].name, said, cases[i].wanted);
    }
}

/* A filter that comes when threads are there is for them too. */
static pthread_barrier_t barrier;

static void *late_main(void *arg)
{
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    *(int *)arg = socket(AF_PACKET, SOCK_RAW, 0) < 0 ? errno : 0;
    return NULL;
}

static int all_threads(void)
{
    pthread_t t;
    struct gbuf notes = {0};
    int said = 0;
    bool on;
    pthread_barrier_init(&barrier, NULL, 2);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || pthread_create(&t, NULL, late_main, &said))
        return 1;
    pthread_barrier_wait(&barrier);
    if (calls_lock(&on, &notes))
        return 2;
    pthread_barrier_wait(&barrier);
    return pthread_join(t, NULL) ? 3 : said;
}

static void test_all_threads(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        _exit(all_threads());
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EAFNOSUPPORT);
}

static void test_readable(void **state)
{
    (void)state;
    const struct file_rule rules[] = {{"/etc/postern/postern.yaml", FILE_READ, true},
                                      {"/var/spool/postern", FILE_KEEP, false},
                                      {"/run/postern/admin.sock", FILE_DOOR, true}};
    const struct {
        const char *path;
        bool wanted;
    } rows[] = {{"/etc/postern/new.pem", true}, {"/etc/postern", true},           {"/etc/postern2/x", false},
                {"/etc/passwd", false},         {"/var/spool/postern/a/b", true}, {"/run/postern/x", false}};
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(files_readable(rules, COUNT_OF(rules), rows[i].path), rows[i].wanted);
}

static void test_unknown_user(void **state)
{
    (void)state;
    struct gbuf notes = {0};
    struct user u;
    assert_int_equal(user_choose(&u, STR("no-such-user-here"), &notes), ERR_NOT_FOUND);
    assert_non_null(memmem(notes.p, notes.n, "useradd", 7));
    gbuf_free(&notes);
}

/* As root only: the user changes for good. */
static int change_user(void)
{
    struct gbuf notes = {0};
    struct user u;
    if (user_choose(&u, STR("nobody"), &notes) || user_become(&u, &notes))
        return 1;
    return getuid() == u.uid && getegid() == u.gid && setuid(0) < 0 && capabilities() == 0 ? 0 : 2;
}

static void test_change_user(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    pid_t pid = fork();
    if (pid == 0)
        _exit(change_user());
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forbidden),   cmocka_unit_test(test_all_threads),
        cmocka_unit_test(test_readable),    cmocka_unit_test(test_unknown_user),
        cmocka_unit_test(test_change_user),
    };
    snprintf(dir, sizeof dir, "/tmp/postern-sandbox-XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
