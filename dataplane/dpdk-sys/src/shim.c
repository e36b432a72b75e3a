#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <linux/if_xdp.h>

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

/* Source: linux/socket.h; older libcs do not have it. */
#ifndef SOL_XDP
#define SOL_XDP 283
#endif

int sluice_xdp_rx_ring(int socket, uint64_t *producer, uint64_t *consumer)
{
	struct xdp_mmap_offsets offsets = {0};
	socklen_t len = sizeof(offsets);

	if (getsockopt(socket, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &len) != 0 || len != sizeof(offsets))
		return -1;
	*producer = offsets.rx.producer;
	*consumer = offsets.rx.consumer;
	return 0;
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

void sluice_mbuf_free_bulk(struct rte_mbuf **mbufs, unsigned int n)
{
	rte_pktmbuf_free_bulk(mbufs, n);
}

int sluice_mbuf_cut(struct rte_mbuf *mbuf, uint32_t len)
{
	struct rte_mbuf *last = mbuf, *rest;
	uint32_t left = len;
	uint16_t segments = 1;

	if (len > mbuf->pkt_len)
		return -1;
	for (; left > last->data_len && last->next != NULL; last = last->next, segments++)
		left -= last->data_len;
	rest = last->next;
	last->next = NULL;
	last->data_len = (uint16_t)left;
	mbuf->nb_segs = segments;
	mbuf->pkt_len = len;
	while (rest != NULL) {
		struct rte_mbuf *next = rest->next;

		rte_pktmbuf_free_seg(rest);
		rest = next;
	}
	return 0;
}

int sluice_mbuf_linearize(struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_linearize(mbuf);
}

int sluice_mbuf_copy(const struct rte_mbuf *from, struct rte_mbuf *into)
{
	char *data = rte_pktmbuf_append(into, (uint16_t)from->pkt_len);

	if (data == NULL || from->pkt_len > UINT16_MAX)
		return -1;
	for (; from != NULL; data += from->data_len, from = from->next)
		memcpy(data, rte_pktmbuf_mtod(from, const char *), from->data_len);
	return 0;
}

struct rte_mbuf *sluice_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
	return rte_pktmbuf_chain(head, tail) == 0 ? NULL : tail;
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
