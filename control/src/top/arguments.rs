//! What a person asks for: the arguments of `phoenix top`.

use crate::report::choice::{Choice, Sort};
use std::net::SocketAddr;
use std::time::Duration;

/// Reports as they come, as top shows processes. Keys: q quit, s sort by another column, r reverse, / filter, t tenant, arrows and enter a metric's details, p pause.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Where embedders post their reports, on this machine only; port 0 is any that is free.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4320", value_parser = loopback)]
    pub listen: SocketAddr,
    /// How often embedders report, and how often a table is printed where there is no terminal. A process that is silent for three is stale, for ten forgotten.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = interval)]
    pub interval: Duration,
    /// Wait for an interval, print a table, end.
    #[arg(long)]
    pub once: bool,
    /// What comes first.
    #[arg(long, value_enum, default_value_t = Sort::Active)]
    pub sort: Sort,
    /// Only this tenant.
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only metrics whose whole name matches: * any text, ? one byte.
    #[arg(long, value_name = "GLOB")]
    pub metric: Option<String>,
    /// Lines of a printed table; 0: all. A screen has as many as fit.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
}

impl Arguments {
    /// The metrics to show.
    pub fn choice(&self) -> Choice {
        Choice {
            tenant: self.tenant.clone(),
            metric: self.metric.clone(),
            sort: self.sort,
            limit: if self.limit == 0 { usize::MAX } else { self.limit },
            ..Choice::default()
        }
    }
}

/// An address of this machine that no other reaches.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "expected an address and a port, such as 127.0.0.1:4320".to_owned())?;
    if !address.ip().to_canonical().is_loopback() {
        return Err(format!(
            "{} can be reached from other machines, and whoever reaches it is not asked who they are; allowed: 127.0.0.0/8, [::1]",
            address.ip()
        ));
    }
    Ok(address)
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = crate::show::duration(text)?;
    let range = Duration::from_secs(1)..=Duration::from_secs(3_600);
    if range.contains(&interval) { Ok(interval) } else { Err("allowed: 1s to 1h".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine() {
        for good in ["127.0.0.1:0", "127.8.0.1:4320", "[::1]:4320", "[::ffff:127.0.0.1]:1"] {
            assert!(loopback(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("0.0.0.0:4320", "0.0.0.0 can be reached from other machines"),
            ("[::]:4320", "can be reached"),
            ("10.0.0.7:4320", "can be reached"),
            ("[::ffff:10.0.0.7]:1", "can be reached"),
            ("localhost:4320", "such as 127.0.0.1:4320"),
            ("127.0.0.1", "such as"),
        ] {
            assert!(loopback(bad).is_err_and(|error| error.contains(why)), "{bad}");
        }
    }
}
