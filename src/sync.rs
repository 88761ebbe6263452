//! The primitives that cross threads, through one door, so that loom can check what uses them.

#[cfg(reev_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(reev_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

#[cfg(not(reev_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(not(reev_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Locks, whether or not another thread panicked while it held the lock: what is guarded here
/// is whole at every moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// [`lock`] for what loom does not check, and which waits in ways that loom does not know.
#[cfg(feature = "proactor")]
pub(crate) fn lock_std<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
