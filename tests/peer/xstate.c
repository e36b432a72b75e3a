/*
 * Lets a User-mode Linux 6.1 run on CPUs whose register image is larger than it knows.
 *
 * It switches between its processes with ptrace(PTRACE_SETREGSET, NT_X86_XSTATE) and keeps room for the image up to
 * AVX-512 and PKRU. Since Linux 5.16 the host refuses an image that is shorter than its own (EFAULT), and with AMX
 * that is 11 KB. This library, preloaded, completes the image: what lies behind the part that came is zero and is
 * marked as being in its initial state.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

enum {
	GETREGSET = 0x4204, /* linux/ptrace.h */
	SETREGSET = 0x4205,
	NT_X86_XSTATE = 0x202, /* linux/elf.h */
	/* Intel SDM volume 1, 13.4: 512 bytes of legacy state, then XSTATE_BV, one bit for each component in use */
	XSTATE_BV = 512,
	XSAVE_LEAF = 0xd,
};

static char image[1 << 16];
static size_t full;     /* bytes of the host's image; 0: not asked yet */
static uint64_t inside; /* components that lie within the bytes that UML gives */

/* Components whose place ends within `length` bytes: CPUID leaf 13 has size and offset of each from 2 on. */
static uint64_t components_within(size_t length)
{
	uint64_t bits = 3; /* x87 and SSE, in the legacy part */

	for (unsigned int i = 2; i < 63; i++) {
		unsigned int size = 0, offset = 0, c, d;

		if (__get_cpuid_count(XSAVE_LEAF, i, &size, &offset, &c, &d) && size && offset + size <= length)
			bits |= (uint64_t)1 << i;
	}
	return bits;
}

long ptrace(int request, ...)
{
	static long (*host)(int, ...);
	va_list list;

	va_start(list, request);
	long pid = va_arg(list, int);
	void *address = va_arg(list, void *);
	void *data = va_arg(list, void *);
	va_end(list);
	if (!host)
		host = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace");
	if (request != SETREGSET || (long)address != NT_X86_XSTATE)
		return host(request, (int)pid, address, data);

	struct iovec *given = data;

	if (!full) {
		struct iovec whole = { image, sizeof(image) };

		if (host(GETREGSET, (int)pid, address, &whole) < 0)
			return -1;
		full = whole.iov_len;
		inside = components_within(given->iov_len);
		memset(image, 0, sizeof(image));
	}
	if (given->iov_len >= full || given->iov_len < XSTATE_BV + sizeof(uint64_t))
		return host(request, (int)pid, address, data);
	memcpy(image, given->iov_base, given->iov_len);

	uint64_t used;

	memcpy(&used, image + XSTATE_BV, sizeof(used));
	used &= inside;
	memcpy(image + XSTATE_BV, &used, sizeof(used));

	struct iovec completed = { image, full };

	return host(request, (int)pid, address, &completed);
}
