/* How an edge writes its Received lines is learned, and what looks otherwise is not believed. */
#include <pthread.h>

#include "../../core/unit.h"
#include "smtp/proto/origin.h"
#include "smtp/server/edge_lines.h"

#define POSTFIX  (1u << RECEIVED_POSTFIX)
#define SENDMAIL (1u << RECEIVED_SENDMAIL)
#define EXIM     (1u << RECEIVED_EXIM)

static struct ip ip(const char *text)
{
    struct ip out;
    assert_int_equal(ip_parse(str_cstr(text), &out), 0);
    return out;
}

struct desk {
    struct edge_lines *table;
    struct ip edge;
    struct edge_lines_change last;
};

static struct desk desk_new(void)
{
    struct desk d = {.table = edge_lines_new(), .edge = ip("192.0.2.10")};
    assert_non_null(d.table);
    return d;
}

static enum edge_line_result see(struct desk *d, struct edge_line line)
{
    return edge_lines_see(d->table, &d->edge, &line, &d->last);
}

static struct edge_line tells(unsigned formats, uint32_t label, unsigned hops)
{
    return (struct edge_line){
        .kind = EDGE_LINE_TELLS, .formats = (uint8_t)formats, .label = label, .hops = (uint8_t)hops};
}

static const struct edge_line own = {.kind = EDGE_LINE_OWN}, others = {.kind = EDGE_LINE_OTHERS};

static void learn(struct desk *d, struct edge_line line)
{
    for (unsigned i = 1; i < EDGE_LINES_NEEDED; i++) {
        assert_int_equal(see(d, line), EDGE_LINE_LEARNING);
        assert_false(d->last.any);
    }
    assert_int_equal(see(d, line), EDGE_LINE_AS_LEARNED);
    assert_true(d->last.any && d->last.learned);
}

static void test_alike_in_a_row(void **state)
{
    struct desk d = desk_new();
    learn(&d, tells(POSTFIX, 7, 0));
    assert_int_equal(d.last.formats, POSTFIX);
    assert_int_equal(see(&d, tells(POSTFIX, 7, 0)), EDGE_LINE_AS_LEARNED);
    assert_false(d.last.any);
    edge_lines_free(d.table);
}

/* Whoever writes through an edge that writes no lines of its own is not alone. */
static void test_any_other_starts_it_again(void **state)
{
    const struct edge_line between[] = {others, tells(EXIM, 7, 0), tells(POSTFIX, 8, 0),
                                        tells(POSTFIX, 7, 1)};
    for (size_t i = 0; i < COUNT_OF(between); i++) {
        struct desk d = desk_new();
        for (unsigned k = 1; k < EDGE_LINES_NEEDED; k++)
            see(&d, tells(POSTFIX, 7, 0));
        assert_int_equal(see(&d, between[i]), EDGE_LINE_LEARNING);
        learn(&d, tells(POSTFIX, 7, 0));
        edge_lines_free(d.table);
    }
}

static void test_mail_of_the_edge_itself_counts_for_nothing(void **state)
{
    struct desk d = desk_new();
    for (unsigned k = 1; k < EDGE_LINES_NEEDED; k++) {
        see(&d, tells(POSTFIX, 7, 0));
        assert_int_equal(see(&d, own), EDGE_LINE_LEARNING);
    }
    assert_int_equal(see(&d, tells(POSTFIX, 7, 0)), EDGE_LINE_AS_LEARNED);
    for (unsigned k = 0; k < 2 * EDGE_LINES_FULL; k++)
        assert_int_not_equal(see(&d, own), EDGE_LINE_ANOTHER);
    assert_int_equal(see(&d, tells(POSTFIX, 7, 0)), EDGE_LINE_AS_LEARNED);
    edge_lines_free(d.table);
}

/* A line that several servers would write leaves all of them; the next one may tell. */
static void test_what_fits_all_lines_is_left(void **state)
{
    struct desk d = desk_new();
    learn(&d, tells(POSTFIX | SENDMAIL, 0, 0));
    assert_int_equal(see(&d, tells(SENDMAIL | EXIM, 0, 0)), EDGE_LINE_AS_LEARNED);
    assert_int_equal(see(&d, tells(POSTFIX | SENDMAIL, 0, 0)), EDGE_LINE_AS_LEARNED);
    assert_int_equal(see(&d, tells(POSTFIX, 0, 0)), EDGE_LINE_ANOTHER);
    edge_lines_free(d.table);
}

static void test_another_is_not_believed(void **state)
{
    static const struct edge_line another[] = {{EDGE_LINE_TELLS, EXIM, 1, 7},
                                               {EDGE_LINE_TELLS, POSTFIX, 1, 8},
                                               {EDGE_LINE_TELLS, POSTFIX, 2, 7},
                                               {.kind = EDGE_LINE_OTHERS}};
    struct edge_lines_known known;
    struct desk d = desk_new();
    learn(&d, tells(POSTFIX, 7, 1));
    for (size_t i = 0; i < COUNT_OF(another); i++) {
        assert_int_equal(see(&d, another[i]), EDGE_LINE_ANOTHER);
        for (unsigned k = 0; k < EDGE_LINES_COST; k++)
            assert_int_equal(see(&d, tells(POSTFIX, 7, k % 2)), EDGE_LINE_AS_LEARNED);
    }
    assert_int_equal(edge_lines_list(d.table, &known, 1), 1);
    assert_true(known.learned && ip_eq(&known.ip, &d.edge));
    assert_int_equal(known.others, COUNT_OF(another));
    edge_lines_free(d.table);
}

/* Its administrator put another server there. */
static void test_an_edge_may_change(void **state)
{
    struct desk d = desk_new();
    learn(&d, tells(POSTFIX, 7, 0));
    unsigned doubted = 0;
    while (see(&d, tells(EXIM, 0, 0)) == EDGE_LINE_ANOTHER)
        doubted++;
    assert_int_equal(doubted, EDGE_LINES_FULL / EDGE_LINES_COST);
    for (unsigned i = 3; i < EDGE_LINES_NEEDED; i++)
        assert_int_equal(see(&d, tells(EXIM, 0, 0)), EDGE_LINE_LEARNING);
    assert_int_equal(see(&d, tells(EXIM, 0, 0)), EDGE_LINE_AS_LEARNED);
    assert_true(d.last.any && d.last.learned);
    edge_lines_free(d.table);
}

static void test_edges_are_apart_and_can_be_forgotten(void **state)
{
    static const char *const addresses[] = {"192.0.2.10", "192.0.2.11", "2001:db8::1", "::1"};
    struct edge_lines_known known[8];
    struct desk d = desk_new();
    for (size_t i = 0; i < COUNT_OF(addresses); i++) {
        d.edge = ip(addresses[i]);
        learn(&d, tells(i % 2 ? EXIM : POSTFIX, 0, 0));
    }
    assert_int_equal(edge_lines_list(d.table, known, COUNT_OF(known)), COUNT_OF(addresses));
    d.edge = ip("2001:db8::2"); /* the same /64 */
    assert_int_equal(see(&d, tells(POSTFIX, 0, 0)), EDGE_LINE_AS_LEARNED);
    struct ip gone = ip("192.0.2.10"), never = ip("192.0.2.12");
    assert_true(edge_lines_forget(d.table, &gone));
    assert_false(edge_lines_forget(d.table, &never));
    d.edge = gone;
    assert_int_equal(see(&d, tells(POSTFIX, 0, 0)), EDGE_LINE_LEARNING);
    d.edge = ip("192.0.2.11");
    assert_int_equal(see(&d, tells(EXIM, 0, 0)), EDGE_LINE_AS_LEARNED);
    assert_true(edge_lines_forget(d.table, NULL));
    assert_int_equal(see(&d, tells(EXIM, 0, 0)), EDGE_LINE_LEARNING);
    edge_lines_free(d.table);
}

static void test_a_full_table_learns_no_more(void **state)
{
    struct desk d = desk_new();
    for (unsigned i = 0; i < EDGE_LINES_EDGES; i++) {
        d.edge.b[14] = (uint8_t)(i >> 8);
        d.edge.b[15] = (uint8_t)i;
        see(&d, tells(POSTFIX, 0, 0));
    }
    d.edge = ip("198.51.100.1");
    for (unsigned i = 0; i < 2 * EDGE_LINES_NEEDED; i++)
        assert_int_equal(see(&d, tells(POSTFIX, 0, 0)), EDGE_LINE_LEARNING);
    edge_lines_free(d.table);
}

#define THREADS 4
#define SAID    20000

static struct edge_lines *shared;

/* Each has an edge of its own, and all have one together, which writes alike on all workers. */
static void *see_many(void *arg)
{
    const struct edge_line line = tells(POSTFIX | SENDMAIL, 7, 0), narrow = tells(POSTFIX, 7, 0);
    struct edge_lines_change change;
    struct ip own_edge = ip("198.51.100.0"), all = ip("192.0.2.10");
    own_edge.b[15] = (uint8_t)(uintptr_t)arg;
    for (unsigned i = 0; i < SAID; i++) {
        edge_lines_see(shared, &own_edge, &line, &change);
        edge_lines_see(shared, &all, i % 2 ? &line : &narrow, &change);
    }
    return NULL;
}

static void test_several_threads(void **state)
{
    pthread_t threads[THREADS];
    struct edge_lines_known known[THREADS + 2];
    shared = edge_lines_new();
    assert_non_null(shared);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, see_many, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(edge_lines_list(shared, known, COUNT_OF(known)), THREADS + 1);
    for (unsigned i = 0; i <= THREADS; i++) {
        assert_true(known[i].learned);
        assert_int_equal(known[i].count, EDGE_LINES_FULL);
        assert_int_equal(known[i].others, 0);
        assert_true(known[i].formats & POSTFIX);
    }
    edge_lines_free(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alike_in_a_row),
        cmocka_unit_test(test_any_other_starts_it_again),
        cmocka_unit_test(test_mail_of_the_edge_itself_counts_for_nothing),
        cmocka_unit_test(test_what_fits_all_lines_is_left),
        cmocka_unit_test(test_another_is_not_believed),
        cmocka_unit_test(test_an_edge_may_change),
        cmocka_unit_test(test_edges_are_apart_and_can_be_forgotten),
        cmocka_unit_test(test_a_full_table_learns_no_more),
        cmocka_unit_test(test_several_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
