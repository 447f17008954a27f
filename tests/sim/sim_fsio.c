/* tests/sim/sim_fsio.c: stands in for queue/fsio*.c: files in memory, in sectors. What a durable write wrote
 * is durable when it completes. Until then, and when it fails, each of its sectors may be old, new or
 * garbage.
 *
 * A process that is killed leaves its last write in the cache: later processes see it, and a power cut may
 * still take any sector of it. */
#include "queue/fsio.h"

#include <errno.h>

#include "tests/sim/sim.h"

#define FILES_MAX   8
#define PATH_BYTES  128
#define FILE_BYTES  ((size_t)17 << 20)
#define SECTORS_MAX (FILE_BYTES / 512)
#define IOS_MAX     1024

struct file {
    char path[PATH_BYTES]; /* "": free */
    uint64_t bytes;
    uint8_t *now;    /* owned: what reads see */
    uint8_t **saved; /* owned: per sector, what the disk has for sure; NULL: the same */
    size_t saved_count;
};
static struct file files[FILES_MAX];

/* Under way on the loop. */
struct flight {
    struct fsio_io *io; /* NULL: free */
    bool is_write;
};
static struct flight flights[IOS_MAX];

static uint64_t fault_until_ns, fault_count;
static err_t fault_err;

/* ---- sectors ---- */

static size_t sector_bytes(void)
{
    return W.traits.sector_bytes;
}

static struct file *file_of(const struct fsio_file *f)
{
    must(f->fd >= 0 && f->fd < FILES_MAX && files[f->fd].path[0]);
    return &files[f->fd];
}

static void sector_write(struct file *f, size_t sector, const uint8_t *p)
{
    uint8_t *at = f->now + sector * sector_bytes();
    if (!f->saved[sector]) {
        f->saved[sector] = malloc(sector_bytes());
        must(f->saved[sector] != NULL);
        memcpy(f->saved[sector], at, sector_bytes());
        f->saved_count++;
    }
    memcpy(at, p, sector_bytes());
}

static void sector_is_durable(struct file *f, size_t sector)
{
    if (!f->saved[sector])
        return;
    free(f->saved[sector]);
    f->saved[sector] = NULL;
    f->saved_count--;
}

static void file_is_durable(struct file *f)
{
    for (size_t i = 0; f->saved_count > 0; i++)
        sector_is_durable(f, i);
}

static void write_whole(struct file *f, const uint8_t *p, size_t n, uint64_t at)
{
    memcpy(f->now + at, p, n);
    for (size_t i = at / sector_bytes(); i < (at + n) / sector_bytes(); i++)
        sector_is_durable(f, i);
    if (W.traits.flushes_all)
        file_is_durable(f);
}

/* What a write that did not end leaves: sectors from the front, from the back, or any. */
static void write_some(struct file *f, const uint8_t *p, size_t n, uint64_t at)
{
    size_t count = n / sector_bytes(), first = at / sector_bytes();
    uint64_t order = chance_below(4);
    size_t cut = chance_below(count + 1);
    for (size_t i = 0; i < count; i++) {
        bool reached = order == 0 ? i < cut : order == 1 ? i >= cut : order == 2 ? chance_below(2) : true;
        if (reached)
            sector_write(f, first + i, p + i * sector_bytes());
    }
    trace("disk: write of %zu at %llu ended early, order %llu, cut %zu", n, (unsigned long long)at,
          (unsigned long long)order, cut);
}

static void sector_power_cut(struct file *f, size_t sector)
{
    uint8_t *at = f->now + sector * sector_bytes();
    switch (chance_below(8)) {
    case 0: /* garbage */
        for (size_t i = 0; i < sector_bytes(); i++)
            at[i] = (uint8_t)chance_u64();
        break;
    case 1: /* half of it */ memcpy(at, f->saved[sector], sector_bytes() / 2); break;
    case 2:
    case 3:
    case 4: /* dropped */ memcpy(at, f->saved[sector], sector_bytes()); break;
    default: break; /* kept */
    }
    sector_is_durable(f, sector);
}

/* ---- crashes and faults ---- */

void disk_crash(bool power_cut)
{
    for (size_t i = 0; i < IOS_MAX; i++) {
        const struct fsio_io *io = flights[i].io;
        if (io && flights[i].is_write)
            write_some(file_of(io->file), io->p, io->n, io->at);
    }
    for (size_t i = 0; i < FILES_MAX && power_cut; i++)
        for (size_t s = 0; files[i].saved_count > 0; s++)
            if (files[i].saved[s])
                sector_power_cut(&files[i], s);
}

void disk_fault(uint64_t for_ns)
{
    fault_until_ns = W.now_ns + for_ns;
    fault_err = chance_below(2) ? -EIO : -ENOSPC;
    trace("disk: %s for %llu ms", fault_err == -EIO ? "EIO" : "ENOSPC",
          (unsigned long long)(for_ns / SIM_MS));
}

void disk_heal(void)
{
    fault_until_ns = 0;
}

bool disk_is_faulty(void)
{
    return W.now_ns < fault_until_ns;
}

uint64_t disk_fault_count(void)
{
    return fault_count;
}

static err_t fault(bool is_write)
{
    if (!disk_is_faulty() || (fault_err == -ENOSPC && !is_write) || chance_below(4) == 0)
        return 0;
    fault_count++;
    return fault_err;
}

void disk_rot(void)
{
    struct file *f = &files[chance_below(FILES_MAX)];
    if (!f->path[0])
        return;
    /* Behind the superblocks: of those one may be lost, not both. */
    uint64_t at = (UINT64_C(1) << 20) + chance_below(f->bytes - (UINT64_C(1) << 20));
    f->now[at] ^= (uint8_t)(1u << chance_below(8));
    W.rot_count++;
    trace("disk: rot at %llu of %s", (unsigned long long)at, f->path);
}

/* ---- files ---- */

static struct file *find(const char *path)
{
    for (size_t i = 0; i < FILES_MAX; i++)
        if (files[i].path[0] && strcmp(files[i].path, path) == 0)
            return &files[i];
    return NULL;
}

static void file_remove(struct file *f)
{
    file_is_durable(f);
    free(f->now);
    free(f->saved);
    *f = (struct file){0};
}

/* A blocking call of boot: takes time, may be the process's last one. A write may fail; a read does not:
 * recovery takes a sector that cannot be read for a damaged one, and damage is what rot is for. */
static bool boot_call_dies(void)
{
    W.now_ns += 20 * SIM_US + chance_below(200 * SIM_US);
    return W.dead || (!W.healing && chance_ppm(W.traits.crash_boot_ppm));
}

static err_t boot_call(bool is_write)
{
    if (!boot_call_dies())
        return is_write ? fault(true) : 0;
    gateway_crash(chance_below(2));
    return -EIO;
}

err_t fsio_open(struct fsio_file *f, const char *path)
{
    struct file *at = find(path);
    *f = (struct fsio_file){.fd = -1, .direct = true};
    err_t err = at ? boot_call(true) : -ENOENT;
    if (err)
        return err;
    file_is_durable(at); /* the real one syncs */
    f->fd = (int)(at - files);
    f->bytes = at->bytes;
    return 0;
}

err_t fsio_create(const char *path, uint64_t bytes)
{
    err_t err = boot_call(true);
    if (err)
        return err;
    struct file *f = find(path);
    if (f)
        file_remove(f);
    for (f = files; f->path[0]; f++)
        must(f < files + FILES_MAX - 1);
    must(bytes <= FILE_BYTES && strlen(path) < PATH_BYTES);
    memcpy(f->path, path, strlen(path) + 1);
    f->bytes = bytes;
    f->now = calloc(1, FILE_BYTES);
    f->saved = calloc(SECTORS_MAX, sizeof *f->saved);
    must(f->now && f->saved);
    return 0;
}

err_t fsio_cut(const struct fsio_file *f, uint64_t bytes)
{
    struct file *file = file_of(f);
    err_t err = W.dead ? -EIO : fault(true);
    if (err)
        return err;
    trace("disk: %s cut from %llu to %llu", file->path, (unsigned long long)file->bytes,
          (unsigned long long)bytes);
    for (size_t i = bytes / sector_bytes(); i < SECTORS_MAX; i++)
        sector_is_durable(file, i);
    memset(file->now + bytes, 0, FILE_BYTES - bytes);
    file->bytes = bytes;
    return 0;
}

err_t fsio_extend(struct fsio_file *f, uint64_t bytes)
{
    must(!"no file is cut short here");
    return 0;
}

void fsio_close(struct fsio_file *f)
{
    f->fd = -1;
}

err_t fsio_read(struct fsio_file *f, void *p, size_t n, uint64_t at)
{
    err_t err = boot_call(false);
    const struct file *file = file_of(f);
    must(at + n <= file->bytes);
    if (!err)
        memcpy(p, file->now + at, n);
    return err;
}

err_t fsio_write_durable(struct fsio_file *f, const void *p, size_t n, uint64_t at)
{
    bool dies = boot_call_dies();
    struct file *file = file_of(f);
    must(at + n <= file->bytes);
    if (W.dead)
        return -EIO;
    err_t err = dies ? -EIO : fault(true);
    if (err)
        write_some(file, p, n, at);
    else
        write_whole(file, p, n, at);
    if (dies)
        gateway_crash(chance_below(2));
    return err;
}

err_t fsio_rename(const char *from, const char *to)
{
    err_t err = boot_call(true);
    struct file *f = find(from), *old = find(to);
    if (err || !f)
        return err ? err : -ENOENT;
    if (old)
        file_remove(old);
    memcpy(f->path, to, strlen(to) + 1);
    return 0;
}

err_t fsio_find(const char *path)
{
    return find(path) ? 0 : -ENOENT;
}

err_t fsio_remove(const char *path)
{
    err_t err = boot_call(true);
    struct file *f = find(path);
    if (err || !f)
        return err ? err : -ENOENT;
    file_remove(f);
    return 0;
}

err_t fsio_append_file(const char *path, const void *p, size_t n)
{
    if (W.dead)
        return -EIO;
    trace("disk: %zu bytes kept in %s", n, path);
    return 0;
}

/* ---- on the loop ---- */

static void io_done(struct op *op, int32_t res, uint32_t cqe_flags, bool more)
{
    struct fsio_io *io = container_of(op, struct fsio_io, op);
    io->done(io, res);
}

static uint64_t io_time(void)
{
    return chance_ppm(10000) ? 200 * SIM_MS : 30 * SIM_US + chance_around(400 * SIM_US);
}

static void flight_lands(void *ctx, uint64_t slot)
{
    struct flight *fl = &flights[slot];
    struct fsio_io *io = fl->io;
    bool is_write = fl->is_write;
    fl->io = NULL;
    err_t err = W.dead ? 0 : fault(is_write); /* a dead process's writes go nowhere */
    struct file *f = file_of(io->file);
    if (!is_write && !err)
        memcpy(io->p, f->now + io->at, io->n);
    else if (is_write && !W.dead && err)
        write_some(f, io->p, io->n, io->at);
    else if (is_write && !W.dead)
        write_whole(f, io->p, io->n, io->at);
    trace("disk: %s of %zu at %llu: %d", is_write ? "write" : "read", io->n, (unsigned long long)io->at, err);
    sim_op_end(&io->op, err, 0, false);
}

static void crash_in_write(void *ctx, uint64_t life)
{
    if (life == gateway_life())
        gateway_crash(chance_below(2));
}

static void start(struct fsio_io *io, struct loop *l, struct fsio_file *f, void *p, size_t n, uint64_t at,
                  bool is_write)
{
    must(n > 0 && n % FSIO_ALIGN == 0 && at % FSIO_ALIGN == 0 && (uintptr_t)p % FSIO_ALIGN == 0);
    /* A write may make the file longer; it is that from the moment it is under way. */
    must(at + n <= FILE_BYTES && (is_write || at + n <= file_of(f)->bytes));
    if (!W.dead)
        file_of(f)->bytes = MAX(file_of(f)->bytes, at + n);
    size_t slot = 0;
    while (flights[slot].io)
        must(++slot < IOS_MAX);
    flights[slot] = (struct flight){io, is_write};
    io->loop = l;
    io->file = f;
    io->p = p;
    io->n = n;
    io->at = at;
    io->op.done = io_done;
    sim_op_begin(l, &io->op);
    uint64_t after_ns = io_time();
    process_at(after_ns, flight_lands, NULL, slot);
    if (is_write && !W.healing && !W.dead && chance_ppm(W.traits.crash_write_ppm))
        world_at(chance_below(after_ns + after_ns / 4), crash_in_write, NULL, gateway_life());
}

void fsio_write_durable_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, const void *p,
                              size_t n, uint64_t at)
{
    start(io, l, f, (void *)p, n, at, true);
}

void fsio_read_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, void *p, size_t n, uint64_t at)
{
    start(io, l, f, p, n, at, false);
}

/* ---- a run ---- */

void disk_begin(void)
{
    memset(flights, 0, sizeof flights);
    fault_until_ns = fault_count = 0;
}

void disk_end(void)
{
    for (size_t i = 0; i < FILES_MAX; i++)
        if (files[i].path[0])
            file_remove(&files[i]);
}
