//! How many events a batch may hold while something is looked for.
//!
//! An event that brings the process down leaves nothing behind but a partition that was taken over and never got on. A
//! lane that takes over such a partition goes carefully: in batches of 4096 events; if that dies too, of 64, for as many
//! events as the batch that died had; then one by one, each noted down before it is touched. Nobody else pays for it.

/// A lane's pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    #[default]
    Free,
    /// Postgres refused a batch; batches of at most this many events are committed until the culprit stands alone.
    Search(u64),
    /// The process died here before.
    Careful { batch: u64, left: u64 },
}

impl Pace {
    /// The pace for partitions that were taken over so often without anything having been committed.
    pub fn after_starts(starts: i32) -> Pace {
        match starts {
            ..=1 => Pace::Free,
            2 => Pace::Careful { batch: 4096, left: 1 << 20 },
            3 => Pace::Careful { batch: 64, left: 4096 },
            _ => Pace::Careful { batch: 1, left: 64 },
        }
    }

    /// The most events that a batch may hold.
    pub fn limit(self) -> Option<u64> {
        match self {
            Pace::Free => None,
            Pace::Search(most) => Some(most),
            Pace::Careful { batch, .. } => Some(batch),
        }
    }

    pub fn is_careful(self) -> bool {
        matches!(self, Pace::Careful { .. })
    }

    pub fn is_single(self) -> bool {
        matches!(self, Pace::Careful { batch: 1, .. })
    }

    /// After a batch was committed. A search that meets no culprit any more ends by itself: what was refused as a whole
    /// is fine in parts.
    #[must_use]
    pub fn committed(self, events: u64, caught_up: bool) -> Pace {
        const AS_GOOD_AS_ALL: u64 = 1 << 20;
        match self {
            Pace::Search(most) if most < AS_GOOD_AS_ALL => Pace::Search(most * 2),
            Pace::Careful { batch, left } if left > events && !caught_up => {
                Pace::Careful { batch, left: left - events }
            }
            _ => Pace::Free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn care_grows_with_every_death_and_ends() {
        let batches: Vec<Option<u64>> = (0..6).map(|starts| Pace::after_starts(starts).limit()).collect();
        assert_eq!(batches, [None, None, Some(4096), Some(64), Some(1), Some(1)]);
        let mut pace = Pace::after_starts(4);
        for _ in 0..63 {
            pace = pace.committed(1, false);
            assert!(pace.is_single());
        }
        assert_eq!(pace.committed(1, false), Pace::Free);
        assert_eq!(Pace::after_starts(2).committed(10, true), Pace::Free);
    }

    #[test]
    fn a_search_widens_until_it_is_none() {
        let mut pace = Pace::Search(1);
        let mut commits = 0;
        while pace != Pace::Free {
            pace = pace.committed(1, false);
            commits += 1;
        }
        assert_eq!(commits, 21);
    }
}
