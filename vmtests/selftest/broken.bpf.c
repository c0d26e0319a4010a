/* Reads the first byte of a packet without a look at its length: no verifier may let that pass. */
struct xdp_md {
	unsigned data, data_end;
};

__attribute__((section("xdp"), used)) int selftest_broken(struct xdp_md *ctx)
{
	unsigned char *data = (unsigned char *)(long)ctx->data;

	return *data ? 2 : 1; /* XDP_PASS, XDP_DROP */
}

char selftest_license[] __attribute__((section("license"), used)) = "Dual BSD/GPL";
