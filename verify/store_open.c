/* verify/store_open.c: each start writes the store anew.
 *
 *      verdicts.mdb ──► child ──pipe──► this process ──► cache
 *                                            └─► verdicts.new ── renamed to verdicts.mdb when it is on disk
 *
 * LMDB maps its file and believes the pages: damage shows as SIGSEGV, SIGBUS, or, with bad luck, as a write
 * to somewhere else on some later day. So this process never opens a file that it has not written itself
 * since it started. A child reads the old one and hands over records, each with a checksum; if it does not
 * come to a good end, the old file is set aside and what came out of it counts. A crash meanwhile leaves the
 * old file as it was. It also leaves nothing of fragmentation and free pages. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "verify/store_priv.h"

/* The map is address space, not memory or disk. Records of the longest key on pages that are half full take
 * less than this; the rest is for pages that a reader still holds. */
#define RECORD_MAP_BYTES 1024
#define MAP_BYTES_MIN    ((size_t)64 << 20)

#define CHILD_TIME_S 120 /* for 1,000,000 records it takes about a second */
#define PIPE_BYTES   (1 << 20)

/* What goes through the pipe, with the key and the value behind it. Zeroes: that was all, and it was sound.
 */
struct frame {
    uint16_t key_bytes, value_bytes;
};

struct opening {
    struct verdict_store *store;
    struct verdict_cache *cache;
    MDB_txn *txn;
    uint32_t now_s;
    uint64_t records, damaged, skipped;
    char old[PATH_MAX], new[PATH_MAX], aside[PATH_MAX];
};

err_t store_err(int mdb_rc)
{
    if (mdb_rc >= 0)
        return -mdb_rc;
    if (mdb_rc == MDB_MAP_FULL)
        return ERR_FULL;
    return mdb_rc == MDB_VERSION_MISMATCH ? ERR_VERSION : ERR_CORRUPT;
}

/* --- the child --- */

static bool hand_over(FILE *out, const MDB_val *key, const MDB_val *value)
{
    const struct frame f = {(uint16_t)key->mv_size, (uint16_t)value->mv_size};
    if (!key->mv_size || key->mv_size > VERIFY_KEY_MAX || value->mv_size > VERIFY_KEY_MAX) /* not ours */
        return true;
    return fwrite(&f, sizeof f, 1, out) == 1 && fwrite(key->mv_data, 1, f.key_bytes, out) == f.key_bytes &&
           fwrite(value->mv_data, 1, f.value_bytes, out) == f.value_bytes;
}

static bool hand_over_all(MDB_cursor *cursor, uint64_t count, FILE *out)
{
    static const struct frame end;
    MDB_val key, value;
    uint64_t seen = 0;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    for (; !rc && seen < count; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        if (!hand_over(out, &key, &value))
            return false;
        seen++;
    }
    /* neither fewer than it says, nor pages that lead back to themselves */
    return rc == MDB_NOTFOUND && seen == count && fwrite(&end, sizeof end, 1, out) == 1 && fflush(out) == 0;
}

/* Leaves everything open: the child ends here. */
static bool read_old(const char *path, FILE *out)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_stat stat;
    MDB_cursor *cursor;
    unsigned flags;
    return out && !mdb_env_create(&env) &&
           !mdb_env_open(env, path, MDB_NOSUBDIR | MDB_RDONLY | MDB_NOLOCK, 0600) &&
           !mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) && !mdb_dbi_open(txn, NULL, 0, &dbi) &&
           !mdb_dbi_flags(txn, dbi, &flags) && !flags && !mdb_stat(txn, dbi, &stat) &&
           !mdb_cursor_open(txn, dbi, &cursor) && hand_over_all(cursor, stat.ms_entries, out);
}

NORETURN static void run_child(const char *path, int fd)
{
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM, SIGPIPE};
    const struct rlimit none = {0, 0};
    sigset_t empty;
    for (size_t i = 0; i < COUNT_OF(deadly); i++)
        signal(deadly[i], SIG_DFL); /* to die quietly: nobody's handler, no core, no words */
    sigemptyset(&empty);
    sigprocmask(SIG_SETMASK, &empty, NULL);
    (void)setrlimit(RLIMIT_CORE, &none);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0)
        (void)dup2(null, STDERR_FILENO);
    alarm(CHILD_TIME_S);
    _exit(read_old(path, fdopen(fd, "w")) ? 0 : 1);
}

/* --- taking over --- */

/* A record of the old store; only a failure of the new one is an error. */
static err_t take_over(struct opening *o, str_t key, str_t value)
{
    struct verdict_record r;
    MDB_val k = store_val(key), v = store_val(value);
    if (store_decode(key, value, &r)) {
        o->damaged++;
        return 0;
    }
    verdict_cache_load(o->cache, key, &r, o->now_s);
    if (o->records >= o->store->capacity && !r.pin) {
        o->skipped++;
        return 0;
    }
    int rc = mdb_put(o->txn, o->store->dbi, &k, &v, MDB_APPEND);
    if (rc == MDB_KEYEXIST) /* out of order: from a damaged page */
        rc = mdb_put(o->txn, o->store->dbi, &k, &v, 0);
    o->records += !rc;
    return store_err(rc);
}

/* Until the pipe ends, be it in the middle of a record. *sound: the child came to a good end. */
static err_t take_over_all(struct opening *o, FILE *in, bool *sound)
{
    char key[VERIFY_KEY_MAX], value[VERIFY_KEY_MAX];
    struct frame f;
    err_t err = 0;
    while (!err && fread(&f, sizeof f, 1, in) == 1) {
        *sound = f.key_bytes == 0;
        if (*sound)
            break;
        if (f.key_bytes > sizeof key || f.value_bytes > sizeof value ||
            fread(key, 1, f.key_bytes, in) != f.key_bytes ||
            fread(value, 1, f.value_bytes, in) != f.value_bytes)
            break;
        err = take_over(o, str_of(key, f.key_bytes), str_of(value, f.value_bytes));
    }
    return err;
}

static err_t from_child(struct opening *o, bool *sound)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    (void)fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES); /* fewer switches, where it is allowed */
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        run_child(o->old, ends[1]);
    err_t err = pid < 0 ? -errno : 0;
    close(ends[1]);
    FILE *in = err ? NULL : fdopen(ends[0], "r");
    if (!err && !in)
        err = -errno;
    if (!err)
        err = take_over_all(o, in, sound);
    if (in)
        fclose(in); /* a child that still writes dies of it */
    else
        close(ends[0]);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return err;
}

/* --- files --- */

static err_t set_aside(struct opening *o)
{
    char date[32];
    struct tm tm;
    time_t now = (time_t)o->now_s;
    gmtime_r(&now, &tm);
    strftime(date, sizeof date, "%Y%m%d-%H%M%S", &tm);
    for (unsigned n = 1; n <= 100; n++) {
        struct stat st;
        int length = n == 1 ? snprintf(o->aside, sizeof o->aside, "%s.damaged-%s", o->old, date)
                            : snprintf(o->aside, sizeof o->aside, "%s.damaged-%s-%u", o->old, date, n);
        if (length >= (int)sizeof o->aside)
            return -ENAMETOOLONG;
        if (lstat(o->aside, &st) < 0)
            return rename(o->old, o->aside) < 0 ? -errno : 0;
    }
    return -EEXIST;
}

/* The lock file goes along, so that other programs (mdb_dump) find the one that is in use. */
static err_t rename_new(const struct opening *o, const char *directory)
{
    char from[PATH_MAX + 8], to[PATH_MAX + 8];
    snprintf(from, sizeof from, "%s-lock", o->new);
    snprintf(to, sizeof to, "%s-lock", o->old);
    if (rename(from, to) < 0 || rename(o->new, o->old) < 0)
        return -errno;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    err_t err = fd < 0 || fsync(fd) < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return err;
}

static err_t open_new(struct opening *o)
{
    char lock[PATH_MAX + 8];
    struct verdict_store *s = o->store;
    snprintf(lock, sizeof lock, "%s-lock", o->new);
    (void)unlink(o->new); /* of a start that did not get far */
    (void)unlink(lock);
    int rc = mdb_env_create(&s->env);
    if (!rc)
        rc = mdb_env_set_mapsize(s->env, MAX(s->capacity * RECORD_MAP_BYTES, MAP_BYTES_MIN));
    /* NOTLS: a read transaction belongs to itself, not to the thread that came for it */
    if (!rc)
        rc = mdb_env_open(s->env, o->new, MDB_NOSUBDIR | MDB_NOTLS, 0600);
    if (!rc)
        rc = mdb_txn_begin(s->env, NULL, 0, &o->txn);
    if (!rc)
        rc = mdb_dbi_open(o->txn, NULL, 0, &s->dbi);
    return store_err(rc);
}

static void write_notes(const struct opening *o, bool sound, struct gbuf *notes)
{
    if (!sound)
        gbuf_printf(notes,
                    "the verdict store %s is damaged: %llu records could be read and are used, the file was "
                    "set aside as %s (for a report, or to be removed)\n",
                    o->old, (unsigned long long)o->records, o->aside);
    if (o->damaged)
        gbuf_printf(notes, "%llu records of the verdict store cannot be read and were skipped\n",
                    (unsigned long long)o->damaged);
    if (o->skipped)
        gbuf_printf(notes, "the verdict store is full: %llu records were left out\n",
                    (unsigned long long)o->skipped);
}

static err_t write_anew(struct opening *o, const char *directory, struct gbuf *notes)
{
    struct stat st;
    bool sound = true;
    err_t err = open_new(o);
    if (!err && lstat(o->old, &st) == 0) {
        sound = false;
        err = from_child(o, &sound);
    }
    if (o->txn && !err)
        err = store_err(mdb_txn_commit(o->txn));
    else if (o->txn)
        mdb_txn_abort(o->txn);
    if (!err && !sound)
        err = set_aside(o);
    if (!err)
        err = rename_new(o, directory);
    if (!err)
        write_notes(o, sound, notes);
    return err;
}

err_t store_open_files(struct verdict_store *s, str_t directory, struct verdict_cache *cache,
                       struct gbuf *notes)
{
    char path[PATH_MAX];
    if (directory.n > sizeof path - 64)
        return -ENAMETOOLONG;
    snprintf(path, sizeof path, STR_FMT, STR_ARG(directory));
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    struct opening *o = calloc(1, sizeof *o);
    if (!o)
        return -ENOMEM;
    o->store = s;
    o->cache = cache;
    o->now_s = (uint32_t)(clock_wall_ns() / NS_PER_S);
    snprintf(o->old, sizeof o->old, "%.*s/verdicts.mdb", (int)(sizeof path - 64), path);
    snprintf(o->new, sizeof o->new, "%.*s/verdicts.new", (int)(sizeof path - 64), path);
    err_t err = write_anew(o, path, notes);
    atomic_store(&s->damaged, o->damaged);
    free(o);
    return err;
}
