//! Randomness of this machine. Whoever decides by chance gets it as an argument.

/// 128 random bits from the kernel.
pub fn random_u128() -> u128 {
    let mut bytes = [0u8; 16];
    // SAFETY: the kernel writes at most sixteen bytes into `bytes`.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert_eq!(got, 16, "getrandom gives up to 256 bytes at once, once the machine has booted");
    u128::from_ne_bytes(bytes)
}
