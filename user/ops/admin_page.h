/* Pages that are embedded in the program: one file each, whose only script and style stand in it.
 * Any thread. */
#ifndef TIDEGATE_OPS_ADMIN_PAGE_H
#define TIDEGATE_OPS_ADMIN_PAGE_H

#include <stddef.h>

/* Declares NAME and NAME_end, the bytes of a file, followed by a NUL. The path is the build's: make
 * runs the compiler at the top, and rebuilds the object with the file. */
#define ADMIN_PAGE(name, path)                                                                     \
	__asm__(".pushsection .rodata\n"                                                           \
		".hidden " #name ", " #name "_end\n"                                               \
		".globl " #name ", " #name "_end\n" #name ":\n"                                    \
		".incbin \"" path "\"\n" #name "_end:\n"                                           \
		".byte 0\n" /* text functions may read it */                                       \
		".popsection\n");                                                                  \
	extern const char name[] __attribute__((visibility("hidden")));                            \
	extern const char name##_end[] __attribute__((visibility("hidden")))

/* The Content-Security-Policy of a page: nothing may be loaded, only its own script and style run,
 * and it talks to this listener and to what `connect` adds (may be ""). Text from malloc: 0,
 * -ENOMEM, or -EINVAL when the page has no script or style. */
int admin_page_policy(const char *page, const char *connect, char **ret);

#endif
