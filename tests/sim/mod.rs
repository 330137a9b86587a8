//! A core's world made of memory and a seed: disk, executor, clock. The real log runs on it; every run replays from its seed.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod bench;
pub mod disk;
pub mod model;
pub mod rng;
pub mod shards;
pub mod world;
