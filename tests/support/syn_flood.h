/* What the flood's two halves share. */
#ifndef TIDEGATE_TESTS_SYN_FLOOD_H
#define TIDEGATE_TESTS_SYN_FLOOD_H

/* A frame, in network order, by the 16 bits that checksums are made of. */
struct syn_flood_frame {
	unsigned short eth[7];
	unsigned short ip[5], ip_check, source[2], destination[2];
	unsigned short source_port, port, seq[2], ack[2], flags, window, check, urgent;
};
_Static_assert(sizeof(struct syn_flood_frame) == 54, "no padding");

#endif
