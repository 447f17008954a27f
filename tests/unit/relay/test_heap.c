/* tests/unit/relay/test_heap.c: order of the due heap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "relay/heap_priv.h"

enum { COUNT = 500 };

static void check_slots(const struct heap *h)
{
    for (size_t i = 0; i < h->count; i++) {
        assert_int_equal(h->entries[i].m->owner_index, i);
        if (i > 0)
            assert_true(h->entries[(i - 1) / 2].due_ms <= h->entries[i].due_ms);
    }
}

static uint64_t scramble(uint64_t i)
{
    return i * 7919 % 257;
}

static void pops_in_due_order(void **state)
{
    static struct qmsg m[COUNT];
    struct heap h = {0};
    assert_null(heap_top(&h));
    assert_null(heap_pop(&h));
    for (size_t i = 0; i < COUNT; i++) {
        m[i].due_ms = scramble(i);
        assert_int_equal(heap_push(&h, &m[i], m[i].due_ms), 0);
    }
    check_slots(&h);
    struct qmsg *last = NULL;
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(heap_top(&h)->due_ms, heap_top(&h)->m->due_ms);
        struct qmsg *top = heap_pop(&h);
        if (last)
            assert_true(last->due_ms < top->due_ms ||
                        (last->due_ms == top->due_ms && last < top)); /* first in, first out */
        last = top;
    }
    assert_null(heap_pop(&h));
    heap_free(&h);
}

static void removes_from_anywhere(void **state)
{
    static struct qmsg m[COUNT];
    struct heap h = {0};
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(heap_push(&h, &m[i], scramble(i)), 0);
    for (size_t i = 0; i < COUNT; i += 3) {
        heap_remove(&h, &m[i]);
        check_slots(&h);
    }
    size_t left = 0;
    for (struct qmsg *top; (top = heap_pop(&h)); left++)
        assert_int_not_equal((top - m) % 3, 0);
    assert_int_equal(left, COUNT - (COUNT + 2) / 3);
    heap_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pops_in_due_order),
        cmocka_unit_test(removes_from_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
