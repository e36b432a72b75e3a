#define _GNU_SOURCE
#include <stdio.h>
#include <sys/types.h>

#include "shim.h"

int sluice_errno(void)
{
	return rte_errno;
}

unsigned int sluice_lcore_id(void)
{
	return rte_lcore_id();
}

uint64_t sluice_rdtsc(void)
{
	return rte_rdtsc();
}

uint16_t sluice_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **into, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, into, n);
}

int sluice_rx_waiting(uint16_t port, uint16_t queue)
{
	return rte_eth_rx_queue_count(port, queue);
}

uint16_t sluice_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **from, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, from, n);
}

struct rte_mbuf *sluice_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void sluice_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

unsigned int sluice_ring_enqueue(struct rte_ring *ring, void *const *from, unsigned int n)
{
	return rte_ring_enqueue_burst(ring, from, n, NULL);
}

unsigned int sluice_ring_dequeue(struct rte_ring *ring, void **into, unsigned int n)
{
	return rte_ring_dequeue_burst(ring, into, n, NULL);
}

int sluice_link_up(uint16_t port)
{
	struct rte_eth_link link = {0};
	int rc = rte_eth_link_get_nowait(port, &link);

	return rc < 0 ? rc : link.link_status == RTE_ETH_LINK_UP;
}

static sluice_log_sink log_sink;

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	log_sink((uint32_t)rte_log_cur_msg_loglevel(), text, len);
	return (ssize_t)len;
}

int sluice_log_to(sluice_log_sink sink)
{
	cookie_io_functions_t io = {.write = log_write};
	FILE *stream;

	log_sink = sink;
	stream = fopencookie(NULL, "w", io);
	if (stream == NULL)
		return -1;
	/* rte_log flushes after each message, so the level of the current one is that of the text. */
	return rte_openlog_stream(stream);
}
