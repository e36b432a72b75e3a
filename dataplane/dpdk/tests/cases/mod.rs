//! Every case: a function that runs in a process of its own.

mod errors;
pub mod huge_pages;
mod kernel;
mod memory;
mod segments;
mod workers;

use std::process::ExitStatus;

/// What a case needs beside libdpdk and two CPUs.
pub enum Needs {
    Nothing,
    /// Network interfaces.
    Root,
    /// Reserved huge pages: as many as [`huge_pages::MOST`].
    HugePages,
}

/// One case.
pub struct Case {
    pub name: &'static str,
    pub needs: Needs,
    /// Panics when something is not as it should be.
    pub run: fn(),
    /// Judges how the process ended and what it said.
    pub judge: fn(ExitStatus, &str) -> Result<(), String>,
}

fn succeeds(status: ExitStatus, _: &str) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
}

const fn case(name: &'static str, run: fn()) -> Case {
    Case { name, needs: Needs::Nothing, run, judge: succeeds }
}

const fn root(name: &'static str, run: fn()) -> Case {
    Case { name, needs: Needs::Root, run, judge: succeeds }
}

const fn huge(name: &'static str, run: fn()) -> Case {
    Case { name, needs: Needs::HugePages, run, judge: succeeds }
}

pub const CASES: &[Case] = &[
    case("a_ring_gives_back_what_was_sent", memory::ring),
    case("null_swallows_frames_and_frees_them", memory::null),
    case("what_is_discarded_is_free_again", memory::discarded),
    case("pcap_reads_and_writes_files", memory::pcap),
    case("frames_longer_than_a_buffer_are_counted", memory::too_long),
    case("jumbo_frames_pass_in_several_buffers", segments::pcap),
    case("segments_are_cut_gathered_and_freed", segments::shapes),
    case("jumbo_frames_are_balanced_whole", segments::balanced),
    root("drivers_of_one_segment_get_one", segments::linearized),
    root("a_tap_takes_segments", segments::tap),
    case("a_packet_grows_and_shrinks_within_its_buffer", memory::bounds),
    case("an_empty_pool_gives_nothing", memory::exhausted),
    case("a_packet_may_outlive_its_pool", memory::outlives),
    case("memif_opens_its_socket", memory::memif),
    case("frames_are_handed_over_in_order", workers::hand_over),
    case("a_full_ring_leaves_the_rest", workers::full),
    case("two_workers_share_one_transmit_queue", workers::shared_queue),
    case("each_worker_has_its_queue_where_there_are_enough", workers::own_queues),
    case("workers_run_pinned_and_pass_frames", workers::threads),
    Case {
        name: "a_panic_in_a_worker_ends_the_process",
        needs: Needs::Nothing,
        run: workers::panic,
        judge: workers::judge_panic,
    },
    case("an_idle_worker_sleeps_about_as_long_as_asked", workers::sleeps),
    case("directors_of_one_name_run_side_by_side", workers::side_by_side),
    case("dpdk_starts_once", errors::twice),
    case("what_the_machine_lacks_is_named", errors::start),
    case("what_devices_cannot_do_is_named", errors::devices),
    root("an_interface_that_is_missing_is_named", errors::interface),
    root("af_packet_carries_frames_both_ways", kernel::af_packet),
    root("af_packet_carries_jumbo_frames", kernel::jumbo),
    root("af_packet_keeps_vlan_tags", kernel::vlan),
    root("af_xdp_keeps_vlan_tags", kernel::vlan_af_xdp),
    root("af_packet_tells_how_many_frames_wait", kernel::backlog),
    root("af_packet_s_short_ring_tells_it_too", kernel::backlog_jumbo),
    root("af_xdp_tells_how_many_frames_wait", kernel::backlog_af_xdp),
    root("one_worker_polls_and_sends_for_another", kernel::two_workers),
    root("af_xdp_carries_frames_both_ways", kernel::af_xdp),
    root("af_xdp_carries_frames_of_its_largest_mtu", kernel::af_xdp_largest),
    root("af_xdp_takes_over_after_a_kill", kernel::af_xdp_after_kill),
    root("a_tap_lives_as_long_as_its_device", kernel::tap),
    huge("tables_take_reserved_pages_and_give_them_back", huge_pages::tables),
    huge("what_does_not_fit_in_reserved_pages_takes_none", huge_pages::shortage),
    huge("without_reserved_pages_the_kernel_is_asked_to_join_some", huge_pages::none),
    huge("dpdk_and_tables_share_the_reserved_pages", huge_pages::beside_dpdk),
    root("multicast_arrives_and_the_interface_is_left_as_it_was", kernel::multicast),
];
