//! Asking the processor for memory before it is needed, so that nothing waits for it then.
//!
//! In: an address, of whatever. Out: nothing; the cache line it lies in is on its way. Where the processor is not an x86-64,
//! these do nothing.

/// Octets of a cache line.
pub(crate) const CACHE_LINE: usize = 64;

/// Asks for the cache line of `slice[at]`; a position outside asks for what is there instead, or for nothing.
#[inline(always)]
pub(crate) fn prefetch<T>(slice: &[T], at: usize) {
    prefetch_at(slice.as_ptr().wrapping_add(at));
}

/// Asks for the cache line at this address, or for nothing.
#[inline(always)]
pub(crate) fn prefetch_at<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could see, and faults nowhere, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for the cache line of what lies `COUNT` elements behind `element` to be written, which takes it away from other
/// cores; there need be nothing.
#[inline(always)]
pub(crate) fn prefetch_behind_to_write<T, const COUNT: usize>(element: &mut T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it changes nothing that the program could see and faults nowhere, whatever the address. Processors of
    // 2006 to 2014 that do not know the instruction take it for none. The intrinsic would become a
    // prefetch to read where the instruction is not promised at compile time.
    unsafe {
        std::arch::asm!(
            "prefetchw [{} + {}]", in(reg) std::ptr::from_mut(element), const COUNT * size_of::<T>(),
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = element;
}

/// Asks for the cache line at this address to be brought to the second cache.
#[inline(always)]
pub(crate) fn prefetch_to_second_cache(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could see, and faults nowhere, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
