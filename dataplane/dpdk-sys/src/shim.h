/*
 * What lb-dpdk needs of DPDK beyond exported functions: inline functions get a symbol, macros and the layout of
 * struct rte_mbuf become constants that bindgen can evaluate.
 */
#ifndef SLUICE_SHIM_H
#define SLUICE_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_hash.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>

/* Offsets of the fields of struct rte_mbuf, bytes. They hold from 22.11 to 24.11, the way to name them does not. */
enum {
	SLUICE_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr), /* void * */
	SLUICE_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off), /* uint16_t */
	SLUICE_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),   /* uint16_t */
	SLUICE_MBUF_PORT = offsetof(struct rte_mbuf, port),         /* uint16_t */
	SLUICE_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags), /* uint64_t */
	SLUICE_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),   /* uint32_t */
	SLUICE_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len), /* uint16_t */
	SLUICE_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci), /* uint16_t */
	SLUICE_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),   /* uint16_t */
	SLUICE_MBUF_SIZE = sizeof(struct rte_mbuf),
	SLUICE_MEMPOOL_HEADER_SIZE = sizeof(struct rte_mempool_objhdr),
	SLUICE_MBUF_HEADROOM = RTE_PKTMBUF_HEADROOM,
	SLUICE_RING_SP = RING_F_SP_ENQ,
	SLUICE_RING_SC = RING_F_SC_DEQ,
	SLUICE_LOG_ERR = RTE_LOG_ERR,
	SLUICE_LOG_WARNING = RTE_LOG_WARNING,
	SLUICE_LOG_NOTICE = RTE_LOG_NOTICE,
};

/* mbuf.ol_flags of a frame whose 802.1Q tag was taken out and lies in mbuf.vlan_tci. */
static const uint64_t SLUICE_MBUF_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
/* Every hash over IP addresses and ports that RSS can be asked for. */
static const uint64_t SLUICE_RSS_IP_PORTS = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
static const uint64_t SLUICE_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SLUICE_TX_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t SLUICE_TX_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;

int sluice_errno(void);
unsigned int sluice_lcore_id(void);
uint64_t sluice_rdtsc(void);

uint16_t sluice_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **into, uint16_t n);
/* Frames that wait in a receive queue; negative: the driver cannot tell. */
int sluice_rx_waiting(uint16_t port, uint16_t queue);
/* Where the indices of an AF_XDP socket's receive ring lie in its mapping, bytes. Negative: it is no such socket. */
int sluice_xdp_rx_ring(int socket, uint64_t *producer, uint64_t *consumer);
uint16_t sluice_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **from, uint16_t n);

struct rte_mbuf *sluice_mbuf_alloc(struct rte_mempool *pool);
void sluice_mbuf_free(struct rte_mbuf *mbuf);
/* The same of `n` packets, those of one pool together. */
void sluice_mbuf_free_bulk(struct rte_mbuf **mbufs, unsigned int n);

/* Makes a packet of any number of segments `len` bytes long and frees what it loses. -1: shorter than that, unchanged. */
int sluice_mbuf_cut(struct rte_mbuf *mbuf, uint32_t len);
/* Brings a packet's bytes into its first segment. Negative: it has not the room, unchanged. */
int sluice_mbuf_linearize(struct rte_mbuf *mbuf);
/* Copies a packet's bytes behind those of `into`, one segment. -1: it has not the room, unchanged. */
int sluice_mbuf_copy(const struct rte_mbuf *from, struct rte_mbuf *into);
/* Adds the segments of `tail` to `head`. Returns NULL, or `tail` when there would be too many. */
struct rte_mbuf *sluice_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);

unsigned int sluice_ring_enqueue(struct rte_ring *ring, void *const *from, unsigned int n);
unsigned int sluice_ring_dequeue(struct rte_ring *ring, void **into, unsigned int n);

/* 1: up, 0: down, negative: the driver cannot tell. Asks without waiting. */
int sluice_link_up(uint16_t port);

/* Receives one message of rte_log: level, text (not terminated), bytes. */
typedef void (*sluice_log_sink)(uint32_t level, const char *text, size_t len);
/* Sends all of rte_log to `sink` from now on. Returns 0, or -1 when no stream could be made. Call it once. */
int sluice_log_to(sluice_log_sink sink);

#endif
