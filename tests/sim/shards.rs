//! What a whole shard needs to start on the simulated disk.

use super::rng::Rng;
use super::world::World;
use ringlog::base::ids::{CoreIndex, NodeId};
use ringlog::log::LogSettings;
use ringlog::shard::{GroupSettings, ShardSettings, World as ShardWorld};
use std::cell::RefCell;
use std::rc::Rc;

pub const DATA: &str = "/data";

/// One core of a broker that does nothing of itself but what its log must.
pub fn settings(core: u16, core_count: u16) -> ShardSettings {
    ShardSettings {
        core: CoreIndex(core),
        core_count,
        node: NodeId(1),
        cluster_id: "cluster".into(),
        host: "localhost".into(),
        port: 9092,
        spared_cores: vec![],
        core_ports: vec![],
        data_dir: DATA.into(),
        data_dirs: vec![DATA.into()],
        log: LogSettings {
            journal_file_bytes: 256 << 10,
            journal_bytes: 1 << 20,
            tail_bytes: 4 << 20,
            flush_age_ms: 50,
            // Many batches go to their segments first.
            large_batch_bytes: 300,
            ..LogSettings::default()
        },
        groups: GroupSettings::default(),
        statics: Default::default(),
        retention_check_ms: 500,
        disk_reserve_bytes: 0,
        balance_interval_ms: None,
        own_log_growth_bytes: 1 << 20,
    }
}

/// The world's clock, and chance from its seed.
pub fn outside(world: &mut World) -> ShardWorld {
    let clock = world.clock.clone();
    let random = RefCell::new(Rng(world.rng.next()));
    ShardWorld {
        now: Rc::new(move || clock.get()),
        random: Rc::new(move || {
            let mut random = random.borrow_mut();
            u128::from(random.next()) << 64 | u128::from(random.next())
        }),
    }
}
