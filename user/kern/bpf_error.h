/* libbpf's and libxdp's own words about the last thing that went wrong, instead of on stderr. */
#ifndef TIDEGATE_KERN_BPF_ERROR_H
#define TIDEGATE_KERN_BPF_ERROR_H

/* Once, before anything else of kern; harmless to repeat. */
void bpf_error_capture(void);
/* The last warning of either library, or "": for a log line beside the -errno. Kept until the next
 * one. */
const char *bpf_error_text(void);
void bpf_error_clear(void);

#endif
