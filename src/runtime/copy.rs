//! Copies of large batches.
//!
//! `memcpy` of large blocks is `rep movsb` where the processor announces it to be fast (glibc 2.36). On the AMD EPYC where this was measured
//! it takes four times as long for some alignments of source and target (docs/performance.md). And any ordinary store reads the line it
//! writes to first: what goes to memory that is far larger than the cache, as tails are, is read once for nothing.

/// What is smaller is copied the ordinary way and stays in the cache.
const STREAM_BYTES_MIN: usize = 8 << 10;

/// Copies `bytes` to `target`; where they are many, past the cache.
///
/// # Safety
/// `target` is valid for writes of as many bytes, which do not overlap `bytes`.
pub(super) unsafe fn copy(bytes: &[u8], target: *mut u8) {
    if bytes.len() < STREAM_BYTES_MIN {
        // SAFETY: the caller's.
        return unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }
    // SAFETY: the caller's.
    unsafe { stream(bytes, target) }
}

/// One line of the cache.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// # Safety
/// As `copy`.
#[cfg(target_arch = "x86_64")]
unsafe fn stream(bytes: &[u8], target: *mut u8) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    let (head, rest) = bytes.split_at(target.align_offset(LINE_BYTES).min(bytes.len()));
    let (lines, tail) = rest.as_chunks::<LINE_BYTES>();
    // SAFETY: head, lines and tail are `bytes` in order, so that each target lies in the caller's; a line's target is aligned since the
    // head ends where a line begins. SSE2 is part of x86-64. The fence orders these stores before whatever tells others of them.
    unsafe {
        std::ptr::copy_nonoverlapping(head.as_ptr(), target, head.len());
        let mut to = target.add(head.len());
        for line in lines {
            let (from, line_to) = (line.as_ptr().cast::<__m128i>(), to.cast::<__m128i>());
            let quarters = [0, 1, 2, 3].map(|quarter| _mm_loadu_si128(from.add(quarter)));
            for (at, quarter) in quarters.into_iter().enumerate() {
                _mm_stream_si128(line_to.add(at), quarter);
            }
            to = to.add(LINE_BYTES);
        }
        _mm_sfence();
        std::ptr::copy_nonoverlapping(tail.as_ptr(), to, tail.len());
    }
}

/// # Safety
/// As `copy`.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn stream(bytes: &[u8], target: *mut u8) {
    // SAFETY: the caller's.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_and_no_other_is_touched() {
        let source: Vec<u8> = (0..40_000u32).map(|at| (at * 31 % 251) as u8).collect();
        for (from, to) in [(0, 0), (1, 0), (0, 1), (61, 64), (63, 15), (7, 127)] {
            for length in [0, 1, 63, STREAM_BYTES_MIN - 1, STREAM_BYTES_MIN, STREAM_BYTES_MIN + 1, 30_011] {
                let bytes = &source[from..from + length];
                let mut target = vec![0xee; length + 300];
                // SAFETY: there is room for `length` bytes and more behind `to`.
                unsafe { copy(bytes, target.as_mut_ptr().add(to)) }
                assert_eq!(&target[to..to + length], bytes, "{from} {to} {length}");
                let around = target[..to].iter().chain(&target[to + length..]);
                assert!(around.into_iter().all(|&byte| byte == 0xee), "{from} {to} {length}");
            }
        }
    }
}
