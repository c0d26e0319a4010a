/* Reads the first byte of a packet, after a look at its length. */
struct xdp_md {
	unsigned data, data_end;
};

__attribute__((section("xdp"), used)) int selftest_sound(struct xdp_md *ctx)
{
	unsigned char *data = (unsigned char *)(long)ctx->data;
	unsigned char *end = (unsigned char *)(long)ctx->data_end;

	return data + 1 <= end && *data ? 2 : 1; /* XDP_PASS, XDP_DROP */
}

char selftest_license[] __attribute__((section("license"), used)) = "Dual BSD/GPL";
