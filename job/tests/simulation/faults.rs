//! The faults of a schedule, and counts of those that fired.

/// Kinds of faults that a schedule may have.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) deaths: bool,
    pub(crate) stalls: bool,
    pub(crate) membership: bool,
    pub(crate) busy: bool,
    pub(crate) poison: bool,
    pub(crate) restarts: bool,
    /// Shards go through several tiers, and some workers serve only some of them.
    pub(crate) cascade: bool,
}

/// Counts of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fired {
    pub(crate) shards: u64,
    pub(crate) attempts: u64,
    pub(crate) deaths: u64,
    pub(crate) stalls: u64,
    pub(crate) departures: u64,
    pub(crate) busy_answers: u64,
    pub(crate) poisonous_records: u64,
    pub(crate) restarts: u64,
    pub(crate) expiries: u64,
    pub(crate) doubled_leases: u64,
    /// Commits of attempts that the coordinator had given up.
    pub(crate) late_commits: u64,
    /// Shards that went on to a next tier.
    pub(crate) tiers: u64,
    pub(crate) refusals: u64,
}

impl Fired {
    pub(crate) fn add(&mut self, other: &Fired) {
        self.shards += other.shards;
        self.attempts += other.attempts;
        self.deaths += other.deaths;
        self.stalls += other.stalls;
        self.departures += other.departures;
        self.busy_answers += other.busy_answers;
        self.poisonous_records += other.poisonous_records;
        self.restarts += other.restarts;
        self.expiries += other.expiries;
        self.doubled_leases += other.doubled_leases;
        self.late_commits += other.late_commits;
        self.tiers += other.tiers;
        self.refusals += other.refusals;
    }
}
