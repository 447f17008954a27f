/* A ring file belongs to one process: a dead one's last write may still be on its way to it. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/file.h>

#include "bed.h"
#include "queue/fsio.h"

#define FILE_BYTES (UINT64_C(64) << 10)

struct holder {
    int fd;
    atomic_bool released;
};

static void *release(void *ctx)
{
    struct holder *h = ctx;
    atomic_store(&h->released, true);
    assert_int_equal(flock(h->fd, LOCK_UN), 0);
    return NULL;
}

static void make_file(struct bed *b, char *path, size_t n)
{
    bed_make(b);
    bed_ring_path(b, path, n);
    assert_int_equal(fsio_create(path, FILE_BYTES), 0);
}

static void test_an_open_file_is_locked(void **state)
{
    struct bed b;
    struct fsio_file f;
    char path[128];
    make_file(&b, path, sizeof path);
    assert_int_equal(fsio_open(&f, path), 0);
    int other = open(path, O_RDWR | O_CLOEXEC);
    assert_true(other >= 0);
    assert_int_equal(flock(other, LOCK_EX | LOCK_NB), -1);
    assert_int_equal(errno, EWOULDBLOCK);
    fsio_close(&f);
    assert_int_equal(flock(other, LOCK_EX | LOCK_NB), 0);
    close(other);
    bed_remove_folder(b.dir);
}

static void test_open_waits_for_the_last_owner(void **state)
{
    struct bed b;
    struct fsio_file f;
    char path[128];
    pthread_t thread;
    make_file(&b, path, sizeof path);
    struct holder h = {.fd = open(path, O_RDWR | O_CLOEXEC)};
    assert_int_equal(flock(h.fd, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(pthread_create(&thread, NULL, release, &h), 0);
    assert_int_equal(fsio_open(&f, path), 0);
    assert_true(atomic_load(&h.released));
    assert_int_equal(pthread_join(thread, NULL), 0);
    fsio_close(&f);
    close(h.fd);
    bed_remove_folder(b.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_open_file_is_locked),
        cmocka_unit_test(test_open_waits_for_the_last_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
