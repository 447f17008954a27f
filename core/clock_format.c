/* core/clock_format.c: dates as text, in UTC, without the C library's locale and time zone. */
#include "core/clock.h"

struct date {
    unsigned year, month, day, hour, minute, second, ms, weekday; /* month 1..12, weekday 0 = Sunday */
};

static struct date date_of(uint64_t wall_ns)
{
    uint64_t seconds = wall_ns / NS_PER_S;
    uint64_t days = seconds / 86400; /* since Thursday, 1 January 1970 */
    unsigned rest = (unsigned)(seconds % 86400);

    /* Gregorian calendar in eras of 400 years that begin on 1 March, so that the leap day is a year's last.
     * 719468 = days from 0000-03-01 to 1970-01-01. */
    uint64_t z = days + 719468;
    unsigned era = (unsigned)(z / 146097);
    unsigned day_of_era = (unsigned)(z % 146097);
    unsigned year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned march_month = (5 * day_of_year + 2) / 153; /* 0 = March */
    unsigned month = march_month < 10 ? march_month + 3 : march_month - 9;
    return (struct date){
        .year = era * 400 + year_of_era + (month <= 2),
        .month = month,
        .day = day_of_year - (153 * march_month + 2) / 5 + 1,
        .hour = rest / 3600,
        .minute = rest / 60 % 60,
        .second = rest % 60,
        .ms = (unsigned)(wall_ns % NS_PER_S / NS_PER_MS),
        .weekday = (unsigned)((days + 4) % 7),
    };
}

size_t clock_rfc5322(uint64_t wall_ns, char *out)
{
    static const char weekdays[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct date d = date_of(wall_ns);
    return (size_t)snprintf(out, 40, "%s, %u %s %04u %02u:%02u:%02u +0000", weekdays[d.weekday], d.day,
                            months[d.month - 1], d.year, d.hour, d.minute, d.second);
}

static char *put_digits(char *at, unsigned v, int count)
{
    for (int i = count; i-- > 0; v /= 10)
        at[i] = (char)('0' + v % 10);
    return at + count;
}

/* Not snprintf: this is in every log line. */
size_t clock_rfc3339(uint64_t wall_ns, char *out)
{
    struct date d = date_of(wall_ns);
    char *at = put_digits(out, d.year, 4);
    *at++ = '-';
    at = put_digits(at, d.month, 2);
    *at++ = '-';
    at = put_digits(at, d.day, 2);
    *at++ = 'T';
    at = put_digits(at, d.hour, 2);
    *at++ = ':';
    at = put_digits(at, d.minute, 2);
    *at++ = ':';
    at = put_digits(at, d.second, 2);
    *at++ = '.';
    at = put_digits(at, d.ms, 3);
    *at++ = 'Z';
    *at = '\0';
    return (size_t)(at - out);
}
