/* daemon/main.c: posternd's command line. */
#include <errno.h>
#include <sysexits.h>

#include "daemon/gateway.h"
#include "daemon/memory.h"

#define DEFAULT_CONFIG "/etc/postern/postern.yaml"

static const char usage_text[] =
    "usage: posternd [-c FILE]          run the gateway (default " DEFAULT_CONFIG ")\n"
    "       posternd --check [FILE]     check a configuration and say what is wrong with it\n"
    "       posternd --config-reference print every configuration key as Markdown\n"
    "       posternd --version\n"
    "\n"
    "Exit status: 0 stopped; 64 usage; 69 an address to listen on cannot be had; 70 a worker hung at the "
    "end;\n"
    "71 the system refused something; 73 spool or log file cannot be made; 75 the spool is in use;\n"
    "78 bad configuration, or no io_uring here.\n";

/* As boot does it, with a resolver for the time of the call. */
static err_t try_config(const char *path, struct diag *d)
{
    char text[256];
    struct sbuf error = SBUF_ON(text);
    struct names names = {0};
    struct config *c;
    struct dns *dns;
    struct snapshot *s;

    err_t err = config_load_file(path, &c, d);
    if (err)
        return err;
    err = dns_start(&dns, c, &error);
    if (err) {
        diag_error(d, (struct mark){0}, "dns: " STR_FMT, STR_ARG(sbuf_view(&error)));
        config_free(c);
        return err;
    }
    err = snapshot_build(&s, c, dns, &names, NULL, NULL, LISTS_STRICT, d);
    snapshot_unref(s);
    names_free(&names);
    dns_stop(dns);
    return err;
}

static int check(const char *path)
{
    struct diag d = {0};
    err_t err = try_config(path, &d);
    if (d.text.n)
        fprintf(stderr, STR_FMT, STR_ARG(gbuf_view(&d.text)));
    if (!err)
        printf("%s: the configuration is good%s\n", path, d.warning_count ? ", with the warnings above" : "");
    diag_free(&d);
    return err ? EX_CONFIG : EX_OK;
}

static int print_reference(void)
{
    struct gbuf b = {0};
    config_write_docs(&b);
    fwrite(b.p, 1, b.n, stdout);
    gbuf_free(&b);
    return EX_OK;
}

static int run(const char *path)
{
    static struct gateway g;
    int status = gateway_boot(&g, path);
    return status ? status : gateway_run(&g);
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";

    if (argc == 1)
        return run(DEFAULT_CONFIG);
    if (argc == 3 && (!strcmp(verb, "-c") || !strcmp(verb, "--config")))
        return run(argv[2]);
    if (argc <= 3 && !strcmp(verb, "--check"))
        return check(argc == 3 ? argv[2] : DEFAULT_CONFIG);
    if (argc == 2 && !strcmp(verb, "--config-reference"))
        return print_reference();
    if (argc == 2 && (!strcmp(verb, "--version") || !strcmp(verb, "-V"))) {
        printf("posternd %s (%s, %s)\n", POSTERN_VERSION, tls_library(), memory_allocator());
        return EX_OK;
    }
    if (argc == 2 && (!strcmp(verb, "--help") || !strcmp(verb, "-h"))) {
        fputs(usage_text, stdout);
        return EX_OK;
    }
    fputs(usage_text, stderr);
    return EX_USAGE;
}
