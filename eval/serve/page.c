/* The page, as it lies beside this file. */
#include "eval/serve/http.h"

#include <string.h>

#define EMBED(name, file)                                                                                                          \
    __asm__(".section .rodata\n.global page_" #name "\npage_" #name ":\n.incbin \"eval/serve/" file "\"\n"                         \
            ".global page_" #name "_end\npage_" #name "_end:\n.byte 0\n.previous\n");                                              \
    extern const char page_##name[], page_##name##_end[]

EMBED(html, "page.html");
EMBED(css, "page.css");
EMBED(js, "page.js");

static const struct {
    const char *url, *type, *begin, *end;
} files[] = {
    {"/", "text/html; charset=utf-8", page_html, page_html_end},
    {"/page.css", "text/css; charset=utf-8", page_css, page_css_end},
    {"/page.js", "text/javascript; charset=utf-8", page_js, page_js_end},
};

const char *page_file(const char *url, const char **type, size_t *n)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!strcmp(files[i].url, url)) {
            *type = files[i].type;
            *n = (size_t)(files[i].end - files[i].begin);
            return files[i].begin;
        }
    return NULL;
}
