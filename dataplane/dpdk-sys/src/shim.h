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
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
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
static const uint64_t SLUICE_TX_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;

int sluice_errno(void);
unsigned int sluice_lcore_id(void);
uint64_t sluice_rdtsc(void);

uint16_t sluice_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **into, uint16_t n);
/* Frames that wait in a receive queue; negative: the driver cannot tell. */
int sluice_rx_waiting(uint16_t port, uint16_t queue);
uint16_t sluice_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **from, uint16_t n);

struct rte_mbuf *sluice_mbuf_alloc(struct rte_mempool *pool);
void sluice_mbuf_free(struct rte_mbuf *mbuf);

unsigned int sluice_ring_enqueue(struct rte_ring *ring, void *const *from, unsigned int n);
unsigned int sluice_ring_dequeue(struct rte_ring *ring, void **into, unsigned int n);

/* 1: up, 0: down, negative: the driver cannot tell. Asks without waiting. */
int sluice_link_up(uint16_t port);

/* Receives one message of rte_log: level, text (not terminated), bytes. */
typedef void (*sluice_log_sink)(uint32_t level, const char *text, size_t len);
/* Sends all of rte_log to `sink` from now on. Returns 0, or -1 when no stream could be made. Call it once. */
int sluice_log_to(sluice_log_sink sink);

#endif
