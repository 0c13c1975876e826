//! Which share of several reconstructions this process makes: `--array`, for the job arrays of a cluster.

use std::{fmt, str::FromStr};

use crate::{Error, Result};

/// What `--array` without a value stands for.
pub(super) const FROM_SLURM: &str = "slurm";

/// Share `index` of `count`, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    index: usize,
    count: usize,
}

impl Share {
    /// The share that `--array` names: `I/N`, counted from 1, or that of this task of a Slurm job array.
    ///
    /// # Errors
    /// Not a share, or no job array around.
    pub(super) fn named(text: &str) -> Result<Self> {
        match text {
            FROM_SLURM => Self::of_slurm(|name| std::env::var(name).ok()),
            _ => text.parse(),
        }
    }

    /// The share of task `SLURM_ARRAY_TASK_ID` of an array of evenly spaced numbers.
    fn of_slurm(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let number = |name: &str| variable(&format!("SLURM_ARRAY_TASK_{name}"))?.parse::<usize>().ok();
        let outside = || Error::config("--array", "there is no Slurm job array here; write --array I/N");
        let (id, count) = (number("ID").ok_or_else(outside)?, number("COUNT").ok_or_else(outside)?);
        let (first, last) = (number("MIN").unwrap_or(0), number("MAX").unwrap_or(count.saturating_sub(1)));
        let step = number("STEP").unwrap_or(1).max(1);
        let index = id.saturating_sub(first) / step;
        if last.saturating_sub(first) / step + 1 != count || index >= count {
            let problem = "the numbers of this job array have gaps; write --array I/N";
            return Err(Error::config("--array", problem));
        }
        Ok(Self { index, count })
    }

    /// What falls to this share: every `count`-th of `all`.
    pub(super) fn of<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.index).step_by(self.count).collect()
    }
}

impl FromStr for Share {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let problem = format!("`{text}` is not I/N with I from 1 to N, for example 2/8");
            Error::config("--array", problem)
        };
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        match (index.parse::<usize>(), count.parse::<usize>()) {
            (Ok(index), Ok(count)) if (1..=count).contains(&index) => Ok(Self { index: index - 1, count }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "share {} of {}", self.index + 1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        let mut all: Vec<usize> = (1..=3)
            .flat_map(|i| format!("{i}/3").parse::<Share>().unwrap().of((0..8).collect::<Vec<_>>()))
            .collect();
        assert_eq!(all[..3], [0, 3, 6]);
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_a_share_is_refused() {
        for wrong in ["", "3", "0/4", "5/4", "a/b", "1/0", "M87.uvfits"] {
            assert!(wrong.parse::<Share>().unwrap_err().to_string().contains("2/8"), "{wrong}");
        }
    }

    #[test]
    fn slurm_numbers_its_tasks_as_it_likes() {
        let share = |values: [Option<usize>; 5]| {
            let names = ["ID", "COUNT", "MIN", "MAX", "STEP"];
            Share::of_slurm(|variable| {
                let at = names.iter().position(|name| variable == format!("SLURM_ARRAY_TASK_{name}"))?;
                values[at].map(|value| value.to_string())
            })
        };
        let found = share([Some(5), Some(4), Some(3), Some(9), Some(2)]).unwrap();
        assert_eq!(found, Share { index: 1, count: 4 });
        assert_eq!(share([Some(0), Some(2), Some(0), Some(1), None]).unwrap(), Share { index: 0, count: 2 });
        assert!(share([None; 5]).is_err());
        let gaps = share([Some(7), Some(3), Some(1), Some(7), Some(1)]).unwrap_err();
        assert!(gaps.to_string().contains("gaps"), "{gaps}");
    }
}
