//! Which core a reactor runs on.

use core_affinity::CoreId;

/// The cores this process may use, by its affinity mask (taskset, cpuset); empty where the
/// system does not say.
pub(crate) fn allowed_cores() -> Vec<CoreId> {
    core_affinity::get_core_ids().unwrap_or_default()
}

/// How many reactors make sense: as many as there are allowed cores, or fewer if a cgroup's CPU
/// quota is lower.
pub(crate) fn default_reactors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Pins the calling thread; a refusal is logged, for a server that is not pinned still serves.
pub(crate) fn pin_to(core: CoreId) {
    if !core_affinity::set_for_current(core) {
        log::warn!("cannot pin this thread to core {}", core.id);
    }
}
