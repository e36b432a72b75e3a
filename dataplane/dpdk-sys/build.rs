//! Finds libdpdk with pkg-config, compiles the shim, runs bindgen. What is missing is named with its Debian package.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// First and first-too-new version of DPDK: Debian 12 has 22.11, Debian 13 has 24.11.
const VERSIONS: std::ops::Range<&str> = "22.11".."25.0";

/// The libraries that this crate calls. DPDK's .pc file lists fifty more, and rte_log only since 23.11, which took it
/// out of rte_eal.
const LIBRARIES: [&str; 7] =
    ["rte_hash", "rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal", "rte_log"];

/// What is bound: functions, types and constants by name.
const FUNCTIONS: &str = "sluice_.*|rte_eal_(init|cleanup|hotplug_add|hotplug_remove|remote_launch|wait_lcore|get_runtime_dir)\
    |rte_hash_(create|free|add_key_data|lookup_bulk_data)|rte_malloc_heap_(create|memory_add|get_socket)\
    |rte_strerror|rte_get_tsc_hz|rte_ring_(create|free|count)|rte_pktmbuf_pool_create\
    |rte_mempool_(free|avail_count|in_use_count)\
    |rte_eth_dev_(get_port_by_name|info_get|configure|start|stop|close|set_mtu|socket_id|adjust_nb_rx_tx_desc)\
    |rte_eth_(rx|tx)_queue_setup|rte_eth_(macaddr_get|stats_get|allmulticast_enable|promiscuous_enable)";
const TYPES: &str =
    "rte_eth_(conf|dev_info|stats|rxconf|txconf)|rte_ether_addr|rte_hash_parameters|sluice_.*";
const VARIABLES: &str = "SLUICE_.*|RTE_HASH_LOOKUP_BULK_MAX";
/// Declared without fields in `lib.rs`, with everything that hangs on them left out.
const OPAQUE: &str = "rte_device|rte_mbuf.*|rte_mempool.*|rte_ring.*|rte_hash";

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/shim.c");
    println!("cargo:rerun-if-changed=src/shim.h");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndpdk-sys: {error}\n");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let dpdk = pkg_config::Config::new()
        .range_version(VERSIONS)
        .cargo_metadata(false)
        .probe("libdpdk")
        .map_err(|error| {
            format!(
                "no usable libdpdk (22.11 to 24.11). On Debian: apt install libdpdk-dev pkg-config\n{error}"
            )
        })?;
    let flags = compiler_flags()?;
    // Another version of DPDK in the same place changes this header.
    for header in dpdk.include_paths.iter().map(|path| path.join("rte_build_config.h")).filter(|h| h.exists())
    {
        println!("cargo:rerun-if-changed={}", header.display());
    }

    // The shim comes before the libraries that it calls: the order of the static link.
    let mut shim = cc::Build::new();
    shim.file("src/shim.c").warnings(true);
    for flag in &flags {
        shim.flag(flag);
    }
    shim.try_compile("sluice_shim").map_err(|error| {
        format!("the C shim did not compile. On Debian: apt install gcc libdpdk-dev\n{error}")
    })?;
    for path in &dpdk.link_paths {
        println!("cargo:rustc-link-search=native={}", path.display());
    }
    for library in LIBRARIES.iter().filter(|library| dpdk.libs.iter().any(|lib| lib == *library)) {
        println!("cargo:rustc-link-lib=dylib={library}");
    }

    // bindgen loads libclang at run time and panics when there is none.
    let bindings = std::panic::catch_unwind(|| generate(&flags)).map_err(
        |_| "bindgen found no libclang (its message is above). On Debian: apt install libclang-dev",
    )?;
    let bindings = bindings.map_err(|error| {
        format!(
            "bindgen could not read DPDK's headers. On Debian: apt install libclang-dev libdpdk-dev\n{error}"
        )
    })?;
    bindings.write_to_file(out.join("bindings.rs"))?;
    Ok(())
}

fn generate(flags: &[String]) -> Result<bindgen::Bindings, bindgen::BindgenError> {
    bindgen::Builder::default()
        .header("src/shim.h")
        .clang_args(flags)
        .allowlist_function(FUNCTIONS)
        .allowlist_type(TYPES)
        .allowlist_var(VARIABLES)
        .blocklist_type(OPAQUE)
        .raw_line("use super::{rte_device, rte_hash, rte_mbuf, rte_mempool, rte_ring};")
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(false)
        .generate_comments(false)
        .rust_target(bindgen::RustTarget::stable(85, 0).unwrap_or_default())
        .rust_edition(bindgen::RustEdition::Edition2024)
        .generate()
}

/// DPDK's flags for the compiler as they stand in its .pc file: beside folders they force `rte_config.h` in and name
/// the CPU that the libraries were built for, which the inline functions rely on.
fn compiler_flags() -> Result<Vec<String>, Box<dyn Error>> {
    for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "LIBCLANG_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let tool = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    let output = Command::new(&tool)
        .args(["--cflags", "libdpdk"])
        .output()
        .map_err(|error| format!("{tool} did not start: {error}. On Debian: apt install pkg-config"))?;
    if !output.status.success() {
        return Err(format!("{tool} --cflags libdpdk: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let flags = String::from_utf8(output.stdout)?;
    Ok(flags.split_whitespace().map(str::to_owned).collect())
}
